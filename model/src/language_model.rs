//! A frozen language model: tokens and a soft prompt in, log-probabilities and the prompt's gradient out. One whose head says
//! which label a text has is a model as any other ([`Config::labels`]): the labels are what it predicts in place of tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use autograd::ops::{self, Intervals, Scored, Source};
use autograd::{Linear, Tape, Value, Weight};
use kernels::matmul::{Layout, Precision};
use kernels::rope::Pairs;
use kernels::threads::on_pool;
use tensor::{Checkpoint, Device, Tensor};

use crate::bert::{self, Bert};
use crate::classifier;
use crate::error::gpu_failed;
use crate::fingerprint::fingerprint;
use crate::gpt2::{self, Gpt2};
use crate::llama::{self, Llama};
use crate::t5::{self, T5};
use crate::weights::{Trained, Weights};
use crate::{Architecture, Config, Error, Family, Forest, KvCache, PackedBatch, Prompt, Result, gguf};

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
    /// What the decoder of an encoder-decoder sees of its encoder; `None` for other models.
    pub encoded: Option<Encoded<'a>>,
}

/// What a decoder sees of its encoder.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    /// Final hidden states of the encoder ([`LanguageModel::encode`]), `[n, d_model]`.
    pub states: &'a Value,
    /// Which of this step's tokens see each of them.
    pub mask: &'a Arc<Intervals>,
}

/// A language model over a memory-mapped checkpoint. Its weights are frozen but for those that values stand in for.
#[derive(Clone, Debug)]
pub struct LanguageModel {
    path: PathBuf,
    config: Config,
    checkpoint: Arc<Checkpoint>,
    stand_ins: Trained,
    precision: Precision,
    embedding: Weight,
    blocks: Blocks,
    head: Linear,
    weight_names: Vec<String>,
}

/// What lies between the embeddings and the head.
#[derive(Clone, Debug)]
enum Blocks {
    Gpt2(Gpt2),
    Llama(Llama),
    Bert(Box<Bert>),
    T5(T5),
}

impl LanguageModel {
    /// Opens a folder in Hugging Face layout, or a GGUF file. Reads no weights but the small vectors (norms, biases) that are not f32.
    ///
    /// # Errors
    /// A file is missing or malformed, a tensor is missing or misshaped, or the model is of a kind we cannot run.
    pub fn open(folder: &Path) -> Result<LanguageModel> {
        LanguageModel::open_on(folder, Device::Cpu)
    }

    /// The same on a device. Where that is a GPU, every weight is sent there, once, and what is computed with them is computed
    /// there.
    ///
    /// # Errors
    /// As [`LanguageModel::open`]; there is no such device, or its memory is too small.
    pub fn open_on(folder: &Path, device: Device) -> Result<LanguageModel> {
        let (config, checkpoint) = match folder.is_file() {
            true => gguf::open(folder)?,
            false => (Config::open(folder)?, Checkpoint::open(folder)?),
        };
        let checkpoint = Arc::new(checkpoint.on(device)?);
        let model = LanguageModel::assemble(folder, config, checkpoint, Trained::new())?;
        let LanguageModel { config, checkpoint, .. } = &model;
        no_more_blocks(checkpoint, config, folder)?;
        if checkpoint.copied_bytes() > 0 {
            let (name, bytes) = (&config.name_or_path, checkpoint.copied_bytes());
            tracing::warn!(
                "{name}: tensors lie unaligned in their file, {bytes} bytes were copied instead of mapped"
            );
        }
        Ok(model)
    }

    fn assemble(
        path: &Path,
        config: Config,
        checkpoint: Arc<Checkpoint>,
        stand_ins: Trained,
    ) -> Result<LanguageModel> {
        let weights = Weights::new(&checkpoint, &stand_ins);
        let (name, blocks) = match config.architecture {
            Architecture::Gpt2 => {
                (gpt2::embedding_name(&weights), Blocks::Gpt2(Gpt2::load(&weights, &config)?))
            }
            Architecture::Llama => {
                (llama::embedding_name(&weights), Blocks::Llama(Llama::load(&weights, &config)?))
            }
            Architecture::Bert => {
                (bert::embedding_name(&weights), Blocks::Bert(Box::new(Bert::load(&weights, &config)?)))
            }
            Architecture::T5 => (t5::embedding_name(&weights), Blocks::T5(T5::load(&weights, &config)?)),
        };
        let embedding = weights.tensor(&name, &[config.vocab_size, config.d_model])?;
        let head = head(&weights, &config, &embedding, path)?;
        let weight_names = weights.into_asked();
        let (path, precision) = (path.to_path_buf(), Precision::F32);
        Ok(LanguageModel {
            path,
            config,
            checkpoint,
            stand_ins,
            precision,
            embedding,
            blocks,
            head,
            weight_names,
        })
    }

    /// The same model where values stand in for some of its weights. While the model is trained they are leaves of a tape:
    /// then one such model is made for each step, which costs pointers. Panics when a value has another shape than its weight.
    pub fn with(&self, trained: &Trained) -> LanguageModel {
        let made = self.reassembled(self.config.clone(), trained);
        made.expect("it was opened with this configuration and checkpoint")
    }

    /// The same weights as another model, where more values stand in for some, or are some that the checkpoint lacks.
    pub(crate) fn reassembled(&self, config: Config, trained: &Trained) -> Result<LanguageModel> {
        let mut stand_ins = self.stand_ins.clone();
        stand_ins.extend(trained.iter().map(|(name, value)| (name.clone(), value.clone())));
        let mut model = LanguageModel::assemble(&self.path, config, self.checkpoint.clone(), stand_ins)?;
        model.set_precision(self.precision);
        Ok(model)
    }

    /// The weight `name` as the model uses it, widened to f32.
    ///
    /// # Errors
    /// There is none of this name, or it has a dtype we do not compute with.
    pub fn weight(&self, name: &str) -> Result<Tensor> {
        match self.stand_ins.get(name) {
            Some(value) => Ok(value.tensor().clone()),
            None => Ok(self.checkpoint.tensor_of_any_shape(name)?.widened().tensor().clone()),
        }
    }

    /// Names of the weights that the model uses, as its checkpoint calls them, each once. Tables that are two things at once
    /// (tied embeddings) have one name.
    pub fn weight_names(&self) -> &[String] {
        &self.weight_names
    }

    /// How the matrix products of the model are computed from now on: exactly, as at first, or rounded to bf16, which
    /// changes log-probabilities in their third digit and is faster on CPUs that have AVX-512-BF16. On a GPU attention is
    /// rounded too.
    pub fn set_precision(&mut self, precision: Precision) {
        match &mut self.blocks {
            Blocks::Gpt2(blocks) => blocks.linears().for_each(|linear| linear.set_precision(precision)),
            Blocks::Llama(blocks) => blocks.linears().for_each(|linear| linear.set_precision(precision)),
            Blocks::Bert(blocks) => blocks.linears().for_each(|linear| linear.set_precision(precision)),
            Blocks::T5(blocks) => blocks.linears().for_each(|linear| linear.set_precision(precision)),
        }
        self.head.set_precision(precision);
        self.precision = precision;
    }

    /// What shape the model has.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How it reads, and where it answers.
    pub fn family(&self) -> Family {
        self.config.architecture.family()
    }

    /// The file or files of the weights.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The table of token embeddings, `[vocab_size, d_model]`.
    pub fn embedding(&self) -> &Tensor {
        self.embedding.tensor()
    }

    /// The language-model head, `d_model -> vocab_size`, or that of a classifier, `d_model -> labels`.
    pub fn head(&self) -> &Linear {
        &self.head
    }

    /// `[sources.len(), d_model]`; `prompt` (`[n, d_model]`) must be given when a source is `Soft`.
    pub fn embed(&self, tape: &Tape, sources: &Arc<[Source]>, prompt: Option<&Value>) -> Value {
        ops::embed(tape, sources, &self.embedding, prompt)
    }

    /// What the encoder makes of its tokens, `[tokens, d_model]`: of a masked model, the states before its head. Panics for
    /// a model without one.
    pub fn encode(&self, tape: &Tape, tokens: &Forest, prompt: Option<&Value>) -> Value {
        let embeds = self.embed(tape, &tokens.sources, prompt);
        let (positions, mask) = (&tokens.positions, &tokens.mask);
        match &self.blocks {
            Blocks::T5(blocks) => blocks.encode(tape, &embeds, positions, mask),
            Blocks::Bert(blocks) => blocks.encode(
                tape,
                &embeds,
                Step { positions, mask, outputs: None, cache: None, encoded: None },
            ),
            Blocks::Gpt2(_) | Blocks::Llama(_) => {
                panic!("{} has no encoder", self.config.model_type)
            }
        }
    }

    /// Final hidden states as the head takes them: `[outputs or tokens, d_model]`.
    pub fn hidden(&self, tape: &Tape, embeds: &Value, mut step: Step) -> Value {
        let (positions, mut cache) = (step.positions, step.cache.take());
        let step = Step { cache: cache.as_deref_mut(), ..step };
        let hidden = match &self.blocks {
            Blocks::Gpt2(blocks) => blocks.forward(tape, embeds, step),
            Blocks::Llama(blocks) => blocks.forward(tape, embeds, step),
            Blocks::Bert(blocks) => blocks.forward(tape, embeds, step),
            Blocks::T5(blocks) => blocks.forward(tape, embeds, step),
        };
        if let Some(cache) = cache {
            cache.advance(positions);
        }
        hidden
    }

    /// Final hidden states of a forest behind a prompt, `[outputs or tokens, d_model]`.
    pub fn states(
        &self,
        tape: &Tape,
        forest: &Forest,
        prompt: Option<&Prompt>,
        (outputs, encoded): (Option<&Arc<[u32]>>, Option<Encoded>),
    ) -> Value {
        let embeds = self.embed(tape, &forest.sources, prompt.and_then(Prompt::soft));
        let (positions, mask) = forest.behind(Prompt::n_ahead(prompt));
        let mut past = Prompt::past(prompt, tape, &self.config);
        let step = Step { positions: &positions, mask: &mask, outputs, cache: past.as_mut(), encoded };
        self.hidden(tape, &embeds, step)
    }

    /// The loss of a batch and the log-probability of each of its targets.
    pub fn score(&self, tape: &Tape, batch: &PackedBatch, prompt: Option<&Prompt>) -> Scored {
        let soft = prompt.and_then(Prompt::soft);
        let states = (!batch.encoder.is_empty()).then(|| self.encode(tape, &batch.encoder, soft));
        let encoded = states.as_ref().map(|states| Encoded { states, mask: &batch.cross });
        let hidden = self.states(tape, &batch.forest, prompt, (Some(&batch.outputs), encoded));
        ops::cross_entropy(tape, &hidden, &self.head, &batch.targets)
    }

    /// Keys and values of every layer for the vectors of a soft prompt, `[n, 2 * layers * width]`: as a prefix they do what
    /// the vectors do among the tokens.
    ///
    /// # Errors
    /// It is an encoder-decoder: the prefix would be the decoder's, and the vectors are the encoder's.
    pub fn prefix_like(&self, prompt: &Prompt) -> Result<Tensor> {
        if self.family() == Family::Seq2Seq {
            let why =
                "a prefix of an encoder-decoder starts from numbers, as normal:0.1 or zero, not from words";
            return Err(Error::Option(why.into()));
        }
        let n = Prompt::n_soft(Some(prompt)) as u32;
        let row: Vec<Source> = (0..n).map(Source::Soft).collect();
        let forest = match self.family() {
            Family::Causal => Forest::from_rows([&*row]),
            Family::Masked | Family::Seq2Seq => Forest::segments([&*row]),
        };
        let mut cache = KvCache::new(&self.config);
        on_pool(|| {
            let tape = Tape::new();
            let embeds = self.embed(&tape, &forest.sources, prompt.constant().soft());
            let (positions, mask) = (&forest.positions, &forest.mask);
            let step = Step { positions, mask, outputs: None, cache: Some(&mut cache), encoded: None };
            self.hidden(&tape, &embeds, step);
        });
        Ok(cache.as_prefix(&self.config))
    }

    /// `[n, vocab_size or labels]` from `[n, d_model]`. For inference; training uses [`LanguageModel::score`].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        let hidden = Value::constant(hidden.clone());
        on_pool(|| ops::linear(&Tape::new(), &hidden, &self.head, None).tensor().clone())
    }

    /// Whether the model can take prefixes as PEFT has them.
    ///
    /// # Errors
    /// The lanes of its keys are in another order (a Llama in a GGUF file), so a prefix would mean something else.
    pub fn check_prefix(&self) -> Result<()> {
        match self.config.rope.map(|rope| rope.pairs) {
            Some(Pairs::Neighbours) => Err(Error::Tokens(
                "a Llama in a GGUF file has the lanes of its keys in another order than prefixes do; use the model's Hugging \
                 Face folder, or a soft prompt"
                    .into(),
            )),
            _ => Ok(()),
        }
    }

    /// Whether the model can take this row with this prompt.
    ///
    /// # Errors
    /// The row is empty or longer than the context window, or has a token that is not in the vocabulary or prompt.
    pub fn check_row(&self, sources: &[Source], prompt: Option<&Prompt>) -> Result<()> {
        let Config { vocab_size, n_positions, .. } = self.config;
        let (n_soft, n_ahead) = (Prompt::n_soft(prompt), Prompt::n_ahead(prompt));
        if n_ahead > 0 {
            self.check_prefix()?;
        }
        if sources.is_empty() {
            return Err(Error::Tokens("a row has no tokens; give at least one".into()));
        }
        if n_ahead + sources.len() > n_positions {
            let n_text = sources.iter().filter(|s| matches!(s, Source::Text(_))).count();
            return Err(Error::Tokens(format!(
                "a row has {} tokens ({} of the prompt and {n_text} of text), but the model's context window is \
                 {n_positions}; shorten the text, the template or the prompt",
                n_ahead + sources.len(),
                n_ahead + sources.len() - n_text,
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

    /// Why the model computes NaN, if something failed on the GPU, or its weights are the reason: names the tensor. Reads
    /// every weight.
    pub fn explain_non_finite(&self) -> Option<String> {
        let is_there = self.embedding.tensor().device() == Device::Cuda;
        if let (true, Err(failed)) = (is_there, tensor::device::check()) {
            return Some(gpu_failed(&failed));
        }
        let name = self.checkpoint.first_non_finite()?;
        Some(format!("the weight `{name}` holds a NaN or an infinity; download the model again"))
    }
}

/// That the weights have no more blocks than the configuration says: without them the model would be another one.
fn no_more_blocks(checkpoint: &Checkpoint, config: &Config, path: &Path) -> Result<()> {
    let n = config.n_layers;
    let blocks = match config.architecture {
        Architecture::Gpt2 => vec![format!("h.{n}.")],
        Architecture::Llama => vec![format!("layers.{n}.")],
        Architecture::Bert => vec![format!("encoder.layer.{n}.")],
        Architecture::T5 => {
            vec![format!("encoder.block.{n}."), format!("decoder.block.{}.", config.n_prefix_layers())]
        }
    };
    let is_one = |name: &str, block: &String| name.starts_with(block) || name.contains(&format!(".{block}"));
    let more = checkpoint.names().find(|name| blocks.iter().any(|block| is_one(name, block)));
    more.map_or(Ok(()), |name| {
        let why = format!(
            "it has fewer layers than the weights, which have `{name}`; the two do not belong together"
        );
        let path = if path.is_file() { path.to_path_buf() } else { path.join("config.json") };
        Err(Error::Config { path, why })
    })
}

/// The head's own matrix if the file has it, else the embedding; and its bias, where the architecture has one. Or a classifier's.
fn head(weights: &Weights, config: &Config, embedding: &Weight, folder: &Path) -> Result<Linear> {
    if let Some(labels) = &config.labels {
        return classifier::head(weights, config, labels.len());
    }
    let (name, bias) = match config.architecture {
        Architecture::Gpt2 | Architecture::Llama | Architecture::T5 => ("lm_head.weight", None),
        Architecture::Bert => (bert::DECODER, Some(bert::decoder_bias(weights, config)?)),
    };
    let weight = if weights.contains(name) {
        weights.tensor(name, &[config.vocab_size, config.d_model])?
    } else if config.tie_word_embeddings == Some(false) {
        let why = format!(
            "`tie_word_embeddings` is false, but the weights have no `{name}`; the checkpoint is incomplete"
        );
        return Err(Error::Config { path: folder.join("config.json"), why });
    } else {
        embedding.clone()
    };
    Ok(Linear::new(weight, Layout::OutIn, bias))
}
