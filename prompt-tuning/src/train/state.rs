//! Everything a run needs to go on after it was killed, in one file that is replaced as a whole.
//!
//! The file is a safetensors file: parameters, their moments and the best parameters as f32 tensors (bit for bit), the
//! rest as JSON in its metadata. The order of examples and the learning rate are functions of seed and step, so they need not be kept.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use tensor::Tensor;

use super::{Settings, optimizer::Optimizer, schedule::Decay};
use crate::atomic;
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::parameter::Parameter;

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
    /// What is being trained.
    pub learner: Learner,
    /// What it was at the best dev evaluation.
    pub best: Option<Learner>,
    /// Moments and step count of each parameter.
    pub optimizers: Vec<Optimizer>,
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
            optimizer_steps: self.optimizers.first().map_or(0, |o| o.steps),
            settings: settings.clone(),
            inputs: inputs.to_string(),
        };
        let mut tensors = Vec::new();
        for (p, optimizer) in self.learner.parameters().iter().zip(&self.optimizers) {
            tensors.push((p.name.clone(), p.shape().to_vec(), bytes(p.values())));
            for (i, moment) in optimizer.moments.iter().enumerate() {
                tensors.push((moment_name(p, i), vec![moment.len()], bytes(moment.f32s())));
            }
        }
        for p in self.best.iter().flat_map(Learner::parameters) {
            tensors.push((best_name(p), p.shape().to_vec(), bytes(p.values())));
        }
        // numbers that could not be read from a GPU must not take the place of good ones
        tensor::device::check().map_err(super::gpu_failed)?;
        let failed = |e: &dyn std::fmt::Display| Error::Failure(format!("training state: {e}"));
        let views: Vec<_> = tensors
            .iter()
            .map(|(name, shape, data)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
            .collect::<std::result::Result<_, safetensors::SafeTensorError>>()
            .map_err(|e| failed(&e))?;
        let header = serde_json::to_string(&header).map_err(|e| failed(&e))?;
        let metadata = HashMap::from([("prompt_tuning".to_string(), header)]);
        let file = safetensors::serialize(views, Some(metadata)).map_err(|e| failed(&e))?;
        atomic::write(&folder.join(FILE), &file)
    }

    /// Reads the state of a run with these settings and inputs that began with `initial`; `None` when there is none yet.
    ///
    /// # Errors
    /// The file is damaged, or belongs to a run with other settings, another model or other data.
    pub fn load(
        folder: &Path,
        settings: &Settings,
        inputs: &str,
        initial: &Learner,
    ) -> Result<Option<State>> {
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
        let read = |name: &str, into: &mut Tensor| {
            let tensor = tensors.tensor(name).map_err(|e| damaged(e.to_string()))?;
            let values = floats(tensor.data());
            if tensor.dtype() != Dtype::F32 || values.len() != into.len() {
                return Err(damaged(format!("`{name}` does not hold {} F32 numbers", into.len())));
            }
            into.set(&values);
            Ok(())
        };
        let (mut learner, mut optimizers) = (initial.clone(), Vec::new());
        for p in learner.parameters_mut() {
            let mut optimizer = settings.optimizer_of(p);
            optimizer.steps = header.optimizer_steps;
            for (i, moment) in optimizer.moments.iter_mut().enumerate() {
                read(&moment_name(p, i), moment)?;
            }
            optimizers.push(optimizer);
            read(&p.name, &mut p.tensor)?;
        }
        let mut best = header.progress.best_step.map(|_| learner.clone());
        for p in best.iter_mut().flat_map(Learner::parameters_mut) {
            read(&best_name(p), &mut p.tensor)?;
        }
        Ok(Some(State { progress: header.progress, learner, best, optimizers }))
    }
}

fn moment_name(p: &Parameter, i: usize) -> String {
    format!("{}.moment_{i}", p.name)
}

fn best_name(p: &Parameter) -> String {
    format!("best.{}", p.name)
}

fn check_same(header: &Header, settings: &Settings, inputs: &str) -> Result<()> {
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
        None if header.inputs != inputs => Err(Error::Input(
            "--resume: the model, the task, the data, --init or --prompt-length is not that which the run was started with"
                .into(),
        )),
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
