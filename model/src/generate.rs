//! Several texts continued at once: greedily, by sampling, or by beam search.
//!
//! What a model with an encoder is given is what the encoder reads; its decoder begins with the start token alone.

use crate::beam;
use crate::decoder::{Decoder, Line};
use crate::sample::Stream;
use crate::{Error, Family, LanguageModel, Prompt, Result, Sampling, Source, Tokenizer};

/// More beams than anybody needs.
const MOST_BEAMS: usize = 1024;

/// What to generate.
#[derive(Clone, Debug)]
pub struct Options {
    /// At most so many new tokens per sequence.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens that end a sequence (usually [`crate::Config::eos_token_ids`]).
    pub eos: Vec<u32>,
    /// Strings that end a sequence; need a tokenizer in [`Hooks`].
    pub stop: Vec<String>,
    /// Continuations of each text that are followed at a time; with more than one, the best of them is the result.
    pub beams: usize,
    /// Above zero, beam search prefers long texts, below zero short ones.
    pub length_penalty: f32,
    /// Whether keys and values are kept. Without, everything is computed again for each token: for tests.
    pub use_cache: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_new_tokens: 64,
            sampling: Sampling::GREEDY,
            eos: Vec::new(),
            stop: Vec::new(),
            beams: 1,
            length_penalty: 1.0,
            use_cache: true,
        }
    }
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A token of [`Options::eos`] came; it is not among the tokens.
    Eos,
    /// A string of [`Options::stop`] came, or [`Hooks::ends`] said so; the text ends before it.
    Stop,
    /// [`Options::max_new_tokens`] are there.
    MaxNewTokens,
    /// The context window is full.
    Length,
}

impl FinishReason {
    /// As reports write it.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Eos => "eos",
            FinishReason::Stop => "stop",
            FinishReason::MaxNewTokens => "max_new_tokens",
            FinishReason::Length => "length",
        }
    }
}

/// A continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// The new text, when there is a tokenizer.
    pub text: Option<String>,
    /// Why it ended.
    pub reason: FinishReason,
}

/// Says where a text ends, once it has.
pub type EndOfText<'a> = dyn Fn(&str) -> Option<usize> + 'a;

/// What generation may use besides the model.
#[derive(Default)]
pub struct Hooks<'a> {
    /// Makes text of tokens.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Called with sequence and token as each token comes.
    pub on_token: Option<&'a mut dyn FnMut(usize, u32)>,
    /// Where a new text ends, once it has: what no stop string can say. Needs the tokenizer; beam search does not ask.
    pub ends: Option<&'a EndOfText<'a>>,
}

/// Continues every row of `rows` (`Text` and `Soft` tokens; unequal lengths, repetitions and common prefixes welcome), or
/// has the decoder answer it. `prompt` is the soft prompt, `[n, d_model]`. What becomes of a row does not depend on the
/// others.
///
/// # Errors
/// A masked model or a classifier, a row the model cannot take, an option out of range, or NaN from the model.
pub fn generate(
    model: &LanguageModel,
    rows: &[Vec<Source>],
    prompt: Option<&Prompt>,
    options: &Options,
    hooks: Hooks,
) -> Result<Vec<Generated>> {
    model.check_speaks()?;
    check_family(model)?;
    options.check(&hooks)?;
    rows.iter().try_for_each(|row| model.check_row(row, prompt))?;
    let n_ahead = Prompt::n_ahead(prompt);
    // inference records nothing: the prompt enters as a constant
    let prompt = prompt.map(Prompt::constant);
    let rows: Vec<Row> = rows.iter().map(|row| Row::new(row, model, n_ahead)).collect();
    if options.beams > 1 {
        let found = beam::search(model, &rows, prompt.as_ref(), options)?;
        let nothing = |row: &Row| (Vec::new(), row.full(0, options));
        let one = |(row, found): (&Row, Option<beam::Finished>)| {
            let (tokens, reason) = found.map_or_else(|| nothing(row), |found| (found.tokens, found.reason));
            Generated::new(row.family, (tokens, None), reason, hooks.tokenizer)
        };
        return rows.iter().zip(found).map(one).collect();
    }
    one_by_one(model, &rows, prompt.as_ref(), options, hooks)
}

/// A token at a time, each chosen when it is its turn.
fn one_by_one(
    model: &LanguageModel,
    rows: &[Row],
    prompt: Option<&Prompt>,
    options: &Options,
    mut hooks: Hooks,
) -> Result<Vec<Generated>> {
    let sequence = |(i, row)| Sequence::new(row, options.sampling.stream(i), options);
    let mut all: Vec<Sequence> = rows.iter().enumerate().map(sequence).collect();
    let mut live: Vec<usize> = (0..rows.len()).filter(|&i| all[i].reason.is_none()).collect();
    if !live.is_empty() {
        let mut decoder = Decoder::new(model, prompt, options.use_cache);
        let (order, mut hidden) = decoder.start(&lines(&all, &live));
        live = order.into_iter().map(|i| live[i]).collect();
        loop {
            let logits = model.logits(&hidden);
            for (&i, logits) in live.iter().zip(logits.f32s().chunks_exact(logits.width())) {
                all[i].extend(logits, options, &hooks).ok_or_else(|| not_finite(model))??;
                if let (Some(on_token), true) =
                    (hooks.on_token.as_mut(), all[i].reason != Some(FinishReason::Eos))
                {
                    on_token(i, all[i].tokens[all[i].tokens.len() - 1]);
                }
            }
            let still = |&(_, &i): &(u32, &usize)| all[i].reason.is_none();
            let (parents, left): (Vec<u32>, Vec<usize>) = (0..).zip(&live).filter(still).unzip();
            live = left;
            if live.is_empty() {
                break;
            }
            hidden = decoder.next(&parents, &lines(&all, &live));
        }
    }
    all.into_iter().map(|sequence| sequence.finish(hooks.tokenizer)).collect()
}

/// That the model continues texts at all.
fn check_family(model: &LanguageModel) -> Result<()> {
    match model.family() {
        Family::Masked => {
            let name = &model.config().name_or_path;
            let why =
                "is a masked language model, which fills masks and does not continue texts; use fill-mask";
            Err(Error::Option(format!("`{name}` {why}")))
        }
        Family::Causal | Family::Seq2Seq => Ok(()),
    }
}

fn lines<'a>(all: &'a [Sequence], live: &[usize]) -> Vec<Line<'a>> {
    live.iter().map(|&i| Line { encoder: all[i].row.encoder, tokens: &all[i].so_far }).collect()
}

pub(crate) fn not_finite(model: &LanguageModel) -> Error {
    let unexplained = || "the weights are finite, so the prompt is too large or not a number".to_string();
    Error::NonFinite(model.explain_non_finite().unwrap_or_else(unexplained))
}

impl Options {
    fn check(&self, hooks: &Hooks) -> Result<()> {
        self.sampling.check()?;
        let wrong = |why: &str| Err(Error::Option(why.into()));
        match self {
            Options { beams: 0, .. } => wrong("beams is 0, but must be 1 or more"),
            Options { beams, .. } if *beams > MOST_BEAMS => {
                wrong("more than 1024 beams are not searched; use fewer")
            }
            Options { length_penalty, .. } if !length_penalty.is_finite() => {
                wrong("the length penalty must be a finite number")
            }
            Options { beams: 2.., sampling, .. } if sampling.temperature != 0.0 => {
                wrong("beam search does not sample; leave out the temperature or the beams")
            }
            Options { beams: 2.., stop, .. } if !stop.is_empty() => {
                wrong("beam search does not know stop strings; leave out the one or the other")
            }
            Options { stop, .. } if !stop.is_empty() && hooks.tokenizer.is_none() => {
                wrong("stop strings need a tokenizer, and the model has none")
            }
            _ => Ok(()),
        }
    }
}

/// What one continuation starts from.
pub(crate) struct Row<'r> {
    /// What the encoder reads, if there is one.
    pub encoder: &'r [Source],
    /// What is continued.
    pub tokens: Vec<Source>,
    n_positions: usize,
    family: Family,
}

impl<'r> Row<'r> {
    fn new(row: &'r [Source], model: &LanguageModel, n_ahead: usize) -> Row<'r> {
        let (n_positions, family) = (model.config().n_positions - n_ahead, model.family());
        match model.config().seq2seq {
            Some(of_decoder) => {
                let start = Source::Text(of_decoder.decoder_start_token_id);
                Row { encoder: row, tokens: vec![start], n_positions, family }
            }
            None => Row { encoder: &[], tokens: row.to_vec(), n_positions, family },
        }
    }

    /// How many tokens may come.
    pub(crate) fn room(&self, options: &Options) -> usize {
        options.max_new_tokens.min(self.n_positions - self.tokens.len().min(self.n_positions))
    }

    /// Why no more than `n` tokens may come, when that is [`Row::room`].
    pub(crate) fn full(&self, n: usize, options: &Options) -> FinishReason {
        if n >= options.max_new_tokens { FinishReason::MaxNewTokens } else { FinishReason::Length }
    }
}

/// One row and its continuation so far.
struct Sequence<'r> {
    row: &'r Row<'r>,
    room: usize,
    /// The row and the new tokens.
    so_far: Vec<Source>,
    tokens: Vec<u32>,
    /// Set when a stop string cuts the text.
    text: Option<String>,
    random: Stream,
    reason: Option<FinishReason>,
}

impl<'r> Sequence<'r> {
    fn new(row: &'r Row<'r>, random: Stream, options: &Options) -> Sequence<'r> {
        let (room, so_far) = (row.room(options), row.tokens.clone());
        let reason = (room == 0).then(|| row.full(0, options));
        Sequence { row, room, so_far, tokens: Vec::new(), text: None, random, reason }
    }

    /// Adds the next token and sees whether the sequence ends. `None` when the logits are no distribution.
    fn extend(&mut self, logits: &[f32], options: &Options, hooks: &Hooks) -> Option<Result<()>> {
        let token = options.sampling.choose(logits, &mut self.random)?;
        if options.eos.contains(&token) {
            self.reason = Some(FinishReason::Eos);
            return Some(Ok(()));
        }
        self.tokens.push(token);
        self.so_far.push(Source::Text(token));
        let n = self.tokens.len();
        self.reason = (n >= self.room).then(|| self.row.full(n, options));
        Some(self.look_for_stop(&options.stop, hooks))
    }

    fn look_for_stop(&mut self, stop: &[String], hooks: &Hooks) -> Result<()> {
        let wanted = !stop.is_empty() || hooks.ends.is_some();
        let Some(tokenizer) = hooks.tokenizer.filter(|_| wanted) else { return Ok(()) };
        let mut text = tokenizer.decode_generated(self.row.family, &self.tokens)?;
        let ended = hooks.ends.and_then(|ends| ends(&text));
        if let Some(at) = stop.iter().filter_map(|s| text.find(s.as_str())).chain(ended).min() {
            text.truncate(at);
            self.text = Some(text);
            self.reason = Some(FinishReason::Stop);
        }
        Ok(())
    }

    fn finish(self, tokenizer: Option<&Tokenizer>) -> Result<Generated> {
        let reason = self.reason.unwrap_or(FinishReason::MaxNewTokens);
        Generated::new(self.row.family, (self.tokens, self.text), reason, tokenizer)
    }
}

impl Generated {
    fn new(
        family: Family,
        (tokens, text): (Vec<u32>, Option<String>),
        reason: FinishReason,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Generated> {
        let text = match (text, tokenizer) {
            (None, Some(tokenizer)) => Some(tokenizer.decode_generated(family, &tokens)?),
            (text, _) => text,
        };
        Ok(Generated { tokens, text, reason })
    }
}
