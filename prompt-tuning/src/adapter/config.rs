//! `adapter_config.json`: PEFT's `PromptTuningConfig`, `PromptEncoderConfig` and `PrefixTuningConfig`.

use std::path::Path;

use model::{Config, Family};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::prompt_encoder::Method;
use crate::soft_prompt::Widths;

/// The PEFT whose files ours are byte for byte.
const PEFT_VERSION: &str = "0.21.2";
const SEQ2SEQ: &str = "SEQ_2_SEQ_LM";

/// What PEFT's three configs have in common, with its names. What an older file lacks has PEFT's default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdapterConfig {
    /// `null`, or which classes the base model needs.
    pub auto_mapping: Value,
    /// Folder or hub id of the base model.
    pub base_model_name_or_path: Option<String>,
    /// True in every saved adapter.
    pub inference_mode: bool,
    /// Modules trained beside the prompt; none here.
    pub modules_to_save: Value,
    /// Attention heads of the base model; its key/value heads in prefix tuning.
    pub num_attention_heads: Option<usize>,
    /// Layers of the base model.
    pub num_layers: Option<usize>,
    /// 2 for encoder-decoder models, else 1.
    pub num_transformer_submodules: Option<usize>,
    /// Virtual tokens.
    pub num_virtual_tokens: usize,
    /// The method, and what only it has.
    #[serde(flatten)]
    pub peft_type: PeftType,
    /// Version of PEFT.
    pub peft_version: Option<String>,
    /// Revision of the base model on the hub.
    pub revision: Option<String>,
    /// `CAUSAL_LM` and others.
    pub task_type: Option<String>,
    /// Width of the base model; of its keys in prefix tuning.
    pub token_dim: Option<usize>,
}

/// The methods whose result is a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "peft_type")]
pub enum PeftType {
    /// Vectors among the embeddings.
    #[serde(rename = "PROMPT_TUNING")]
    PromptTuning(PromptTuning),
    /// The same, made by a network that is not saved.
    #[serde(rename = "P_TUNING")]
    PTuning(PTuning),
    /// Keys and values in every layer.
    #[serde(rename = "PREFIX_TUNING")]
    PrefixTuning(PrefixTuning),
}

/// What only prompt tuning has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptTuning {
    /// `RANDOM`, `SAMPLE_VOCAB` or `TEXT`.
    pub prompt_tuning_init: String,
    /// The text of `TEXT`.
    pub prompt_tuning_init_text: Option<String>,
    /// Only with `TEXT`.
    pub tokenizer_kwargs: Value,
    /// Needed by `TEXT`.
    pub tokenizer_name_or_path: Option<String>,
}

/// What only P-tuning has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PTuning {
    /// Between layers of an LSTM.
    pub encoder_dropout: f64,
    /// Width of the network.
    pub encoder_hidden_size: Option<usize>,
    /// Layers of an LSTM.
    pub encoder_num_layers: usize,
    /// `MLP` or `LSTM`.
    pub encoder_reparameterization_type: String,
}

/// What only prefix tuning has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrefixTuning {
    /// Width of the projection; that of the keys without one.
    pub encoder_hidden_size: Option<usize>,
    /// `zero`, or nothing.
    pub init_weights: Option<String>,
    /// Whether a network made it.
    pub prefix_projection: bool,
}

impl PromptTuning {
    fn new(init: PeftInit, base: &BaseModel) -> PromptTuning {
        let prompt_tuning_init = match init {
            PeftInit::Random => "RANDOM",
            PeftInit::SampleVocab => "SAMPLE_VOCAB",
            PeftInit::Text(_) => "TEXT",
        };
        let prompt_tuning_init_text = match init {
            PeftInit::Text(text) => Some(text),
            PeftInit::Random | PeftInit::SampleVocab => None,
        };
        // PEFT refuses TEXT without the name of a tokenizer, even when it only loads
        let tokenizer_name_or_path = prompt_tuning_init_text.as_ref().map(|_| base.name.clone());
        PromptTuning {
            prompt_tuning_init: prompt_tuning_init.into(),
            prompt_tuning_init_text,
            tokenizer_kwargs: Value::Null,
            tokenizer_name_or_path,
        }
    }
}

impl Default for PromptTuning {
    fn default() -> PromptTuning {
        PromptTuning {
            prompt_tuning_init: "RANDOM".into(),
            prompt_tuning_init_text: None,
            tokenizer_kwargs: Value::Null,
            tokenizer_name_or_path: None,
        }
    }
}

impl Default for PTuning {
    fn default() -> PTuning {
        PTuning {
            encoder_dropout: 0.0,
            encoder_hidden_size: None,
            encoder_num_layers: 2,
            encoder_reparameterization_type: "MLP".into(),
        }
    }
}

impl Default for PeftType {
    fn default() -> PeftType {
        PeftType::PromptTuning(PromptTuning::default())
    }
}

impl PeftType {
    fn new(method: Method, init: PeftInit, base: &BaseModel) -> PeftType {
        let encoder = |kind: &str, hidden, layers| {
            PeftType::PTuning(PTuning {
                encoder_hidden_size: Some(hidden),
                encoder_num_layers: layers,
                encoder_reparameterization_type: kind.into(),
                ..PTuning::default()
            })
        };
        let prefix = |hidden, projection| {
            PeftType::PrefixTuning(PrefixTuning {
                encoder_hidden_size: Some(hidden),
                prefix_projection: projection,
                ..PrefixTuning::default()
            })
        };
        match method {
            Method::Soft => PeftType::PromptTuning(PromptTuning::new(init, base)),
            Method::Mlp { hidden } => encoder("MLP", hidden, 2),
            Method::Lstm { hidden, layers } => encoder("LSTM", hidden, layers),
            Method::Prefix => prefix(base.kv_width, false),
            Method::ProjectedPrefix { hidden } => prefix(hidden, true),
        }
    }

    /// Whether the prompt is keys and values of every layer.
    pub fn is_prefix(&self) -> bool {
        matches!(self, PeftType::PrefixTuning(_))
    }
}

/// What an adapter says about the model it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseModel {
    /// Folder or hub id, so that PEFT finds the model.
    pub name: String,
    /// Attention heads.
    pub n_heads: usize,
    /// Heads of keys and values.
    pub n_kv_heads: usize,
    /// Width of the keys of a layer.
    pub kv_width: usize,
    /// Layers; those of the encoder of an encoder-decoder.
    pub n_layers: usize,
    /// Layers that a prefix has keys and values for.
    pub n_prefix_layers: usize,
    /// Width.
    pub d_model: usize,
    /// How it reads.
    pub family: Family,
}

impl BaseModel {
    /// How wide its prompts are.
    pub fn widths(&self) -> Widths {
        Widths { d_model: self.d_model, prefix: 2 * self.n_prefix_layers * self.kv_width }
    }

    /// What `config` says about the model `name`.
    pub fn of(config: &Config, name: &str) -> BaseModel {
        BaseModel {
            name: name.into(),
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            kv_width: config.prefix_width(),
            n_layers: config.n_layers,
            n_prefix_layers: config.n_prefix_layers(),
            d_model: config.d_model,
            family: config.architecture.family(),
        }
    }
}

/// What PEFT can say about where a prompt started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeftInit {
    /// Anything that is not one of the others.
    Random,
    /// Embeddings of sampled tokens.
    SampleVocab,
    /// Embeddings of this text.
    Text(String),
}

impl Default for AdapterConfig {
    fn default() -> AdapterConfig {
        AdapterConfig {
            auto_mapping: Value::Null,
            base_model_name_or_path: None,
            inference_mode: false,
            modules_to_save: Value::Null,
            num_attention_heads: None,
            num_layers: None,
            num_transformer_submodules: None,
            num_virtual_tokens: 0,
            peft_type: PeftType::default(),
            peft_version: None,
            revision: None,
            task_type: None,
            token_dim: None,
        }
    }
}

impl AdapterConfig {
    /// The config of `n_tokens` virtual tokens made by `method` for a model of this family.
    ///
    /// PEFT has no task of masked models. Its feature extraction puts the prompt in front and calls whatever model it is
    /// given, so that one with a masked-language-model head gives its logits.
    pub fn new(n_tokens: usize, base: &BaseModel, method: Method, init: PeftInit) -> AdapterConfig {
        let (submodules, task) = match base.family {
            Family::Seq2Seq => (2, SEQ2SEQ),
            Family::Causal => (1, "CAUSAL_LM"),
            Family::Masked => (1, "FEATURE_EXTRACTION"),
        };
        let (heads, width, layers) = match method.is_prefix() {
            true => (base.n_kv_heads, base.kv_width, base.n_prefix_layers),
            false => (base.n_heads, base.d_model, base.n_layers),
        };
        AdapterConfig {
            base_model_name_or_path: Some(base.name.clone()),
            inference_mode: true,
            num_attention_heads: Some(heads),
            num_layers: Some(layers),
            num_transformer_submodules: Some(submodules),
            num_virtual_tokens: n_tokens,
            peft_type: PeftType::new(method, init, base),
            peft_version: Some(PEFT_VERSION.into()),
            task_type: Some(task.into()),
            token_dim: Some(width),
            ..AdapterConfig::default()
        }
    }

    /// Whether the prompt is for an encoder-decoder.
    pub fn is_seq2seq(&self) -> bool {
        self.task_type.as_deref() == Some(SEQ2SEQ) || self.num_transformer_submodules == Some(2)
    }

    /// Rows of the table of vectors, of which the first `num_virtual_tokens` are used.
    pub fn n_rows(&self) -> usize {
        if self.peft_type.is_prefix() {
            return self.num_virtual_tokens;
        }
        let default = if self.is_seq2seq() { 2 } else { 1 };
        self.num_virtual_tokens.saturating_mul(self.num_transformer_submodules.unwrap_or(default))
    }

    /// What the file says of the model that `base` contradicts: key, its value, and what it would be.
    pub fn contradiction(&self, base: &BaseModel) -> Option<(&'static str, usize, usize)> {
        let method = if self.peft_type.is_prefix() { Method::Prefix } else { Method::Soft };
        let right = AdapterConfig::new(self.num_virtual_tokens, base, method, PeftInit::Random);
        let pairs = [
            ("num_layers", self.num_layers, right.num_layers),
            ("num_attention_heads", self.num_attention_heads, right.num_attention_heads),
            ("token_dim", self.token_dim, right.token_dim),
        ];
        pairs.into_iter().find_map(|(key, said, right)| {
            let (said, right) = (said?, right?);
            (said != right).then_some((key, said, right))
        })
    }

    /// Width of a row, if the file says.
    pub fn width(&self) -> Option<usize> {
        match self.peft_type {
            PeftType::PrefixTuning(_) => {
                Some(self.num_layers?.saturating_mul(2).saturating_mul(self.token_dim?))
            }
            _ => self.token_dim,
        }
    }

    pub(super) fn read(path: &Path) -> Result<AdapterConfig> {
        let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::Input(format!(
                "`{}` is not there: a prompt is a PEFT adapter folder, with this file in it",
                path.display()
            )),
            _ => Error::read(path, e),
        })?;
        let config = AdapterConfig::parse(&text).map_err(|why| Error::file(path, why))?;
        for key in config.unknown_keys(&text) {
            tracing::warn!("{}: unknown key `{key}` is ignored", path.display());
        }
        Ok(config)
    }

    fn parse(text: &str) -> Result<AdapterConfig, String> {
        // by way of a map: a struct would be read from a list as well
        let map: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match map.get("peft_type").and_then(Value::as_str) {
            Some("PROMPT_TUNING" | "P_TUNING" | "PREFIX_TUNING") => {}
            None => return Err("it has no `peft_type`; it is not the config of a PEFT adapter".into()),
            Some(other) => {
                return Err(format!(
                    "peft_type is {other}; only PROMPT_TUNING, P_TUNING and PREFIX_TUNING adapters are prompts"
                ));
            }
        }
        let config: AdapterConfig = serde_json::from_value(Value::Object(map)).map_err(|e| e.to_string())?;
        let n_tokens = config.num_virtual_tokens;
        if config.peft_type.is_prefix() && config.width().is_none() {
            return Err("a prefix needs `num_layers` and `token_dim`".into());
        }
        if n_tokens == 0 {
            return Err("it has no `num_virtual_tokens`, or 0 of them".into());
        }
        match config.num_transformer_submodules {
            None | Some(1 | 2) => Ok(config),
            Some(n) => {
                Err(format!("num_transformer_submodules is {n}, but must be 1, or 2 for an encoder-decoder"))
            }
        }
    }

    /// Keys of `text` that PEFT of our version does not write. PEFT drops `runtime_config` itself.
    fn unknown_keys(&self, text: &str) -> Vec<String> {
        let keys = |value: Value| match value {
            Value::Object(map) => map.into_iter().map(|(key, _)| key).collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        let known = keys(serde_json::to_value(self).unwrap_or_default());
        let found = keys(serde_json::from_str(text).unwrap_or_default());
        found.into_iter().filter(|key| key != "runtime_config" && !known.contains(key)).collect()
    }

    /// As Python's `json.dumps(config, indent=2, sort_keys=True)`.
    pub fn to_json(&self) -> String {
        let value = sorted(serde_json::to_value(self).expect("strings and numbers become JSON"));
        let json = serde_json::to_string_pretty(&value).expect("a value becomes JSON");
        let mut ascii = String::with_capacity(json.len());
        for c in json.chars() {
            if c < '\u{7f}' {
                ascii.push(c);
            } else {
                // beyond the first plane, two surrogates
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| ascii.push_str(&format!("\\u{unit:04x}")));
            }
        }
        ascii
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> BaseModel {
        BaseModel {
            name: "gpt2".into(),
            n_heads: 12,
            n_kv_heads: 12,
            kv_width: 768,
            n_layers: 12,
            n_prefix_layers: 12,
            d_model: 768,
            family: Family::Causal,
        }
    }

    #[test]
    fn text_is_escaped_as_python_does() {
        let text = "法 \u{7f} \u{1f600} \"q\" \\ \t\u{1}/";
        let json = AdapterConfig::new(20, &base(), Method::Soft, PeftInit::Text(text.into())).to_json();
        let line = json.lines().find(|line| line.contains("init_text")).unwrap();
        assert_eq!(line, r#"  "prompt_tuning_init_text": "\u6cd5 \u007f \ud83d\ude00 \"q\" \\ \t\u0001/","#);
        assert!(json.ends_with("\"tokenizer_name_or_path\": \"gpt2\"\n}"));
        let PeftType::PromptTuning(read) = AdapterConfig::parse(&json).unwrap().peft_type else {
            panic!("{json}")
        };
        assert_eq!(read.prompt_tuning_init_text.as_deref(), Some(text));
    }

    #[test]
    fn nested_objects_are_sorted_and_empty_ones_stay_on_their_line() {
        let mut config = AdapterConfig::new(20, &base(), Method::Soft, PeftInit::SampleVocab);
        config.auto_mapping = serde_json::json!({"parent_library": "x", "base_model_class": []});
        let json = config.to_json();
        let start =
            "{\n  \"auto_mapping\": {\n    \"base_model_class\": [],\n    \"parent_library\": \"x\"\n  },\n";
        assert!(json.starts_with(start), "{json}");
        assert!(
            json.contains("\"prompt_tuning_init\": \"SAMPLE_VOCAB\",\n  \"prompt_tuning_init_text\": null")
        );
    }

    #[test]
    fn older_and_newer_files_are_read() {
        let text =
            r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 8, "new": 1, "runtime_config": {}}"#;
        let config = AdapterConfig::parse(text).unwrap();
        assert_eq!((config.num_virtual_tokens, &config.peft_type), (8, &PeftType::default()));
        assert_eq!(config.unknown_keys(text), ["new"]);
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let text = format!(
            r#"{{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": {0}, "num_layers": {0}, "token_dim": 7}}"#,
            i64::MAX
        );
        let config = AdapterConfig::parse(&text).unwrap();
        assert_eq!((config.width(), config.n_rows()), (Some(usize::MAX), i64::MAX as usize));
        assert_eq!(config.contradiction(&base()), Some(("num_layers", i64::MAX as usize, 12)));
    }

    #[test]
    fn other_configs_are_refused() {
        for (text, expected) in [
            ("{", "EOF"),
            ("[]", "invalid"),
            ("{}", "no `peft_type`"),
            (r#"{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3, "num_layers": 2}"#, "`token_dim`"),
            (r#"{"peft_type": "LORA"}"#, "peft_type is LORA"),
            (r#"{"peft_type": "PROMPT_TUNING"}"#, "no `num_virtual_tokens`"),
            (r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": -3}"#, "-3"),
            (
                r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "num_transformer_submodules": 3}"#,
                "must be 1, or 2",
            ),
        ] {
            let why = AdapterConfig::parse(text).unwrap_err();
            assert!(why.contains(expected) && !why.contains('\n'), "{expected}: {why}");
        }
    }
}
