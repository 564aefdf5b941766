//! A frozen language model: tokens and a soft prompt in, log-probabilities and the prompt's gradient out.

use std::path::Path;
use std::sync::Arc;

use autograd::ops::{self, Intervals, Scored, Source};
use autograd::{Linear, Tape, Value};
use kernels::matmul::{Layout, Precision};
use kernels::threads::on_pool;
use tensor::{Checkpoint, Frozen, Tensor};

use crate::fingerprint::fingerprint;
use crate::gpt2::{self, Gpt2};
use crate::llama::{self, Llama};
use crate::{Architecture, Config, Error, KvCache, PackedBatch, Result, gguf};

/// The tokens of one call of [`LanguageModel::hidden`].
#[derive(Debug)]
pub struct Step<'a> {
    /// Position of each token in its row.
    pub positions: &'a [u32],
    /// Which of this step's tokens see each key. The keys are those of the cache, then this step's.
    pub mask: &'a Arc<Intervals>,
    /// The tokens whose hidden state is wanted, ascending; all when absent.
    pub outputs: Option<&'a Arc<[u32]>>,
    /// Keys and values of earlier tokens; this step's are appended. For inference only.
    pub cache: Option<&'a mut KvCache>,
}

/// A frozen causal language model over a memory-mapped checkpoint.
#[derive(Debug)]
pub struct LanguageModel {
    config: Config,
    checkpoint: Checkpoint,
    embedding: Frozen,
    blocks: Blocks,
    head: Linear,
}

/// What lies between the embeddings and the head.
#[derive(Debug)]
enum Blocks {
    Gpt2(Gpt2),
    Llama(Llama),
}

impl LanguageModel {
    /// Opens a folder in Hugging Face layout, or a GGUF file. Reads no weights but the small vectors (norms, biases) that are not f32.
    ///
    /// # Errors
    /// A file is missing or malformed, a tensor is missing or misshaped, or the model is of a kind we cannot run.
    pub fn open(folder: &Path) -> Result<LanguageModel> {
        let (config, checkpoint) = match folder.is_file() {
            true => gguf::open(folder)?,
            false => (Config::open(folder)?, Checkpoint::open(folder)?),
        };
        let (name, blocks) = match config.architecture {
            Architecture::Gpt2 => {
                (gpt2::embedding_name(&checkpoint), Blocks::Gpt2(Gpt2::load(&checkpoint, &config)?))
            }
            Architecture::Llama => {
                (llama::embedding_name(&checkpoint), Blocks::Llama(Llama::load(&checkpoint, &config)?))
            }
        };
        let embedding = checkpoint.tensor(&name, &[config.vocab_size, config.d_model])?;
        let head = head(&checkpoint, &config, &embedding, folder)?;
        if checkpoint.copied_bytes() > 0 {
            let (name, bytes) = (&config.name_or_path, checkpoint.copied_bytes());
            tracing::warn!(
                "{name}: tensors lie unaligned in their file, {bytes} bytes were copied instead of mapped"
            );
        }
        Ok(LanguageModel { config, checkpoint, embedding, blocks, head })
    }

    /// How the matrix products of the model are computed from now on: exactly, as at first, or rounded to bf16, which
    /// changes log-probabilities in their third digit and is faster on CPUs that have AVX-512-BF16.
    pub fn set_precision(&mut self, precision: Precision) {
        match &mut self.blocks {
            Blocks::Gpt2(blocks) => blocks.linears().for_each(|linear| linear.set_precision(precision)),
            Blocks::Llama(blocks) => blocks.linears().for_each(|linear| linear.set_precision(precision)),
        }
        self.head.set_precision(precision);
    }

    /// What shape the model has.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The file or files of the weights.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The table of token embeddings, `[vocab_size, d_model]`.
    pub fn embedding(&self) -> &Frozen {
        &self.embedding
    }

    /// The language-model head, `d_model -> vocab_size`.
    pub fn head(&self) -> &Linear {
        &self.head
    }

    /// `[sources.len(), d_model]`; `prompt` (`[n, d_model]`) must be given when a source is `Soft`.
    pub fn embed(&self, tape: &Tape, sources: &Arc<[Source]>, prompt: Option<&Value>) -> Value {
        ops::embed(tape, sources, &self.embedding, prompt)
    }

    /// Final hidden states, norm applied: `[outputs or tokens, d_model]`.
    pub fn hidden(&self, tape: &Tape, embeds: &Value, mut step: Step) -> Value {
        let (n, mut cache) = (step.positions.len(), step.cache.take());
        let step = Step { cache: cache.as_deref_mut(), ..step };
        let hidden = match &self.blocks {
            Blocks::Gpt2(blocks) => blocks.forward(tape, embeds, step),
            Blocks::Llama(blocks) => blocks.forward(tape, embeds, step),
        };
        if let Some(cache) = cache {
            cache.advance(n);
        }
        hidden
    }

    /// The loss of a batch and the log-probability of each of its targets.
    pub fn score(&self, tape: &Tape, batch: &PackedBatch, prompt: Option<&Value>) -> Scored {
        let embeds = self.embed(tape, &batch.forest.sources, prompt);
        let (positions, mask) = (&*batch.forest.positions, &batch.forest.mask);
        let step = Step { positions, mask, outputs: Some(&batch.outputs), cache: None };
        let hidden = self.hidden(tape, &embeds, step);
        ops::cross_entropy(tape, &hidden, &self.head, &batch.targets)
    }

    /// `[n, vocab_size]` from `[n, d_model]`. For inference; training uses [`LanguageModel::score`].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        let hidden = Value::constant(hidden.clone());
        on_pool(|| ops::linear(&Tape::new(), &hidden, &self.head, None).tensor().clone())
    }

    /// Whether the model can take this row (`n_soft` rows in the prompt).
    ///
    /// # Errors
    /// The row is empty or longer than the context window, or has a token that is not in the vocabulary or prompt.
    pub fn check_row(&self, sources: &[Source], n_soft: usize) -> Result<()> {
        let Config { vocab_size, n_positions, .. } = self.config;
        if sources.is_empty() {
            return Err(Error::Tokens("a row has no tokens; give at least one".into()));
        }
        if sources.len() > n_positions {
            let soft = sources.iter().filter(|s| matches!(s, Source::Soft(_))).count();
            return Err(Error::Tokens(format!(
                "a row has {} tokens ({soft} of the prompt and {} of text), but the model's context window is \
                 {n_positions}; shorten the text, the template or the prompt",
                sources.len(),
                sources.len() - soft,
            )));
        }
        let wrong = sources.iter().find_map(|source| match *source {
            Source::Text(id) if id as usize >= vocab_size => Some(format!(
                "token id {id} is not in the vocabulary of {vocab_size}; is the tokenizer this model's?"
            )),
            Source::Soft(k) if k as usize >= n_soft => {
                Some(format!("soft token {k} is asked for, but the prompt has {n_soft} tokens"))
            }
            _ => None,
        });
        wrong.map_or(Ok(()), |why| Err(Error::Tokens(why)))
    }

    /// SHA-256 (hex) of the shape, the headers of the weight files, and blocks sampled from their data. Fast for files
    /// of any size; models of several MiB that differ in a few numbers only may share it.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.config, &self.checkpoint)
    }

    /// Why the model computes NaN, if its weights are the reason: names the tensor. Reads every weight.
    pub fn explain_non_finite(&self) -> Option<String> {
        let name = self.checkpoint.first_non_finite()?;
        Some(format!("the weight `{name}` holds a NaN or an infinity; download the model again"))
    }
}

/// `lm_head.weight` if the file has it, else the embedding.
fn head(checkpoint: &Checkpoint, config: &Config, embedding: &Frozen, folder: &Path) -> Result<Linear> {
    const NAME: &str = "lm_head.weight";
    let weight = if checkpoint.contains(NAME) {
        checkpoint.tensor(NAME, &[config.vocab_size, config.d_model])?
    } else if config.tie_word_embeddings == Some(false) {
        let why = format!(
            "`tie_word_embeddings` is false, but the weights have no `{NAME}`; the checkpoint is incomplete"
        );
        return Err(Error::Config { path: folder.join("config.json"), why });
    } else {
        embedding.clone()
    };
    Ok(Linear::new(weight, Layout::OutIn, None))
}
