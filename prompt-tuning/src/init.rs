//! What a soft prompt starts from.
//!
//! ```text
//! vocab          embeddings of tokens sampled from the first 5000 ids (Lester et al. 2021: the common ones)
//! vocab:all      ... from the whole vocabulary; vocab:N from the first N
//! text:"words"   embeddings of the tokens of the words, repeated or cut to length
//! labels         embeddings of the answers of the verbalizer, the mean where one has several tokens; the rest as vocab
//! random         uniform in [-0.5, 0.5] (Lester et al.); random:X in [-X, X]
//! normal:S       normal with standard deviation S (PEFT's RANDOM is normal:1)
//! zero           zeros (for a prefix)
//! DIR, F.npy     another prompt
//! ```
//! Embeddings keep a prompt where the model expects its inputs; random numbers of another scale do not.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::adapter::{Adapter, PeftInit};
use crate::encode::Encode;
use crate::error::{Error, Result};
use crate::npy;
use crate::rng::Rng;
use crate::soft_prompt::{SoftPrompt, Widths};

/// Ids below this are the common tokens of a vocabulary sorted by frequency (Lester et al. 2021).
const COMMON_TOKENS: usize = 5000;

/// What a soft prompt starts from.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// Embeddings sampled without replacement from the first ids of the vocabulary, so many or all.
    Vocab(usize),
    /// Embeddings of this text.
    Text(String),
    /// Embeddings of the verbalizer's answers.
    Labels,
    /// Uniform in `[-x, x]`.
    Uniform(f32),
    /// Normal with this standard deviation.
    Normal(f32),
    /// All zero.
    Zero,
    /// An adapter folder or a `.npy` file.
    From(PathBuf),
}

impl Default for Init {
    /// Common words.
    fn default() -> Init {
        Init::Vocab(COMMON_TOKENS)
    }
}

/// The embeddings of a frozen model.
pub trait Embeddings {
    /// Number of tokens.
    fn vocab_size(&self) -> usize;
    /// Width of an embedding.
    fn d_model(&self) -> usize;
    /// The embedding of token `id`, which is in the vocabulary, into `out` of width [`Embeddings::d_model`].
    fn row(&self, id: u32, out: &mut [f32]);
}

impl Embeddings for tensor::Tensor {
    fn vocab_size(&self) -> usize {
        self.rows()
    }

    fn d_model(&self) -> usize {
        self.shape()[1]
    }

    fn row(&self, id: u32, out: &mut [f32]) {
        kernels::embedding::row(self.elements(), id as usize, out);
    }
}

/// What a prompt is built for.
pub struct InitContext<'a> {
    /// Virtual tokens wanted.
    pub n_tokens: usize,
    /// How wide the model's prompts are.
    pub widths: Widths,
    /// The model's embeddings.
    pub embeddings: &'a dyn Embeddings,
    /// Needed by [`Init::Text`].
    pub tokenizer: Option<&'a dyn Encode>,
    /// Needed by [`Init::Labels`]: tokens of the answers, the most important first.
    pub answers: &'a [Vec<u32>],
    /// Virtual tokens that the template starts from words, and the words' tokens. They win over everything but
    /// [`Init::From`].
    pub words: &'a [(Range<usize>, Vec<u32>)],
    /// Where the random numbers come from.
    pub seed: u64,
}

impl FromStr for Init {
    type Err = String;

    fn from_str(text: &str) -> Result<Init, String> {
        let (kind, argument) = match text.split_once(':') {
            Some((kind, argument)) => (kind, Some(argument)),
            None => (text, None),
        };
        match (kind, argument) {
            ("vocab", None) => Ok(Init::Vocab(COMMON_TOKENS)),
            ("vocab", Some("all")) => Ok(Init::Vocab(usize::MAX)),
            ("vocab", Some(n)) => match n.parse() {
                Ok(n) if n > 0 => Ok(Init::Vocab(n)),
                _ => Err(format!("`vocab:{n}`: `all` or a number of tokens must follow the colon")),
            },
            ("labels", None) => Ok(Init::Labels),
            ("zero", None) => Ok(Init::Zero),
            ("random", None) => Ok(Init::Uniform(0.5)),
            ("random", Some(x)) => positive(text, x).map(Init::Uniform),
            ("normal", Some(x)) => positive(text, x).map(Init::Normal),
            ("text", Some(words)) => {
                let words = words.strip_prefix('"').and_then(|w| w.strip_suffix('"')).unwrap_or(words);
                match words.trim().is_empty() {
                    true => {
                        Err("`text:` needs words after the colon, as in text:\"Classify the review\"".into())
                    }
                    false => Ok(Init::Text(words.into())),
                }
            }
            _ if Path::new(text).exists() => Ok(Init::From(text.into())),
            _ => Err(format!(
                "`{text}` is neither a prompt on disk nor one of vocab, labels, zero, random, random:X, normal:S, text:\"words\""
            )),
        }
    }
}

fn positive(text: &str, x: &str) -> Result<f32, String> {
    match x.parse() {
        Ok(x) if x > 0.0 && f32::is_finite(x) => Ok(x),
        _ => Err(format!("`{text}`: a number above 0 must follow the colon")),
    }
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Init::Vocab(COMMON_TOKENS) => f.write_str("vocab"),
            Init::Vocab(usize::MAX) => f.write_str("vocab:all"),
            Init::Vocab(n) => write!(f, "vocab:{n}"),
            Init::Text(text) => write!(f, "text:\"{text}\""),
            Init::Labels => f.write_str("labels"),
            Init::Uniform(x) => write!(f, "random:{x}"),
            Init::Normal(x) => write!(f, "normal:{x}"),
            Init::Zero => f.write_str("zero"),
            Init::From(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Init {
    /// The prompt that training starts from.
    ///
    /// # Errors
    /// A tokenizer or labels that are needed and not there, a prompt on disk of another size.
    pub fn build(&self, context: &InitContext) -> Result<SoftPrompt> {
        if let Init::From(path) = self {
            return existing(path, context);
        }
        let mut prompt = SoftPrompt::zeros(context.n_tokens, context.embeddings.d_model());
        let mut rng = Rng::new(context.seed).fork(RNG_STREAM);
        match self {
            Init::Vocab(pool) => sample(*pool, &mut prompt, 0, context, &mut rng),
            Init::Labels => {
                let n = labels(&mut prompt, context)?;
                sample(COMMON_TOKENS, &mut prompt, n, context, &mut rng);
            }
            Init::Text(text) => {
                let tokens = text_tokens(text, context)?;
                fill(&mut prompt, 0..context.n_tokens, &tokens, context)?;
            }
            Init::Uniform(_) | Init::Normal(_) | Init::Zero => self.draw(&mut prompt.values, &mut rng),
            Init::From(_) => unreachable!("returned above"),
        }
        for (range, tokens) in context.words {
            fill(&mut prompt, range.clone(), tokens, context)?;
        }
        Ok(prompt)
    }

    /// A table that owes nothing to the model, `[n_tokens, width]`; `None` where the start is made of embeddings or read
    /// from a file.
    pub fn table(&self, n_tokens: usize, width: usize, seed: u64) -> Option<SoftPrompt> {
        let drawn = matches!(self, Init::Uniform(_) | Init::Normal(_) | Init::Zero);
        drawn.then(|| {
            let mut table = SoftPrompt::zeros(n_tokens, width);
            self.draw(&mut table.values, &mut Rng::new(seed).fork(RNG_STREAM));
            table
        })
    }

    fn draw(&self, values: &mut [f32], rng: &mut Rng) {
        match self {
            Init::Uniform(x) => values.fill_with(|| (2.0 * rng.uniform() - 1.0) as f32 * x),
            Init::Normal(x) => values.fill_with(|| rng.normal() as f32 * x),
            _ => values.fill(0.0),
        }
    }

    /// How PEFT would call it.
    pub fn peft(&self) -> PeftInit {
        match self {
            Init::Vocab(_) => PeftInit::SampleVocab,
            Init::Text(text) => PeftInit::Text(text.clone()),
            _ => PeftInit::Random,
        }
    }
}

/// Keeps the numbers drawn here apart from those that shuffle examples.
const RNG_STREAM: u64 = 0x1_0001;

/// Reads a prompt from an adapter folder or a `.npy` file.
///
/// # Errors
/// As [`Adapter::read`] and [`npy::read`].
pub fn read_prompt(path: &Path) -> Result<SoftPrompt> {
    match path.is_dir() {
        true => Ok(Adapter::read(path)?.prompt),
        false => npy::read(path),
    }
}

fn existing(path: &Path, context: &InitContext) -> Result<SoftPrompt> {
    let prompt = read_prompt(path)?;
    prompt.check(path, context.widths)?;
    if prompt.n_tokens != context.n_tokens {
        let why = format!(
            "it has {} virtual tokens, but {} are asked for; make the prompt length or the template say {}",
            prompt.n_tokens, context.n_tokens, prompt.n_tokens
        );
        return Err(Error::file(path, why));
    }
    Ok(prompt)
}

/// Embeddings of sampled tokens from virtual token `start` on.
fn sample(pool: usize, prompt: &mut SoftPrompt, start: usize, context: &InitContext, rng: &mut Rng) {
    let pool = pool.min(context.embeddings.vocab_size());
    let ids = rng.sample(pool, context.n_tokens.saturating_sub(start));
    for (i, id) in ids.into_iter().enumerate() {
        context.embeddings.row(id as u32, prompt.row_mut(start + i));
    }
}

/// The answers' embeddings from the first virtual token on; returns how many there were.
fn labels(prompt: &mut SoftPrompt, context: &InitContext) -> Result<usize> {
    if context.answers.is_empty() {
        return Err(Error::Input(
            "`--init labels` starts from the labels of a task; give a --task file".into(),
        ));
    }
    let mut one = vec![0.0; prompt.d_model];
    let n = context.answers.len().min(context.n_tokens);
    for (i, tokens) in context.answers.iter().take(n).enumerate() {
        let row = prompt.row_mut(i);
        for &id in check(tokens, context)? {
            context.embeddings.row(id, &mut one);
            row.iter_mut().zip(&one).for_each(|(sum, x)| *sum += x);
        }
        row.iter_mut().for_each(|sum| *sum /= tokens.len() as f32);
    }
    Ok(n)
}

fn text_tokens(text: &str, context: &InitContext) -> Result<Vec<u32>> {
    let missing =
        || Error::Input("`--init text:` needs the model's tokenizer.json, which is not there".into());
    context.tokenizer.ok_or_else(missing)?.encode(text, false)
}

/// Embeddings of `tokens`, repeated or cut to the length of `range`.
fn fill(prompt: &mut SoftPrompt, range: Range<usize>, tokens: &[u32], context: &InitContext) -> Result<()> {
    let tokens = check(tokens, context)?;
    for (i, &id) in range.zip(tokens.iter().cycle()) {
        context.embeddings.row(id, prompt.row_mut(i));
    }
    Ok(())
}

/// That there are tokens, all of them in the vocabulary.
fn check<'a>(tokens: &'a [u32], context: &InitContext) -> Result<&'a [u32]> {
    let size = context.embeddings.vocab_size();
    match tokens.iter().find(|&&id| id as usize >= size) {
        _ if tokens.is_empty() => Err(Error::Input("the words a prompt starts from have no tokens".into())),
        Some(id) => Err(Error::Input(format!(
            "token id {id} of the tokenizer is outside the model's {size} embeddings"
        ))),
        None => Ok(tokens),
    }
}

#[cfg(test)]
mod tests;
