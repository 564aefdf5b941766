//! Training a prompt or weights: the loop, and what it keeps.
//!
//! A step packs its examples into a prefix forest, runs the model over it, goes backward to what is trained, and lets the
//! optimizer move that. Nothing else ever changes.

pub mod batches;
pub mod cost;
pub mod memory;
pub mod optimizer;
pub mod run_folder;
pub mod schedule;
pub mod state;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use autograd::{Tape, Value};
use kernels::threads::on_pool;
use model::{LanguageModel, PackedBatch, Row};
use serde::{Deserialize, Serialize};
use tensor::Tensor;

use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::parameter::Parameter;
use crate::prompt_encoder::Method;
use crate::trained_weights::Selection;
use batches::Batches;
use optimizer::Optimizer;
use schedule::{Decay, Schedule};
use state::{Progress, State};

/// How to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Optimizer steps.
    pub steps: u64,
    /// Examples computed at one time.
    pub batch: usize,
    /// Batches whose gradients make one step.
    pub accumulate: usize,
    /// Which optimizer.
    pub optimizer: optimizer::Kind,
    /// Largest learning rate.
    pub lr: f32,
    /// What the learning rate does after the warm-up.
    pub schedule: Decay,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Largest norm of the gradient.
    pub clip: Option<f32>,
    /// Weight decay: decoupled for AdamW and Adafactor, added to the gradient for SGD.
    pub weight_decay: f32,
    /// Seed of the order of examples.
    pub seed: u64,
    /// Whether every epoch has a new order.
    pub shuffle: bool,
    /// Steps between dev evaluations; one at the end in any case.
    pub eval_every: Option<u64>,
    /// Evaluations without gain after which the run ends.
    pub patience: Option<u64>,
    /// Whether activations are computed again on the way back instead of being kept. Changes no bit of the result.
    #[serde(default)]
    pub recompute: bool,
    /// What makes the prompt, if one is trained.
    #[serde(default)]
    pub method: Method,
    /// Which weights are trained, if it is not a prompt.
    #[serde(default)]
    pub weights: Option<Selection>,
}

impl Default for Settings {
    /// One step of plain AdamW with the defaults of the command line.
    fn default() -> Settings {
        Settings {
            steps: 1,
            batch: 32,
            accumulate: 1,
            optimizer: optimizer::Kind::Adamw,
            lr: 0.003,
            schedule: Decay::Constant,
            warmup: 0,
            clip: None,
            weight_decay: 0.0,
            seed: 0,
            shuffle: true,
            eval_every: None,
            patience: None,
            recompute: false,
            method: Method::Soft,
            weights: None,
        }
    }
}

impl Settings {
    /// A new optimizer for a parameter. Vectors (norms, biases) are not decayed.
    fn optimizer_of(&self, parameter: &Parameter) -> Optimizer {
        let is_vector = self.weights.is_some() && parameter.shape().len() < 2;
        let weight_decay = if is_vector { 0.0 } else { self.weight_decay };
        Optimizer::new(self.optimizer, weight_decay, &parameter.tensor)
    }
}

/// What one step did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Counted from 1.
    pub step: u64,
    /// Mean over the scored tokens, before the step.
    pub loss: f64,
    /// Learning rate.
    pub lr: f32,
    /// Norm of the gradient before clipping.
    pub grad_norm: f32,
    /// Examples of the step.
    pub examples: usize,
    /// Tokens of these examples, prompt and all.
    pub tokens: usize,
    /// Tokens computed: shared prefixes count once.
    pub computed_tokens: usize,
    /// Tokens that are scored.
    pub scored_tokens: usize,
    /// Time it took.
    pub seconds: f64,
}

/// What a dev evaluation says: a number to compare (larger is better), and everything else for the log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DevReport {
    /// Step after which it was made.
    pub step: u64,
    /// Larger is better.
    #[serde(skip)]
    pub score: f64,
    /// Metrics by name.
    #[serde(flatten)]
    pub metrics: serde_json::Map<String, serde_json::Value>,
}

/// Who is told about a run as it goes, and who keeps its state.
pub trait Observer {
    /// A step was done.
    ///
    /// # Errors
    /// Whatever goes wrong while writing it down ends the run.
    fn step(&mut self, report: &StepReport) -> Result<()>;
    /// An evaluation was done; `improved` says whether it is the best so far.
    ///
    /// # Errors
    /// As for [`Observer::step`].
    fn evaluated(&mut self, report: &DevReport, improved: bool, learner: &Learner) -> Result<()>;
    /// The run can be continued from here.
    ///
    /// # Errors
    /// As for [`Observer::step`].
    fn checkpoint(&mut self, state: &State, last: bool) -> Result<()>;
}

/// Evaluates what has been learned: `(step, learner) -> report`.
pub type Evaluate<'a> = dyn FnMut(u64, &Learner) -> Result<DevReport> + 'a;

/// Training examples.
pub trait Examples: Sync {
    /// How many there are.
    fn n_rows(&self) -> usize;
    /// One of them, as epoch `epoch` sees it.
    fn row(&self, index: usize, epoch: u64) -> Row;
}

impl Examples for Vec<Row> {
    fn n_rows(&self) -> usize {
        self.len()
    }

    fn row(&self, index: usize, _: u64) -> Row {
        self[index].clone()
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps were done.
    Finished,
    /// The dev score no longer improved.
    StoppedEarly,
    /// Somebody asked it to stop; it can be resumed.
    Interrupted,
}

/// A training run.
pub struct Trainer<'a> {
    model: &'a LanguageModel,
    rows: &'a dyn Examples,
    settings: Settings,
    batches: Batches,
    state: State,
}

impl<'a> Trainer<'a> {
    /// A run from its beginning. `rows` are the training examples, their soft tokens rows of the prompt.
    pub fn new(
        model: &'a LanguageModel,
        rows: &'a dyn Examples,
        settings: Settings,
        initial: impl Into<Learner>,
    ) -> Trainer<'a> {
        let learner = initial.into();
        let optimizer = |p: &Parameter| settings.optimizer_of(p);
        let optimizers = learner.parameters().iter().map(optimizer).collect();
        let state = State { progress: Progress::default(), learner, best: None, optimizers };
        Trainer::resume(model, rows, settings, state)
    }

    /// A run from where `state` left it.
    pub fn resume(
        model: &'a LanguageModel,
        rows: &'a dyn Examples,
        settings: Settings,
        state: State,
    ) -> Trainer<'a> {
        let shuffle = settings.shuffle.then_some(settings.seed);
        let batches =
            Batches::new(rows.n_rows(), settings.batch.saturating_mul(settings.accumulate.max(1)), shuffle);
        Trainer { model, rows, settings, batches, state }
    }

    /// The state between two steps.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Trains to the end, or until `stop` is set.
    ///
    /// # Errors
    /// The loss is not a finite number, or the observer failed.
    pub fn run(
        &mut self,
        observer: &mut dyn Observer,
        mut evaluate: Option<&mut Evaluate<'_>>,
        stop: &AtomicBool,
    ) -> Result<Ending> {
        let mut ending = Ending::Finished;
        while self.state.progress.step < self.settings.steps {
            if self.state.progress.stopped_early {
                ending = Ending::StoppedEarly;
                break;
            }
            if stop.load(Ordering::Relaxed) {
                ending = Ending::Interrupted;
                break;
            }
            let report = self.step()?;
            observer.step(&report)?;
            if self.evaluation_is_due()
                && let Some(evaluate) = evaluate.as_mut()
            {
                self.evaluate(*evaluate, observer)?;
            }
            observer.checkpoint(&self.state, false)?;
        }
        tensor::device::settled().map_err(gpu_failed)?;
        observer.checkpoint(&self.state, true)?;
        Ok(ending)
    }

    /// What to use: of the best dev evaluation, or the last where there was none.
    pub fn best(&self) -> &Learner {
        self.state.best.as_ref().unwrap_or(&self.state.learner)
    }

    fn evaluation_is_due(&self) -> bool {
        let step = self.state.progress.step;
        step == self.settings.steps
            || self.settings.eval_every.is_some_and(|every| step.is_multiple_of(every.max(1)))
    }

    fn evaluate(&mut self, evaluate: &mut Evaluate<'_>, observer: &mut dyn Observer) -> Result<()> {
        let report = evaluate(self.state.progress.step, &self.state.learner)?;
        let progress = &mut self.state.progress;
        let improved = progress.best_score.is_none_or(|best| report.score > best);
        if improved {
            progress.best_score = Some(report.score);
            progress.best_step = Some(progress.step);
            progress.best_metrics = Some(report.metrics.clone());
            progress.evaluations_without_gain = 0;
            self.state.best = Some(self.state.learner.clone());
        } else {
            progress.evaluations_without_gain += 1;
            progress.stopped_early =
                self.settings.patience.is_some_and(|p| progress.evaluations_without_gain >= p);
        }
        observer.evaluated(&report, improved, &self.state.learner)
    }

    /// One optimizer step.
    ///
    /// # Errors
    /// The loss is not a finite number.
    pub fn step(&mut self) -> Result<StepReport> {
        let start = Instant::now();
        let step = self.state.progress.step;
        let epoch = self.batches.epoch(step);
        let mut rows: Vec<Row> = self.batches.at(step).iter().map(|&i| self.rows.row(i, epoch)).collect();
        let scored: usize = rows.iter().map(|row| row.scored.len()).sum();
        rows.iter_mut().for_each(|row| row.weight = 1.0 / scored as f32);
        let (mut grads, mut loss, mut computed_tokens) = (Vec::new(), 0.0, 0);
        for part in rows.chunks(self.settings.batch.max(1)) {
            let batch = PackedBatch::from_rows(self.model.family(), part);
            computed_tokens += batch.len();
            loss += self.accumulate(&batch, &mut grads);
        }
        let schedule = Schedule {
            lr: self.settings.lr,
            warmup: self.settings.warmup,
            steps: self.settings.steps,
            decay: self.settings.schedule,
        };
        let (lr, grad_norm) = (schedule.at(step), optimizer::clip(&mut grads, self.settings.clip));
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(self.not_finite(loss));
        }
        let State { learner, optimizers, .. } = &mut self.state;
        for ((parameter, optimizer), grad) in learner.parameters_mut().iter_mut().zip(optimizers).zip(grads) {
            optimizer.step(lr, &mut parameter.tensor, &grad);
        }
        tensor::device::check().map_err(gpu_failed)?;
        self.state.progress.step += 1;
        Ok(StepReport {
            step: step + 1,
            loss,
            lr,
            grad_norm,
            examples: rows.len(),
            tokens: rows.iter().map(Row::len).sum(),
            computed_tokens,
            scored_tokens: scored,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// Adds the batch's gradient to `grads`, or begins them; returns its loss.
    fn accumulate(&self, batch: &PackedBatch, grads: &mut Vec<Tensor>) -> f64 {
        let learner = &self.state.learner;
        on_pool(|| {
            let tape = if self.settings.recompute { Tape::recomputing() } else { Tape::new() };
            let leaf = |p: &Parameter| tape.parameter(p.tensor.clone());
            let leaves: Vec<Value> = learner.parameters().iter().map(leaf).collect();
            let (model, prompt) = learner.forward(&tape, self.model, &leaves);
            let loss = model.score(&tape, batch, prompt.as_ref()).loss;
            let mut found = tape.backward(&loss);
            if grads.is_empty() {
                *grads = leaves.iter().map(|leaf| found.take(leaf)).collect();
            } else {
                let sums = std::mem::take(grads).into_iter().zip(&leaves);
                *grads = sums.map(|(sum, leaf)| tensor::ops::sum(sum, found.take(leaf))).collect();
            }
            f64::from(loss.tensor().f32s()[0])
        })
    }

    fn not_finite(&self, loss: f64) -> Error {
        let step = self.state.progress.step + 1;
        Error::Failure(match self.model.explain_non_finite() {
            Some(why) => format!("the loss of step {step} is {loss}: {why}"),
            None => {
                format!("the loss of step {step} is {loss}: training diverged; try a lower --lr or --clip 1")
            }
        })
    }
}

/// What was computed on the GPU is not to be believed.
fn gpu_failed(why: tensor::Error) -> Error {
    Error::Failure(model::error::gpu_failed(&why))
}
