//! `adapter_config.json`: PEFT's `PromptTuningConfig`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use model::Family;

use crate::error::{Error, Result};

/// The PEFT whose files ours are byte for byte.
const PEFT_VERSION: &str = "0.21.2";
const PROMPT_TUNING: &str = "PROMPT_TUNING";

/// PEFT's `PromptTuningConfig`, with its names, sorted as it sorts them. What an older file lacks has PEFT's default.
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
    /// Attention heads of the base model.
    pub num_attention_heads: Option<usize>,
    /// Layers of the base model.
    pub num_layers: Option<usize>,
    /// 2 for encoder-decoder models, else 1.
    pub num_transformer_submodules: Option<usize>,
    /// Virtual tokens.
    pub num_virtual_tokens: usize,
    /// `PROMPT_TUNING`.
    pub peft_type: String,
    /// Version of PEFT.
    pub peft_version: Option<String>,
    /// `RANDOM`, `SAMPLE_VOCAB` or `TEXT`.
    pub prompt_tuning_init: String,
    /// The text of `TEXT`.
    pub prompt_tuning_init_text: Option<String>,
    /// Revision of the base model on the hub.
    pub revision: Option<String>,
    /// `CAUSAL_LM` and others.
    pub task_type: Option<String>,
    /// Width of the base model.
    pub token_dim: Option<usize>,
    /// Only with `TEXT`.
    pub tokenizer_kwargs: Value,
    /// Needed by `TEXT`.
    pub tokenizer_name_or_path: Option<String>,
}

/// What an adapter says about the model it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseModel {
    /// Folder or hub id, so that PEFT finds the model.
    pub name: String,
    /// Attention heads.
    pub n_heads: usize,
    /// Layers.
    pub n_layers: usize,
    /// Width.
    pub d_model: usize,
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
            peft_type: String::new(),
            peft_version: None,
            prompt_tuning_init: "RANDOM".into(),
            prompt_tuning_init_text: None,
            revision: None,
            task_type: None,
            token_dim: None,
            tokenizer_kwargs: Value::Null,
            tokenizer_name_or_path: None,
        }
    }
}

impl AdapterConfig {
    /// The config of `n_tokens` virtual tokens in front of a model of `family`.
    ///
    /// PEFT has no task of masked models. Its feature extraction puts the prompt in front and calls whatever model it is
    /// given, so that one with a masked-language-model head gives its logits.
    pub fn new(family: Family, n_tokens: usize, base: &BaseModel, init: PeftInit) -> AdapterConfig {
        let task_type = match family {
            Family::Causal => "CAUSAL_LM",
            Family::Masked => "FEATURE_EXTRACTION",
            Family::Seq2Seq => "SEQ_2_SEQ_LM",
        };
        let mut config = AdapterConfig {
            base_model_name_or_path: Some(base.name.clone()),
            inference_mode: true,
            num_attention_heads: Some(base.n_heads),
            num_layers: Some(base.n_layers),
            num_transformer_submodules: Some(1),
            num_virtual_tokens: n_tokens,
            peft_type: PROMPT_TUNING.into(),
            peft_version: Some(PEFT_VERSION.into()),
            task_type: Some(task_type.into()),
            token_dim: Some(base.d_model),
            ..AdapterConfig::default()
        };
        match init {
            PeftInit::Random => {}
            PeftInit::SampleVocab => config.prompt_tuning_init = "SAMPLE_VOCAB".into(),
            PeftInit::Text(text) => {
                config.prompt_tuning_init = "TEXT".into();
                config.prompt_tuning_init_text = Some(text);
                // PEFT refuses TEXT without the name of a tokenizer, even when it only loads
                config.tokenizer_name_or_path = Some(base.name.clone());
            }
        }
        config
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
        let config: AdapterConfig = serde_json::from_value(Value::Object(map)).map_err(|e| e.to_string())?;
        let n_tokens = config.num_virtual_tokens;
        match config.peft_type.as_str() {
            PROMPT_TUNING => {}
            "" => return Err("it has no `peft_type`; it is not the config of a PEFT adapter".into()),
            other => return Err(format!("peft_type is {other}; only {PROMPT_TUNING} adapters can be used")),
        }
        if n_tokens == 0 {
            return Err("it has no `num_virtual_tokens`, or 0 of them".into());
        }
        match config.num_transformer_submodules {
            None | Some(1) => Ok(config),
            Some(n) => Err(format!(
                "num_transformer_submodules is {n}: this prompt is for an encoder-decoder model, not for a causal one"
            )),
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
        BaseModel { name: "gpt2".into(), n_heads: 12, n_layers: 12, d_model: 768 }
    }

    #[test]
    fn text_is_escaped_as_python_does() {
        let text = "法 \u{7f} \u{1f600} \"q\" \\ \t\u{1}/";
        let json = AdapterConfig::new(Family::Causal, 20, &base(), PeftInit::Text(text.into())).to_json();
        let line = json.lines().find(|line| line.contains("init_text")).unwrap();
        assert_eq!(line, r#"  "prompt_tuning_init_text": "\u6cd5 \u007f \ud83d\ude00 \"q\" \\ \t\u0001/","#);
        assert!(json.ends_with("\"tokenizer_name_or_path\": \"gpt2\"\n}"));
        assert_eq!(AdapterConfig::parse(&json).unwrap().prompt_tuning_init_text.as_deref(), Some(text));
    }

    #[test]
    fn nested_objects_are_sorted_and_empty_ones_stay_on_their_line() {
        let mut config = AdapterConfig::new(Family::Causal, 20, &base(), PeftInit::SampleVocab);
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
        assert_eq!((config.num_virtual_tokens, config.prompt_tuning_init.as_str()), (8, "RANDOM"));
        assert_eq!(config.unknown_keys(text), ["new"]);
    }

    #[test]
    fn other_configs_are_refused() {
        for (text, expected) in [
            ("{", "EOF"),
            ("[]", "invalid"),
            ("{}", "no `peft_type`"),
            (r#"{"peft_type": "LORA"}"#, "peft_type is LORA"),
            (r#"{"peft_type": "PROMPT_TUNING"}"#, "no `num_virtual_tokens`"),
            (r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": -3}"#, "-3"),
            (
                r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "num_transformer_submodules": 2}"#,
                "encoder-decoder",
            ),
        ] {
            let why = AdapterConfig::parse(text).unwrap_err();
            assert!(why.contains(expected) && !why.contains('\n'), "{expected}: {why}");
        }
    }
}
