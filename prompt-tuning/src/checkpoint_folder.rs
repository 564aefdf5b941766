//! A fine-tuned model on disk: a folder in Hugging Face layout, like the one it came from, with the trained weights.
//!
//! Everything but the weights is copied from the folder of the base model. Weights that were not trained are written as the
//! same numbers; names for one table twice (tied embeddings) are written once, under the name that is read. Of a classifier the
//! labels are in the configuration, and a masked model's other head stays behind.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use half::bf16;
use model::{Architecture, LanguageModel};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tensor::DType;

use crate::atomic;
use crate::error::{Error, Result};
use crate::trained_weights::TrainedWeights;

/// Name of the weights.
pub const WEIGHTS: &str = "model.safetensors";

/// What belongs to a model beside its weights.
const COMPANIONS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// Second names of tables, which files may have beside the first.
const SECOND_NAMES: [&str; 6] = [
    "lm_head.weight",
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "shared.weight",
];

/// What the names of the heads of a pretrained BERT begin with; its classifier has another.
const PRETRAINING_HEADS: &str = "cls.";

/// What the names in a classifier's own layers begin with, after the model itself.
const CLASSIFIERS: [&str; 2] = ["score.", "classifier."];

/// Heads that are not the embedding.
const HEADS: [&str; 2] = ["lm_head.weight", "cls.predictions.decoder.weight"];

/// How numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SaveDtype {
    /// As they were trained.
    #[default]
    F32,
    /// Rounded to the nearest: half the size, three digits.
    Bf16,
}

impl SaveDtype {
    fn name(self) -> &'static str {
        match self {
            SaveDtype::F32 => "float32",
            SaveDtype::Bf16 => "bfloat16",
        }
    }
}

/// Writes the folder `out`: configuration and tokenizer of `base`, and its weights with `trained` in their place.
///
/// # Errors
/// A file cannot be read or written.
pub fn write(
    out: &Path,
    base: (&Path, &LanguageModel),
    trained: &TrainedWeights,
    dtype: SaveDtype,
) -> Result<()> {
    let (folder, model) = base;
    atomic::prepare_folder(out)?;
    let tensors = tensors(model, trained, dtype)?;
    let views = tensors.iter().map(|(name, shape, data)| {
        let dtype = match dtype {
            SaveDtype::F32 => Dtype::F32,
            SaveDtype::Bf16 => Dtype::BF16,
        };
        Ok((name, TensorView::new(dtype, shape.clone(), data)?))
    });
    let failed = |e: safetensors::SafeTensorError| Error::Failure(format!("{WEIGHTS}: {e}"));
    let views: Vec<_> = views.collect::<std::result::Result<_, _>>().map_err(failed)?;
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let file = safetensors::serialize(views, Some(metadata)).map_err(failed)?;
    for name in COMPANIONS {
        let from = folder.join(name);
        if from.is_file() {
            let bytes = fs::read(&from).map_err(|e| Error::Failure(format!("`{}`: {e}", from.display())))?;
            atomic::write(&out.join(name), &bytes)?;
        }
    }
    atomic::write(&out.join("config.json"), config(folder, model, dtype)?.as_bytes())?;
    atomic::write(&out.join(WEIGHTS), &file)
}

/// The configuration with the dtype of the new weights. Heads of their own have been trained apart from the embeddings.
fn config(folder: &Path, model: &LanguageModel, dtype: SaveDtype) -> Result<String> {
    let path = folder.join("config.json");
    let wrong = |e: &dyn std::fmt::Display| Error::Failure(format!("`{}`: {e}", path.display()));
    let text = fs::read_to_string(&path).map_err(|e| wrong(&e))?;
    let mut config: Value = serde_json::from_str(&text).map_err(|e| wrong(&e))?;
    let key = if config.get("torch_dtype").is_some() { "torch_dtype" } else { "dtype" };
    config[key] = json!(dtype.name());
    if HEADS.iter().any(|head| model.weight_names().iter().any(|name| name == head)) {
        config["tie_word_embeddings"] = json!(false);
    }
    if let Some(labels) = &model.config().labels {
        describe_classifier(&mut config, model, labels);
    }
    let mut text = serde_json::to_string_pretty(&config).map_err(|e| wrong(&e))?;
    text.push('\n');
    Ok(text)
}

/// What transformers must know to read a classifier and to find the last token of a padded text.
fn describe_classifier(config: &mut Value, model: &LanguageModel, labels: &[String]) {
    let class = match model.config().model_type.as_str() {
        "gpt2" => "GPT2",
        "llama" => "Llama",
        "qwen2" => "Qwen2",
        "mistral" => "Mistral",
        _ => "Bert",
    };
    let numbered = || labels.iter().enumerate();
    config["architectures"] = json!([format!("{class}ForSequenceClassification")]);
    config["num_labels"] = json!(labels.len());
    config["id2label"] = numbered().map(|(i, label)| (i.to_string(), json!(label))).collect();
    config["label2id"] = numbered().map(|(i, label)| (label.clone(), json!(i))).collect();
    config["problem_type"] = json!("single_label_classification");
    if let (Some(Value::Null) | None, Some(end)) =
        (config.get("pad_token_id"), model.config().eos_token_ids.first())
    {
        config["pad_token_id"] = json!(end);
    }
}

type Named = (String, Vec<usize>, Vec<u8>);

fn tensors(model: &LanguageModel, trained: &TrainedWeights, dtype: SaveDtype) -> Result<Vec<Named>> {
    let used = model.weight_names();
    let is_classifier = model.config().labels.is_some();
    let is_second = |name: &str| {
        let left_behind =
            SECOND_NAMES.contains(&name) || is_classifier && name.starts_with(PRETRAINING_HEADS);
        left_behind && !used.iter().any(|used| used == name)
    };
    // masks that old files keep as tensors of truth values are computed, not read
    let is_number = |name: &&str| model.checkpoint().tensor_of_any_shape(name).is_ok();
    let in_file = model.checkpoint().names().filter(|name| !is_second(name)).filter(is_number);
    // a new head
    let new = used.iter().map(String::as_str).filter(|name| !model.checkpoint().contains(name));
    let named = |name: &str| {
        let written = if is_classifier { beside_a_head(model, name) } else { name.to_string() };
        if let Some(p) = trained.parameters.iter().find(|p| p.name == name) {
            return Ok((written, p.shape().to_vec(), bytes(p.values(), dtype)));
        }
        let frozen = model.checkpoint().tensor_of_any_shape(name).map_err(model::Error::from)?;
        let data = match (dtype, frozen.dtype()) {
            (SaveDtype::F32, DType::F32) | (SaveDtype::Bf16, DType::Bf16) => frozen.tensor().bytes().to_vec(),
            _ => bytes(frozen.widened().f32s(), dtype),
        };
        Ok((written, frozen.shape().to_vec(), data))
    };
    in_file.chain(new).map(named).collect()
}

/// A weight's name in the file of a classifier: those of the model itself have a prefix there, which some files are without.
fn beside_a_head(model: &LanguageModel, name: &str) -> String {
    let prefix = match model.config().architecture {
        Architecture::Gpt2 => "transformer.",
        Architecture::Llama => "model.",
        Architecture::Bert => "bert.",
        Architecture::T5 => "",
    };
    match name.starts_with(prefix) || CLASSIFIERS.iter().any(|head| name.starts_with(head)) {
        true => name.to_string(),
        false => format!("{prefix}{name}"),
    }
}

fn bytes(x: &[f32], dtype: SaveDtype) -> Vec<u8> {
    match dtype {
        SaveDtype::F32 => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        SaveDtype::Bf16 => x.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
    }
}
