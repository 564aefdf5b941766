//! Several texts continued at once, over one forest.
//!
//! The prompts are a forest like any batch: what they share is computed and cached once. A decoding step has one query
//! per living sequence. With the sequences in depth-first order ("ranks"), those below a token are neighbours, so who
//! sees a cached key is one interval of ranks; a new token is seen by its own sequence. A sequence that ends leaves the
//! queries, and the intervals are counted again without it.

use std::sync::Arc;

use autograd::ops::Intervals;
use autograd::{Tape, Value};
use kernels::threads::on_pool;
use tensor::Tensor;

use crate::language_model::Step;
use crate::sample::Stream;
use crate::{Error, Family, Forest, KvCache, LanguageModel, Result, Sampling, Source, Tokenizer};

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
            use_cache: true,
        }
    }
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A token of [`Options::eos`] came; it is not among the tokens.
    Eos,
    /// A string of [`Options::stop`] came; the text ends before it.
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

/// What generation may use besides the model.
#[derive(Default)]
pub struct Hooks<'a> {
    /// Makes text of tokens.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Called with sequence and token as each token comes.
    pub on_token: Option<&'a mut dyn FnMut(usize, u32)>,
}

/// Continues every row of `rows` (`Text` and `Soft` tokens; unequal lengths, repetitions and common prefixes welcome).
/// `prompt` is the soft prompt, `[n, d_model]`. What becomes of a row does not depend on the others.
///
/// # Errors
/// A masked model, a row the model cannot take, an option out of range, or NaN from the model.
pub fn generate(
    model: &LanguageModel,
    rows: &[Vec<Source>],
    prompt: Option<&Value>,
    options: &Options,
    mut hooks: Hooks,
) -> Result<Vec<Generated>> {
    check_family(model)?;
    options.sampling.check()?;
    if !options.stop.is_empty() && hooks.tokenizer.is_none() {
        return Err(Error::Option("stop strings need a tokenizer, and the model has none".into()));
    }
    let n_soft = prompt.map_or(0, |p| p.tensor().rows());
    rows.iter().try_for_each(|row| model.check_row(row, n_soft))?;
    // inference records nothing: the prompt enters as a constant
    let prompt = prompt.map(|p| Value::constant(p.tensor().clone()));

    let limits = Limits { max_new_tokens: options.max_new_tokens, n_positions: model.config().n_positions };
    let mut all: Vec<Sequence> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| Sequence::new(row, options.sampling.stream(i), limits))
        .collect();
    let mut live: Vec<usize> = (0..rows.len()).filter(|&i| all[i].reason.is_none()).collect();
    if !live.is_empty() {
        let mut decoder = Decoder { model, prompt, cached: None };
        let mut hidden = decoder.start(rows, &mut live, options.use_cache);
        loop {
            let logits = model.logits(&hidden);
            for (&i, logits) in live.iter().zip(logits.f32s().chunks_exact(logits.width())) {
                all[i].extend(logits, options, limits, &hooks).ok_or_else(|| not_finite(model))??;
                if let (Some(on_token), true) =
                    (hooks.on_token.as_mut(), all[i].reason != Some(FinishReason::Eos))
                {
                    on_token(i, all[i].tokens[all[i].tokens.len() - 1]);
                }
            }
            let still: Vec<bool> = live.iter().map(|&i| all[i].reason.is_none()).collect();
            if !still.contains(&true) {
                break;
            }
            hidden = decoder.next(&all, &mut live, &still);
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

fn not_finite(model: &LanguageModel) -> Error {
    let unexplained = || "the weights are finite, so the prompt is too large or not a number".to_string();
    Error::NonFinite(model.explain_non_finite().unwrap_or_else(unexplained))
}

#[derive(Clone, Copy)]
struct Limits {
    max_new_tokens: usize,
    n_positions: usize,
}

/// One row and its continuation so far.
struct Sequence {
    row: Vec<Source>,
    tokens: Vec<u32>,
    /// Set when a stop string cuts the text.
    text: Option<String>,
    random: Stream,
    reason: Option<FinishReason>,
}

impl Sequence {
    fn new(row: &[Source], random: Stream, limits: Limits) -> Sequence {
        let mut sequence =
            Sequence { row: row.to_vec(), tokens: Vec::new(), text: None, random, reason: None };
        sequence.reason = sequence.full(limits);
        sequence
    }

    /// Why no token can be added, if so.
    fn full(&self, limits: Limits) -> Option<FinishReason> {
        if self.tokens.len() >= limits.max_new_tokens {
            return Some(FinishReason::MaxNewTokens);
        }
        (self.row.len() >= limits.n_positions).then_some(FinishReason::Length)
    }

    /// Adds the next token and sees whether the sequence ends. `None` when the logits are no distribution.
    fn extend(
        &mut self,
        logits: &[f32],
        options: &Options,
        limits: Limits,
        hooks: &Hooks,
    ) -> Option<Result<()>> {
        let token = options.sampling.choose(logits, &mut self.random)?;
        if options.eos.contains(&token) {
            self.reason = Some(FinishReason::Eos);
            return Some(Ok(()));
        }
        self.tokens.push(token);
        self.row.push(Source::Text(token));
        self.reason = self.full(limits);
        Some(self.look_for_stop(&options.stop, hooks.tokenizer))
    }

    fn look_for_stop(&mut self, stop: &[String], tokenizer: Option<&Tokenizer>) -> Result<()> {
        let Some(tokenizer) = tokenizer.filter(|_| !stop.is_empty()) else { return Ok(()) };
        let mut text = tokenizer.decode_continuation(&self.tokens)?;
        if let Some(at) = stop.iter().filter_map(|s| text.find(s.as_str())).min() {
            text.truncate(at);
            self.text = Some(text);
            self.reason = Some(FinishReason::Stop);
        }
        Ok(())
    }

    fn finish(self, tokenizer: Option<&Tokenizer>) -> Result<Generated> {
        let text = match (self.text, tokenizer) {
            (None, Some(tokenizer)) => Some(tokenizer.decode_continuation(&self.tokens)?),
            (text, _) => text,
        };
        let reason = self.reason.unwrap_or(FinishReason::MaxNewTokens);
        Ok(Generated { tokens: self.tokens, text, reason })
    }
}

/// Final hidden states of the last token of every living sequence, step by step.
struct Decoder<'a> {
    model: &'a LanguageModel,
    prompt: Option<Value>,
    cached: Option<Cached>,
}

struct Cached {
    cache: KvCache,
    /// Which ranks see each cached key.
    seen: Intervals,
    /// Rank of each living sequence, ascending.
    ranks: Vec<u32>,
}

impl Decoder<'_> {
    /// The first step: everything the rows hold. Sorts `live` by rank.
    fn start(&mut self, rows: &[Vec<Source>], live: &mut [usize], use_cache: bool) -> Tensor {
        if !use_cache {
            return self.all_again(live.iter().map(|&i| rows[i].as_slice()));
        }
        let forest = Forest::from_rows(live.iter().map(|&i| rows[i].as_slice()));
        let mut ends: Vec<(u32, usize)> = forest.ends().zip(live.iter().copied()).collect();
        ends.sort_unstable();
        live.iter_mut().zip(&ends).for_each(|(live, &(_, i))| *live = i);
        let outputs: Arc<[u32]> = ends.iter().map(|&(end, _)| end).collect();

        let mut cache = KvCache::new(self.model.config());
        let (positions, mask) = (&*forest.positions, &forest.mask);
        let step = Step { positions, mask, outputs: Some(&outputs), cache: Some(&mut cache) };
        let hidden = self.hidden(&forest.sources, step);
        let ranks = (0..live.len() as u32).collect();
        self.cached = Some(Cached { cache, seen: forest.mask.for_queries(&outputs), ranks });
        hidden
    }

    /// One more step of the sequences that are `still` alive.
    fn next(&mut self, all: &[Sequence], live: &mut Vec<usize>, still: &[bool]) -> Tensor {
        keep(live, still);
        let Some(mut cached) = self.cached.take() else {
            return self.all_again(live.iter().map(|&i| all[i].row.as_slice()));
        };
        keep(&mut cached.ranks, still);
        cached.seen.begin.extend(&cached.ranks);
        cached.seen.end.extend(cached.ranks.iter().map(|rank| rank + 1));
        let mask = Arc::new(cached.seen.for_queries(&cached.ranks));
        let sources: Arc<[Source]> = live.iter().map(|&i| all[i].row[all[i].row.len() - 1]).collect();
        let positions: Vec<u32> = live.iter().map(|&i| all[i].row.len() as u32 - 1).collect();
        let step = Step { positions: &positions, mask: &mask, outputs: None, cache: Some(&mut cached.cache) };
        let hidden = self.hidden(&sources, step);
        self.cached = Some(cached);
        hidden
    }

    fn all_again<'r>(&self, rows: impl Iterator<Item = &'r [Source]>) -> Tensor {
        let forest = Forest::from_rows(rows);
        let step = Step { positions: &forest.positions, mask: &forest.mask, outputs: None, cache: None };
        let hidden = Value::constant(self.hidden(&forest.sources, step));
        let ends: Arc<[u32]> = forest.ends().collect();
        autograd::ops::gather_rows(&Tape::new(), &hidden, &ends).tensor().clone()
    }

    fn hidden(&self, sources: &Arc<[Source]>, step: Step) -> Tensor {
        on_pool(|| {
            let tape = Tape::new();
            let embeds = self.model.embed(&tape, sources, self.prompt.as_ref());
            self.model.hidden(&tape, &embeds, step).tensor().clone()
        })
    }
}

/// Keeps the items whose flag is set.
fn keep<T>(items: &mut Vec<T>, flags: &[bool]) {
    let mut flags = flags.iter();
    items.retain(|_| *flags.next().expect("one flag per item"));
}
