//! Models in GGUF files: everything a Hugging Face folder says, read from the metadata and the tensors of one file.
//!
//! The configuration is translated to the keys of `config.json` and then read and checked as one. The loaders ask for
//! tensors by their Hugging Face names, which are translated one by one. Weights stay in their blocks in the file.
//!
//! Two things lie otherwise than in Hugging Face files. The rows of Llama's query and key projections are in the order of
//! neighbouring rotary pairs, so the rotation pairs neighbours ([`Pairs::Neighbours`]) and nothing is put back: scores are
//! sums over lanes, whatever their order. And GPT-2's matrices are `[out, in]`.

mod tokenizer;

use std::path::Path;

use kernels::matmul::Layout;
use kernels::rope::Pairs;
use serde_json::{Map, Value as Json, json};
use tensor::Checkpoint;
use tensor::gguf::{Metadata, Value};

use crate::read::Keys;
use crate::{Architecture, Config, Error, Result};

pub(crate) use tokenizer::{Parts, tokenizer};

/// What the error for others lists.
const SUPPORTED: &str = "llama, qwen2 and gpt2";

/// Opens the model in a GGUF file: its configuration, and its tensors under their Hugging Face names.
///
/// # Errors
/// It is no GGUF file, lies about itself, or holds a model of a kind that is not supported.
pub(crate) fn open(path: &Path) -> Result<(Config, Checkpoint)> {
    let checkpoint = Checkpoint::open_gguf(path)?;
    let config = config(path, &checkpoint)?;
    let translate = match config.architecture {
        Architecture::Gpt2 => gpt2_name,
        _ => llama_name,
    };
    Ok((config, checkpoint.with_names(translate)))
}

fn config(path: &Path, checkpoint: &Checkpoint) -> Result<Config> {
    let source = Source { path, checkpoint };
    let architecture = source.text("general.architecture")?;
    let keys = match architecture {
        "llama" | "qwen2" => source.llama_keys(architecture)?,
        "gpt2" => source.gpt2_keys()?,
        other => {
            let why = format!("its architecture `{other}` is not supported; {SUPPORTED} are");
            return Err(Error::Unsupported { path: path.into(), why });
        }
    };
    let mut config = Config::from_keys(&Keys::new(path, keys))?;
    config.conv1d = Layout::OutIn;
    if let Some(rope) = config.rope.as_mut().filter(|_| architecture == "llama") {
        rope.pairs = Pairs::Neighbours;
    }
    config.name_or_path = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(config)
}

/// The file that is translated.
struct Source<'a> {
    path: &'a Path,
    checkpoint: &'a Checkpoint,
}

impl Source<'_> {
    fn metadata(&self) -> Result<&Metadata> {
        self.checkpoint.metadata().ok_or_else(|| self.wrong("it has no metadata".into()))
    }

    fn wrong(&self, why: String) -> Error {
        Error::Config { path: self.path.into(), why }
    }

    fn text(&self, key: &str) -> Result<&str> {
        match self.metadata()?.get(key) {
            Some(Value::Text(text)) => Ok(text),
            Some(other) => Err(self.wrong(format!("`{key}` is {other}, but must be a string"))),
            None => Err(self.wrong(format!("`{key}` is missing; convert the model again"))),
        }
    }

    /// A number or truth value as JSON has it.
    fn value(&self, key: &str) -> Result<Option<Json>> {
        Ok(match self.metadata()?.get(key) {
            None => None,
            Some(Value::Unsigned(n)) => Some(json!(n)),
            Some(Value::Signed(n)) => Some(json!(n)),
            Some(Value::Bool(b)) => Some(json!(b)),
            Some(Value::Float(x)) if x.is_finite() => Some(json!(x)),
            Some(Value::Text(text)) => Some(json!(text)),
            Some(other) => return Err(self.wrong(format!("`{key}` is {other}, but must be a number"))),
        })
    }

    /// The keys of `config.json`, each from the metadata key beside it; those marked so must be there.
    fn keys(&self, model_type: &str, names: &[(&str, &str, bool)]) -> Result<Map<String, Json>> {
        let mut keys = Map::new();
        keys.insert("model_type".into(), json!(model_type));
        for &(theirs, suffix, needed) in names {
            let key = format!("{model_type}.{suffix}");
            match self.value(&key)? {
                Some(value) => drop(keys.insert(theirs.into(), value)),
                None if needed => {
                    return Err(self.wrong(format!("`{key}` is missing; convert the model again")));
                }
                None => {}
            }
        }
        for kind in ["eos", "bos"] {
            if let Some(id) = self.value(&format!("tokenizer.ggml.{kind}_token_id"))? {
                keys.insert(format!("{kind}_token_id"), id);
            }
        }
        let embedding = self.checkpoint.tensor_of_any_shape("token_embd.weight")?;
        keys.insert("vocab_size".into(), json!(embedding.rows()));
        Ok(keys)
    }

    fn llama_keys(&self, model_type: &str) -> Result<Map<String, Json>> {
        let mut keys = self.keys(
            model_type,
            &[
                ("hidden_size", "embedding_length", true),
                ("num_hidden_layers", "block_count", true),
                ("num_attention_heads", "attention.head_count", true),
                ("num_key_value_heads", "attention.head_count_kv", false),
                ("intermediate_size", "feed_forward_length", true),
                ("max_position_embeddings", "context_length", true),
                ("rms_norm_eps", "attention.layer_norm_rms_epsilon", true),
                ("rope_theta", "rope.freq_base", false),
                ("head_dim", "attention.key_length", false),
            ],
        )?;
        let refused = |what: String| Error::Unsupported { path: self.path.into(), why: what };
        if let Some(experts) = self.value(&format!("{model_type}.expert_count"))?.filter(|n| n != &json!(0)) {
            return Err(refused(format!("it is a mixture of {experts} experts, which is not supported")));
        }
        let bias = |part: &str| self.checkpoint.contains(&format!("blk.0.{part}.bias"));
        if model_type == "llama" && bias("attn_q") {
            keys.insert("attention_bias".into(), json!(true));
        }
        if model_type == "llama" && bias("ffn_up") {
            keys.insert("mlp_bias".into(), json!(true));
        }
        if let Some(kind) =
            self.value(&format!("{model_type}.rope.scaling.type"))?.filter(|kind| kind != "none")
        {
            let factor = self.value(&format!("{model_type}.rope.scaling.factor"))?;
            keys.insert("rope_scaling".into(), json!({ "rope_type": kind, "factor": factor }));
        }
        self.check_rotation(model_type, &mut keys)?;
        Ok(keys)
    }

    /// The whole head is rotated: the number of rotated lanes is the width of a head, or says it.
    fn check_rotation(&self, model_type: &str, keys: &mut Map<String, Json>) -> Result<()> {
        let Some(rotated) = self.value(&format!("{model_type}.rope.dimension_count"))? else { return Ok(()) };
        let size = |key: &str| keys.get(key).and_then(Json::as_u64);
        let even =
            size("hidden_size").zip(size("num_attention_heads").filter(|&n| n > 0)).map(|(d, n)| d / n);
        match size("head_dim").or(even) {
            Some(head_dim) if rotated != json!(head_dim) => {
                let why = format!("{rotated} of {head_dim} lanes of a head are rotated; only all can be");
                Err(Error::Unsupported { path: self.path.into(), why })
            }
            _ => Ok(()),
        }
    }

    fn gpt2_keys(&self) -> Result<Map<String, Json>> {
        self.keys(
            "gpt2",
            &[
                ("n_embd", "embedding_length", true),
                ("n_layer", "block_count", true),
                ("n_head", "attention.head_count", true),
                ("n_inner", "feed_forward_length", false),
                ("n_positions", "context_length", true),
                ("layer_norm_epsilon", "attention.layer_norm_epsilon", true),
            ],
        )
    }
}

/// GGUF's name of a tensor of a Llama.
fn llama_name(name: &str) -> Option<String> {
    let outer = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    outer.map(Into::into).or_else(|| {
        in_block(name.strip_prefix("model.layers.")?, |part| match part {
            "input_layernorm" => Some("attn_norm"),
            "self_attn.q_proj" => Some("attn_q"),
            "self_attn.k_proj" => Some("attn_k"),
            "self_attn.v_proj" => Some("attn_v"),
            "self_attn.o_proj" => Some("attn_output"),
            "post_attention_layernorm" => Some("ffn_norm"),
            "mlp.gate_proj" => Some("ffn_gate"),
            "mlp.up_proj" => Some("ffn_up"),
            "mlp.down_proj" => Some("ffn_down"),
            _ => None,
        })
    })
}

/// GGUF's name of a tensor of a GPT-2.
fn gpt2_name(name: &str) -> Option<String> {
    let outer = match name {
        "wte.weight" => Some("token_embd.weight"),
        "wpe.weight" => Some("position_embd.weight"),
        "ln_f.weight" => Some("output_norm.weight"),
        "ln_f.bias" => Some("output_norm.bias"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    outer.map(Into::into).or_else(|| {
        in_block(name.strip_prefix("h.")?, |part| match part {
            "ln_1" => Some("attn_norm"),
            "attn.c_attn" => Some("attn_qkv"),
            "attn.c_proj" => Some("attn_output"),
            "ln_2" => Some("ffn_norm"),
            "mlp.c_fc" => Some("ffn_up"),
            "mlp.c_proj" => Some("ffn_down"),
            _ => None,
        })
    })
}

/// `i.part.kind` to `blk.i.translated.kind`.
fn in_block(name: &str, translate: impl Fn(&str) -> Option<&'static str>) -> Option<String> {
    let (i, rest) = name.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    Some(format!("blk.{i}.{}.{kind}", translate(part)?))
}
