//! `config.json`: what shape a model has, checked before anything is computed with it.
//!
//! A key that would change the computation and is not known here is refused: a model that runs and is slightly wrong
//! is worse than one that does not run.

use std::path::Path;

use kernels::activation::Activation;
use kernels::attention::Heads;
use kernels::matmul::Layout;
use serde_json::Value;

use crate::read::Keys;
use crate::rope::Rope;
use crate::{Error, Family, Result, classifier, gguf};

/// Which code runs a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// GPT-2 ([`crate::gpt2`]).
    Gpt2,
    /// Llama, SmolLM2, Qwen2, Mistral ([`crate::llama`]).
    Llama,
    /// BERT with its masked-language-model head, or a classifier ([`crate::bert`]).
    Bert,
    /// T5 of all versions, mT5 ([`crate::t5`]).
    T5,
}

/// What only encoder-decoders have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seq2Seq {
    /// Number of blocks of the decoder; `n_layers` is the encoder's.
    pub n_decoder_layers: usize,
    /// The token that every decoder row begins with.
    pub decoder_start_token_id: u32,
    /// Buckets of relative positions.
    pub n_buckets: usize,
    /// Distance from which on all positions are in the last bucket.
    pub max_distance: usize,
    /// Whether the MLP has a gate.
    pub gated_mlp: bool,
    /// What hidden states are multiplied by in front of the head.
    pub head_scale: f32,
}

impl Architecture {
    /// How models of this architecture read, and where they answer.
    pub fn family(self) -> Family {
        match self {
            Architecture::Gpt2 | Architecture::Llama => Family::Causal,
            Architecture::Bert => Family::Masked,
            Architecture::T5 => Family::Seq2Seq,
        }
    }
}

/// What `config.json` and `generation_config.json` say, in one vocabulary for all architectures.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which code runs the model.
    pub architecture: Architecture,
    /// `model_type` as written in the file: `gpt2`, `llama`, `qwen2`, `mistral`, `t5`, `mt5`, `bert`.
    pub model_type: String,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Inner width of the MLP.
    pub d_ff: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Context window: the longest row the model can take.
    pub n_positions: usize,
    /// Kinds of token, of which only the first is used; 0 where there are none.
    pub type_vocab_size: usize,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// Activation of the MLP.
    pub activation: Activation,
    /// What the file says about the head, if anything. Only a hint: a head in the weights is always used.
    pub tie_word_embeddings: Option<bool>,
    /// Rotary positions; `None` where positions are learned.
    pub rope: Option<Rope>,
    /// Which way round GPT-2's matrices are.
    pub conv1d: Layout,
    /// Whether the query, key and value projections have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection of attention has a bias.
    pub attention_out_bias: bool,
    /// Whether the MLP's projections have a bias.
    pub mlp_bias: bool,
    /// Tokens that end a text, from both files, without repetition.
    pub eos_token_ids: Vec<u32>,
    /// Token that begins a text.
    pub bos_token_id: Option<u32>,
    /// `_name_or_path` of the file, else the name of the folder.
    pub name_or_path: String,
    /// What only encoder-decoders have.
    pub seq2seq: Option<Seq2Seq>,
    /// Of a classifier, its labels by index; `None` for a model that predicts tokens.
    pub labels: Option<Vec<String>>,
    /// Standard deviation of new weights.
    pub initializer_range: f32,
}

impl Config {
    /// Reads `config.json`, and `generation_config.json` where there is one; or the metadata of a GGUF file.
    ///
    /// # Errors
    /// A file that cannot be read; a key that is missing, out of range or contradicts another; a kind of model, or a
    /// feature, that is not supported.
    pub fn open(folder: &Path) -> Result<Config> {
        if folder.is_file() {
            return Ok(gguf::open(folder)?.0);
        }
        let keys = Keys::open(&folder.join("config.json"))?;
        let mut config = Config::from_keys(&keys)?;
        let generation = folder.join("generation_config.json");
        if generation.is_file() {
            let more = Keys::open(&generation)?.token_ids("eos_token_id")?;
            config.add_eos(more);
        }
        if config.name_or_path.is_empty() {
            let full = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
            config.name_or_path =
                full.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        }
        Ok(config)
    }

    pub(crate) fn from_keys(keys: &Keys) -> Result<Config> {
        let model_type = keys.string("model_type")?.ok_or_else(|| keys.missing("model_type"))?;
        let read: fn(&Keys, &str) -> Result<Config> = match model_type {
            "gpt2" => gpt2,
            "llama" | "qwen2" | "mistral" => llama,
            "bert" => bert,
            "t5" | "mt5" => t5,
            other => return Err(refused(keys, other)),
        };
        refuse_other_heads(keys, model_type)?;
        let is_classifier = architecture(keys).is_some_and(|name| name.ends_with(classifier::ARCHITECTURE));
        let labels = is_classifier.then(|| classifier::labels(keys)).transpose()?;
        let config = Config { labels, ..read(keys, model_type)? };
        if keys.get("quantization_config").is_some() {
            return Err(keys.unsupported("quantised weights (`quantization_config`) are not supported yet; use the F32, F16 or BF16 model".into()));
        }
        config.check(keys)?;
        Ok(config)
    }

    /// Heads and scale as the attention kernel takes them.
    pub fn heads(&self) -> Heads {
        let Config { n_heads, n_kv_heads, head_dim, .. } = *self;
        Heads { n_heads, n_kv_heads, head_dim, scale: (head_dim as f32).sqrt().recip() }
    }

    /// Layers that a tuned prefix has keys and values for: those of the decoder, if there is one.
    pub fn n_prefix_layers(&self) -> usize {
        self.seq2seq.map_or(self.n_layers, |seq2seq| seq2seq.n_decoder_layers)
    }

    /// Which of the `2 * layers` keys and values of a prefix are the keys of layer `i`; its values follow. In a decoder
    /// behind an encoder, PEFT deals four of them to each layer, of which the last two (for the cross attention) are then
    /// dropped, and starts over when they are used up: with an even number of layers half of a prefix is never read.
    pub fn prefix_column(&self, i: usize) -> usize {
        match self.seq2seq {
            Some(_) => 4 * i % (2 * self.n_prefix_layers()),
            None => 2 * i,
        }
    }

    /// Width of the keys of one layer.
    pub fn prefix_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    fn add_eos(&mut self, ids: Vec<u32>) {
        for id in ids {
            if !self.eos_token_ids.contains(&id) {
                self.eos_token_ids.push(id);
            }
        }
    }

    /// What must hold between keys, whatever the architecture.
    fn check(&self, keys: &Keys) -> Result<()> {
        let Config { n_heads, n_kv_heads, head_dim, .. } = *self;
        if n_heads % n_kv_heads != 0 {
            let why = format!("{n_heads} heads cannot be divided among `num_key_value_heads` {n_kv_heads}");
            return Err(keys.config(why));
        }
        if self.rope.is_some() && head_dim % 2 != 0 {
            return Err(
                keys.config(format!("heads are {head_dim} wide, but rotary positions need an even width"))
            );
        }
        for (name, n) in
            [("heads times `head_dim`", n_heads.saturating_mul(head_dim)), ("layers", self.n_layers)]
        {
            if n > 1 << 20 {
                return Err(keys.config(format!("{name} is {n}, more than any model has")));
            }
        }
        Ok(())
    }
}

/// Width of a head when the heads share `d_model` evenly.
fn even_heads(
    keys: &Keys,
    (d_key, d_model): (&str, usize),
    (h_key, n_heads): (&str, usize),
) -> Result<usize> {
    match d_model % n_heads {
        0 => Ok(d_model / n_heads),
        _ => Err(keys.config(format!("`{d_key}` {d_model} cannot be divided among `{h_key}` {n_heads}"))),
    }
}

fn gpt2(keys: &Keys, model_type: &str) -> Result<Config> {
    keys.refuse("scale_attn_by_inverse_layer_idx", false)?;
    keys.refuse("scale_attn_weights", true)?;
    keys.refuse("add_cross_attention", false)?;
    let d_model = keys.needed_size("n_embd")?;
    let n_heads = keys.needed_size("n_head")?;
    let n_positions = match keys.size("n_positions")? {
        Some(n) => n,
        None => keys.size("n_ctx")?.ok_or_else(|| keys.missing("n_positions"))?,
    };
    Ok(Config {
        architecture: Architecture::Gpt2,
        head_dim: even_heads(keys, ("n_embd", d_model), ("n_head", n_heads))?,
        d_model,
        n_layers: keys.needed_size("n_layer")?,
        n_heads,
        n_kv_heads: n_heads,
        d_ff: keys.size("n_inner")?.unwrap_or(4 * d_model),
        n_positions,
        norm_eps: keys.positive("layer_norm_epsilon")?.unwrap_or(1e-5),
        activation: activation(keys, "activation_function", "gelu_new")?,
        rope: None,
        qkv_bias: true,
        attention_out_bias: true,
        mlp_bias: true,
        ..common(keys, model_type)?
    })
}

fn llama(keys: &Keys, model_type: &str) -> Result<Config> {
    keys.refuse("use_sliding_window", false)?;
    let d_model = keys.needed_size("hidden_size")?;
    let n_heads = keys.needed_size("num_attention_heads")?;
    let head_dim = match keys.size("head_dim")? {
        Some(head_dim) => head_dim,
        None => even_heads(keys, ("hidden_size", d_model), ("num_attention_heads", n_heads))?,
    };
    let mut n_positions = keys.needed_size("max_position_embeddings")?;
    if model_type == "mistral" {
        // a row no longer than the window does not notice it
        n_positions = n_positions.min(keys.size("sliding_window")?.unwrap_or(n_positions));
    } else {
        refuse_sliding_layers(keys)?;
    }
    let attention_bias = keys.flag("attention_bias")?.unwrap_or(false);
    Ok(Config {
        architecture: Architecture::Llama,
        d_model,
        n_layers: keys.needed_size("num_hidden_layers")?,
        n_heads,
        n_kv_heads: keys.size("num_key_value_heads")?.unwrap_or(n_heads),
        head_dim,
        d_ff: keys.needed_size("intermediate_size")?,
        n_positions,
        norm_eps: keys.positive("rms_norm_eps")?.unwrap_or(1e-6),
        activation: activation(keys, "hidden_act", "silu")?,
        rope: Some(Rope::from_keys(keys)?),
        qkv_bias: model_type == "qwen2" || attention_bias,
        attention_out_bias: model_type == "llama" && attention_bias,
        mlp_bias: model_type == "llama" && keys.flag("mlp_bias")?.unwrap_or(false),
        ..common(keys, model_type)?
    })
}

fn bert(keys: &Keys, model_type: &str) -> Result<Config> {
    keys.refuse("is_decoder", false)?;
    keys.refuse("add_cross_attention", false)?;
    if let Some(other) = keys.string("position_embedding_type")?.filter(|&kind| kind != "absolute") {
        let why = format!("`position_embedding_type` `{other}` is not supported; only absolute is");
        return Err(keys.unsupported(why));
    }
    let d_model = keys.needed_size("hidden_size")?;
    let n_heads = keys.needed_size("num_attention_heads")?;
    Ok(Config {
        architecture: Architecture::Bert,
        head_dim: even_heads(keys, ("hidden_size", d_model), ("num_attention_heads", n_heads))?,
        d_model,
        n_layers: keys.needed_size("num_hidden_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        d_ff: keys.needed_size("intermediate_size")?,
        n_positions: keys.needed_size("max_position_embeddings")?,
        type_vocab_size: keys.size("type_vocab_size")?.unwrap_or(2),
        norm_eps: keys.positive("layer_norm_eps")?.unwrap_or(1e-12),
        activation: activation(keys, "hidden_act", "gelu")?,
        rope: None,
        qkv_bias: true,
        attention_out_bias: true,
        mlp_bias: true,
        ..common(keys, model_type)?
    })
}

/// Relative positions have no window. This only bounds what a typing error can ask for.
const NO_WINDOW: usize = 1 << 16;

fn t5(keys: &Keys, model_type: &str) -> Result<Config> {
    let d_model = keys.needed_size("d_model")?;
    let n_layers = keys.needed_size("num_layers")?;
    let n_heads = keys.needed_size("num_heads")?;
    let (activation, gated_mlp) = t5_activation(keys)?;
    let common = common(keys, model_type)?;
    // transformers 5 always ties and says in `scale_decoder_outputs` what it said in `tie_word_embeddings` before
    let scaled = keys.flag("scale_decoder_outputs")?.or(common.tie_word_embeddings).unwrap_or(true);
    let start = keys.token_ids("decoder_start_token_id")?.first().copied();
    let seq2seq = Seq2Seq {
        n_decoder_layers: keys.size("num_decoder_layers")?.unwrap_or(n_layers),
        decoder_start_token_id: start.or(keys.token_ids("pad_token_id")?.first().copied()).unwrap_or(0),
        n_buckets: keys.size("relative_attention_num_buckets")?.unwrap_or(32),
        max_distance: keys.size("relative_attention_max_distance")?.unwrap_or(128),
        gated_mlp,
        head_scale: if scaled { (d_model as f32).sqrt().recip() } else { 1.0 },
    };
    check_t5(keys, &seq2seq, common.vocab_size)?;
    Ok(Config {
        architecture: Architecture::T5,
        d_model,
        n_layers,
        n_heads,
        n_kv_heads: n_heads,
        head_dim: keys.size("d_kv")?.unwrap_or(64),
        d_ff: keys.needed_size("d_ff")?,
        n_positions: NO_WINDOW,
        norm_eps: keys.positive("layer_norm_epsilon")?.unwrap_or(1e-6),
        activation,
        seq2seq: Some(seq2seq),
        ..common
    })
}

fn check_t5(keys: &Keys, seq2seq: &Seq2Seq, vocab_size: usize) -> Result<()> {
    let Seq2Seq { n_buckets, max_distance, n_decoder_layers, decoder_start_token_id: start, .. } = *seq2seq;
    if !(4..=NO_WINDOW).contains(&n_buckets) || !(n_buckets / 2 + 1..=NO_WINDOW).contains(&max_distance) {
        return Err(keys.config(format!(
            "`relative_attention_num_buckets` {n_buckets} and `relative_attention_max_distance` {max_distance} do not fit: \
             at least 4 buckets are needed, and a distance above half of them, up to {NO_WINDOW}"
        )));
    }
    if n_decoder_layers > 1 << 20 {
        return Err(keys.config(format!("decoder layers is {n_decoder_layers}, more than any model has")));
    }
    match (start as usize) < vocab_size {
        true => Ok(()),
        false => Err(keys.config(format!(
            "`decoder_start_token_id` is {start}, but the vocabulary has {vocab_size} tokens"
        ))),
    }
}

/// `relu`, or `gated-` and an activation. T5's `gated-gelu` means the approximated one.
fn t5_activation(keys: &Keys) -> Result<(Activation, bool)> {
    let name = keys.string("feed_forward_proj")?.unwrap_or("relu");
    match name.strip_prefix("gated-") {
        Some("gelu") => Ok((Activation::GeluTanh, true)),
        Some(name) => Ok((named_activation(keys, "feed_forward_proj", name)?, true)),
        None => Ok((named_activation(keys, "feed_forward_proj", name)?, false)),
    }
}

/// What all architectures call alike; the other fields are placeholders to be overwritten.
fn common(keys: &Keys, model_type: &str) -> Result<Config> {
    Ok(Config {
        architecture: Architecture::Gpt2,
        model_type: model_type.into(),
        d_model: 0,
        n_layers: 0,
        n_heads: 0,
        n_kv_heads: 0,
        head_dim: 0,
        d_ff: 0,
        vocab_size: keys.needed_size("vocab_size")?,
        n_positions: 0,
        type_vocab_size: 0,
        norm_eps: 0.0,
        activation: Activation::Relu,
        tie_word_embeddings: keys.flag("tie_word_embeddings")?,
        rope: None,
        conv1d: Layout::InOut,
        qkv_bias: false,
        attention_out_bias: false,
        mlp_bias: false,
        eos_token_ids: keys.token_ids("eos_token_id")?,
        bos_token_id: keys.token_ids("bos_token_id")?.first().copied(),
        name_or_path: keys.string("_name_or_path")?.unwrap_or_default().into(),
        seq2seq: None,
        labels: None,
        initializer_range: keys.positive("initializer_range").ok().flatten().unwrap_or(0.02),
    })
}

fn activation(keys: &Keys, key: &str, default: &str) -> Result<Activation> {
    named_activation(keys, key, keys.string(key)?.unwrap_or(default))
}

fn named_activation(keys: &Keys, key: &str, name: &str) -> Result<Activation> {
    match name {
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "gelu" => Ok(Activation::GeluErf),
        "silu" | "swish" => Ok(Activation::Silu),
        "relu" => Ok(Activation::Relu),
        other => Err(keys
            .unsupported(format!("`{key}` `{other}` is not supported; gelu_new, gelu, silu and relu are"))),
    }
}

/// Qwen2 can list the kind of attention layer by layer.
fn refuse_sliding_layers(keys: &Keys) -> Result<()> {
    let Some(layers) = keys.get("layer_types").and_then(Value::as_array) else { return Ok(()) };
    match layers.iter().find(|l| l.as_str() != Some("full_attention")) {
        Some(other) => {
            Err(keys.unsupported(format!("`layer_types` has {other}; only \"full_attention\" is supported")))
        }
        None => Ok(()),
    }
}

/// The class that transformers reads the model into.
fn architecture(keys: &Keys) -> Option<&str> {
    keys.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str)
}

/// A body without a head, or with one that is not known here, would load and then predict nonsense.
fn refuse_other_heads(keys: &Keys, model_type: &str) -> Result<()> {
    let Some(name) = architecture(keys) else { return Ok(()) };
    let (heads, version): (&[&str], _) = match model_type {
        "bert" => (&["ForMaskedLM", "ForPreTraining", classifier::ARCHITECTURE], "masked (…ForMaskedLM)"),
        "gpt2" | "llama" | "qwen2" | "mistral" if name.ends_with(classifier::ARCHITECTURE) => return Ok(()),
        _ => (
            &["ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "DoubleHeadsModel"],
            "causal (…ForCausalLM)",
        ),
    };
    match heads.iter().any(|end| name.ends_with(end)) {
        true => Ok(()),
        false => Err(keys.unsupported(format!(
            "`{name}` has no language-model head (an embedding model or a classifier of tokens), so it predicts no tokens and \
             cannot be prompted; use the model's {version} version"
        ))),
    }
}

const SUPPORTED: &str = "gpt2, llama (Llama 2 and 3, SmolLM2), qwen2, mistral, bert (with its masked-LM head), t5 (v1.0, v1.1, Flan, \
                         mT5)";

fn refused(keys: &Keys, model_type: &str) -> Error {
    const ENCODERS: [&str; 11] = [
        "roberta",
        "distilbert",
        "albert",
        "electra",
        "deberta",
        "deberta-v2",
        "xlm-roberta",
        "camembert",
        "modernbert",
        "mpnet",
        "nomic_bert",
    ];
    const BOTH: [&str; 6] = ["umt5", "bart", "mbart", "pegasus", "marian", "encoder-decoder"];
    let name = architecture(keys).unwrap_or("");
    let why = if ENCODERS.contains(&model_type) && name.ends_with("ForMaskedLM") {
        "is a masked language model, which cannot be prompted here yet"
    } else if ENCODERS.contains(&model_type) {
        "is an encoder that gives embeddings and has no language-model head, so it cannot be prompted"
    } else if BOTH.contains(&model_type) {
        "is an encoder-decoder, which cannot be prompted here yet"
    } else {
        "is not known"
    };
    keys.unsupported(format!("model_type `{model_type}` {why}; supported are {SUPPORTED}"))
}
