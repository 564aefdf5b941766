//! A fine-tuned model on disk: a folder in Hugging Face layout, like the one it came from, with the trained weights.
//!
//! Everything but the weights is copied from the folder of the base model. Weights that were not trained are written as the
//! same numbers; names for one table twice (tied embeddings) are written once, under the name that is read.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use half::bf16;
use model::LanguageModel;
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
    let untied = HEADS.iter().any(|head| model.weight_names().iter().any(|name| name == head));
    atomic::write(&out.join("config.json"), config(folder, dtype, untied)?.as_bytes())?;
    atomic::write(&out.join(WEIGHTS), &file)
}

/// The configuration with the dtype of the new weights. Heads of their own have been trained apart from the embeddings.
fn config(folder: &Path, dtype: SaveDtype, untied: bool) -> Result<String> {
    let path = folder.join("config.json");
    let wrong = |e: &dyn std::fmt::Display| Error::Failure(format!("`{}`: {e}", path.display()));
    let text = fs::read_to_string(&path).map_err(|e| wrong(&e))?;
    let mut config: Value = serde_json::from_str(&text).map_err(|e| wrong(&e))?;
    let key = if config.get("torch_dtype").is_some() { "torch_dtype" } else { "dtype" };
    config[key] = json!(dtype.name());
    if untied {
        config["tie_word_embeddings"] = json!(false);
    }
    let mut text = serde_json::to_string_pretty(&config).map_err(|e| wrong(&e))?;
    text.push('\n');
    Ok(text)
}

type Named = (String, Vec<usize>, Vec<u8>);

fn tensors(model: &LanguageModel, trained: &TrainedWeights, dtype: SaveDtype) -> Result<Vec<Named>> {
    let used = model.weight_names();
    let is_second = |name: &str| SECOND_NAMES.contains(&name) && !used.iter().any(|used| used == name);
    // masks that old files keep as tensors of truth values are computed, not read
    let is_number = |name: &&str| model.checkpoint().tensor_of_any_shape(name).is_ok();
    let names = model.checkpoint().names().filter(|name| !is_second(name)).filter(is_number);
    let named = |name: &str| {
        if let Some(p) = trained.parameters.iter().find(|p| p.name == name) {
            return Ok((name.to_string(), p.shape().to_vec(), bytes(p.values(), dtype)));
        }
        let frozen = model.checkpoint().tensor_of_any_shape(name).map_err(model::Error::from)?;
        let data = match (dtype, frozen.dtype()) {
            (SaveDtype::F32, DType::F32) | (SaveDtype::Bf16, DType::Bf16) => frozen.tensor().bytes().to_vec(),
            _ => bytes(frozen.widened().f32s(), dtype),
        };
        Ok((name.to_string(), frozen.shape().to_vec(), data))
    };
    names.map(named).collect()
}

fn bytes(x: &[f32], dtype: SaveDtype) -> Vec<u8> {
    match dtype {
        SaveDtype::F32 => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        SaveDtype::Bf16 => x.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
    }
}
