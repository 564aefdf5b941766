//! Everything a run needs to go on after it was killed, in one file that is replaced as a whole.
//!
//! The file is a safetensors file: prompt, moments and best prompt as f32 tensors (bit for bit), the rest as JSON in
//! its metadata. The order of examples and the learning rate are functions of seed and step, so they need not be kept.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{Settings, optimizer::Optimizer, schedule::Decay};
use crate::atomic;
use crate::error::{Error, Result};
use crate::soft_prompt::SoftPrompt;

/// Name of the file in the output folder.
pub const FILE: &str = "training_state.safetensors";

/// What the dev evaluations said so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Step of the best dev evaluation.
    pub best_step: Option<u64>,
    /// Its score; larger is better.
    pub best_score: Option<f64>,
    /// All its metrics.
    pub best_metrics: Option<serde_json::Map<String, serde_json::Value>>,
    /// Evaluations since then.
    pub evaluations_without_gain: u64,
    /// Early stopping has ended the run.
    pub stopped_early: bool,
}

/// A run between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Steps, best score, patience.
    pub progress: Progress,
    /// The prompt being trained.
    pub prompt: SoftPrompt,
    /// The prompt of the best dev evaluation.
    pub best: Option<SoftPrompt>,
    /// Moments and step count.
    pub optimizer: Optimizer,
}

#[derive(Serialize, Deserialize)]
struct Header {
    progress: Progress,
    optimizer_steps: u64,
    settings: Settings,
    /// Fingerprints of model and training data.
    inputs: String,
}

impl State {
    /// Writes the state; an older one stays until the new one is complete.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, folder: &Path, settings: &Settings, inputs: &str) -> Result<()> {
        let header = Header {
            progress: self.progress.clone(),
            optimizer_steps: self.optimizer.steps,
            settings: settings.clone(),
            inputs: inputs.to_string(),
        };
        let shape = vec![self.prompt.n_tokens, self.prompt.d_model];
        let [a, b] = &self.optimizer.moments;
        let mut tensors = vec![
            ("prompt", shape.clone(), bytes(&self.prompt.values)),
            ("moment_0", vec![a.len()], bytes(a)),
            ("moment_1", vec![b.len()], bytes(b)),
        ];
        tensors.extend(self.best.as_ref().map(|best| ("best_prompt", shape, bytes(&best.values))));
        let failed = |e: &dyn std::fmt::Display| Error::Failure(format!("training state: {e}"));
        let views: Vec<_> = tensors
            .iter()
            .map(|(name, shape, data)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
            .collect::<std::result::Result<_, safetensors::SafeTensorError>>()
            .map_err(|e| failed(&e))?;
        let header = serde_json::to_string(&header).map_err(|e| failed(&e))?;
        let metadata = HashMap::from([("prompt_tuning".to_string(), header)]);
        let file = safetensors::serialize(views, Some(metadata)).map_err(|e| failed(&e))?;
        atomic::write(&folder.join(FILE), &file)
    }

    /// Reads the state of a run with these settings and inputs; `None` when there is none yet.
    ///
    /// # Errors
    /// The file is damaged, or belongs to a run with other settings, another model or other data.
    pub fn load(folder: &Path, settings: &Settings, inputs: &str) -> Result<Option<State>> {
        let path = folder.join(FILE);
        let file = match std::fs::read(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::Failure(format!("cannot read `{}`: {e}", path.display()))),
        };
        let damaged = |why: String| {
            Error::Input(format!("`{}` is damaged: {why}; start again without --resume", path.display()))
        };
        let (_, metadata) = SafeTensors::read_metadata(&file).map_err(|e| damaged(e.to_string()))?;
        let header = metadata.metadata().as_ref().and_then(|m| m.get("prompt_tuning"));
        let header = header.ok_or_else(|| damaged("it has no header".into()))?;
        let header: Header = serde_json::from_str(header).map_err(|e| damaged(e.to_string()))?;
        check_same(&header, settings, inputs)?;
        let tensors = SafeTensors::deserialize(&file).map_err(|e| damaged(e.to_string()))?;
        let get = |name: &str| tensors.tensor(name).map_err(|e| damaged(e.to_string()));
        let prompt =
            soft_prompt(&get("prompt")?).ok_or_else(|| damaged("`prompt` is not an F32 matrix".into()))?;
        let mut optimizer =
            Optimizer::new(settings.optimizer, settings.weight_decay, prompt.n_tokens, prompt.d_model);
        optimizer.steps = header.optimizer_steps;
        for (name, moment) in ["moment_0", "moment_1"].into_iter().zip(&mut optimizer.moments) {
            let read = floats(get(name)?.data());
            if read.len() != moment.len() {
                return Err(damaged(format!(
                    "`{name}` has {} numbers, expected {}",
                    read.len(),
                    moment.len()
                )));
            }
            *moment = read;
        }
        let best = tensors.tensor("best_prompt").ok().as_ref().and_then(soft_prompt);
        Ok(Some(State { progress: header.progress, prompt, best, optimizer }))
    }
}

fn check_same(header: &Header, settings: &Settings, inputs: &str) -> Result<()> {
    if header.inputs != inputs {
        return Err(Error::Input(
            "--resume: the model, the task or the training data is not the one the run was started with"
                .to_string(),
        ));
    }
    let as_map = |s: &Settings| serde_json::to_value(s).unwrap_or_default();
    let (old, new) = (as_map(&header.settings), as_map(settings));
    // a constant learning rate does not depend on the length of the run, so the run may be made longer; recomputing
    // changes no bit of it
    let may_differ =
        |key: &str| key == "recompute" || (key == "steps" && settings.schedule == Decay::Constant);
    let same = |(key, value): &(&String, &serde_json::Value)| {
        may_differ(key) || new.get(key.as_str()) == Some(value)
    };
    let differs = old.as_object().into_iter().flatten().find(|pair| !same(pair));
    match differs {
        None => Ok(()),
        Some((key, value)) => Err(Error::Input(format!(
            "--resume: the run was started with {key} = {value}, not {}; give the same settings",
            new.get(key.as_str()).cloned().unwrap_or_default()
        ))),
    }
}

fn bytes(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn soft_prompt(view: &TensorView) -> Option<SoftPrompt> {
    let &[n_tokens, d_model] = view.shape() else { return None };
    let values = floats(view.data());
    (view.dtype() == Dtype::F32 && values.len() == n_tokens * d_model).then_some(SoftPrompt {
        n_tokens,
        d_model,
        values,
    })
}
