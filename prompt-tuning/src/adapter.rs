//! A prompt on disk: a PEFT adapter folder of prompt tuning, P-tuning or prefix tuning, byte for byte as
//! `save_pretrained` writes it, and beside its two files one of ours that says what the prompt was made for.
//!
//! ```text
//! adapter_config.json         json.dumps(config, indent=2, sort_keys=True), no line end
//! adapter_model.safetensors   one tensor, prompt_embeddings, F32 [num_virtual_tokens, token_dim]; twice as many rows
//!                             for an encoder-decoder, of which PEFT and we use the first half. Of prefix tuning
//!                             [num_virtual_tokens, 2 num_layers token_dim]
//! prompt_tuning.json          Provenance
//! ```

mod config;

use std::path::Path;

use model::Family;
use serde::{Deserialize, Serialize};
use tensor::Checkpoint;

pub use config::{AdapterConfig, BaseModel, PeftInit, PeftType};

use crate::atomic;
use crate::error::{Error, Result};
use crate::soft_prompt::{Kind, SoftPrompt};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PROVENANCE: &str = "prompt_tuning.json";
const TENSOR: &str = "prompt_embeddings";

/// The files of an adapter folder.
pub const FILES: [&str; 3] = [CONFIG, WEIGHTS, PROVENANCE];

/// A prompt and what is known about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// What PEFT knows.
    pub config: AdapterConfig,
    /// The vectors.
    pub prompt: SoftPrompt,
    /// Rows behind them that nothing reads: those for the decoder of an encoder-decoder. Kept, so that the file stays
    /// what it was.
    pub unread: Vec<f32>,
    /// What we know, for prompts made here.
    pub provenance: Option<Provenance>,
}

/// What a prompt was made for and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Version of this program.
    pub version: String,
    /// Name of the base model.
    pub model: String,
    /// Fingerprint of the base model. A prompt is of no use to another one.
    pub model_fingerprint: String,
    /// Name of the task.
    pub task: Option<String>,
    /// Template of the task. The prompt was tuned for these words.
    pub template: Option<String>,
    /// What the prompt started from, as on the command line.
    pub init: String,
    /// Seed of the run.
    pub seed: u64,
    /// Steps of training that made it.
    pub steps: u64,
}

/// The model a prompt is to be used with.
#[derive(Clone, Copy, Debug)]
pub struct ModelIdentity<'a> {
    /// What an adapter would say of it.
    pub base: &'a BaseModel,
    /// Its fingerprint.
    pub fingerprint: &'a str,
}

impl Adapter {
    /// Reads a folder, made here or by PEFT.
    ///
    /// # Errors
    /// Not a prompt-tuning adapter, missing or damaged files, files that contradict each other.
    pub fn read(folder: &Path) -> Result<Adapter> {
        let config = AdapterConfig::read(&folder.join(CONFIG))?;
        let mut prompt = read_weights(folder)?;
        let (n, width) = (prompt.n_tokens, prompt.d_model);
        let expected = (config.n_rows(), config.width().unwrap_or(width));
        if (n, width) != expected {
            let (rows, dim) = expected;
            let why = format!("{WEIGHTS} holds [{n}, {width}] numbers, but {CONFIG} says [{rows}, {dim}]");
            return Err(Error::file(folder, why));
        }
        prompt.kind = if config.peft_type.is_prefix() { Kind::Prefix } else { Kind::Soft };
        prompt.n_tokens = config.num_virtual_tokens;
        let unread = prompt.values.split_off(prompt.n_tokens * prompt.d_model);
        Ok(Adapter { config, prompt, unread, provenance: read_provenance(&folder.join(PROVENANCE))? })
    }

    /// That the adapter read from `folder` was made for `model`. `force` lets another fingerprint pass, never another
    /// width. A prompt made by PEFT has no fingerprint: only what its config says of the model is checked.
    ///
    /// # Errors
    /// Names both models.
    pub fn check(&self, folder: &Path, model: ModelIdentity, force: bool) -> Result<()> {
        let (name, widths) = (&model.base.name, model.base.widths());
        self.prompt.check(folder, widths)?;
        let is_seq2seq = model.base.family == Family::Seq2Seq;
        if let Some(kind) =
            self.config.task_type.as_ref().filter(|_| self.config.is_seq2seq() != is_seq2seq && !force)
        {
            let is = if is_seq2seq { "an" } else { "no" };
            let why = format!(
                "this prompt is for a {kind} model, but `{name}` is {is} encoder-decoder; use another model, or --force"
            );
            return Err(Error::file(folder, why));
        }
        // the numbers of a prefix mean nothing in another layout
        let must_fit = !force || self.prompt.kind == Kind::Prefix;
        if let Some((key, said, right)) = self.config.contradiction(model.base).filter(|_| must_fit) {
            let why = format!(
                "its {CONFIG} says `{key}` {said}, but the model `{name}` has {right}: it was made for another model"
            );
            return Err(Error::file(folder, why));
        }
        match &self.provenance {
            Some(made) if made.model_fingerprint != model.fingerprint && !force => {
                let why = format!(
                    "this prompt was made for model `{}` ({}), not for `{name}` ({}); use that model, or --force",
                    made.model, made.model_fingerprint, model.fingerprint
                );
                Err(Error::file(folder, why))
            }
            _ => Ok(()),
        }
    }

    /// Writes the folder, making it where it is missing. Each file is replaced atomically.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::write(folder, e))?;
        let provenance = folder.join(PROVENANCE);
        match &self.provenance {
            Some(made) => {
                let json = serde_json::to_string_pretty(made).expect("strings and numbers become JSON");
                atomic::write(&provenance, (json + "\n").as_bytes())?;
            }
            // that of another prompt must not stay beside this one
            None if provenance.exists() => {
                std::fs::remove_file(&provenance).map_err(|e| Error::write(&provenance, e))?;
            }
            None => {}
        }
        atomic::write(&folder.join(WEIGHTS), &weights(&self.prompt, &self.unread))?;
        atomic::write(&folder.join(CONFIG), self.config.to_json().as_bytes())
    }
}

/// The safetensors file, as the `safetensors` Python package writes it.
fn weights(prompt: &SoftPrompt, unread: &[f32]) -> Vec<u8> {
    let values = || prompt.values.iter().chain(unread);
    let (d, size) = (prompt.d_model, values().count() * size_of::<f32>());
    let n = prompt.n_tokens + unread.len() / d.max(1);
    let mut header = format!(
        "{{\"__metadata__\":{{\"format\":\"pt\"}},\
         \"{TENSOR}\":{{\"dtype\":\"F32\",\"shape\":[{n},{d}],\"data_offsets\":[0,{size}]}}}}"
    );
    let padded = header.len().next_multiple_of(8);
    header.extend(std::iter::repeat_n(' ', padded - header.len()));
    let mut bytes = [&(padded as u64).to_le_bytes(), header.as_bytes()].concat();
    bytes.extend(values().flat_map(|x| x.to_le_bytes()));
    bytes
}

fn read_weights(folder: &Path) -> Result<SoftPrompt> {
    let path = folder.join(WEIGHTS);
    if !path.exists() && folder.join("adapter_model.bin").exists() {
        let why = format!(
            "it holds a pickle (adapter_model.bin); save it with safe_serialization=True to get {WEIGHTS}"
        );
        return Err(Error::file(folder, why));
    }
    let tensor = Checkpoint::open_file(&path)?.tensor_of_any_shape(TENSOR)?;
    let &[n_tokens, d_model] = tensor.shape() else {
        let why = format!("{TENSOR} has shape {:?}, not [tokens, width]", tensor.shape());
        return Err(Error::file(&path, why));
    };
    let prompt = SoftPrompt::new(n_tokens, d_model, tensor.widened().f32s().to_vec());
    prompt.check_numbers(&path)?;
    Ok(prompt)
}

fn read_provenance(path: &Path) -> Result<Option<Provenance>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::read(path, e)),
    };
    serde_json::from_str(&text).map(Some).map_err(|e| Error::file(path, e.to_string()))
}
