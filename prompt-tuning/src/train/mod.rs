//! Training a soft prompt: the loop, and what it keeps.
//!
//! A step packs its examples into a prefix forest, runs the frozen model over it, goes backward to the prompt and what
//! makes it, and lets the optimizer move that. Nothing else ever changes.

pub mod batches;
pub mod memory;
pub mod optimizer;
pub mod run_folder;
pub mod schedule;
pub mod state;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use autograd::Tape;
use kernels::threads::on_pool;
use model::{LanguageModel, PackedBatch, Row};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::prompt_encoder::{Method, Parameter, PromptEncoder};
use crate::soft_prompt::SoftPrompt;
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
    /// What is trained.
    #[serde(default)]
    pub method: Method,
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
        }
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
    fn evaluated(&mut self, report: &DevReport, improved: bool, prompt: &SoftPrompt) -> Result<()>;
    /// The run can be continued from here.
    ///
    /// # Errors
    /// As for [`Observer::step`].
    fn checkpoint(&mut self, state: &State, last: bool) -> Result<()>;
}

/// Evaluates a prompt: `(step, prompt) -> report`.
pub type Evaluate<'a> = dyn FnMut(u64, &SoftPrompt) -> Result<DevReport> + 'a;

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
    rows: &'a [Row],
    settings: Settings,
    batches: Batches,
    state: State,
}

impl<'a> Trainer<'a> {
    /// A run from its beginning. `rows` are the training examples, their soft tokens rows of the prompt.
    pub fn new(
        model: &'a LanguageModel,
        rows: &'a [Row],
        settings: Settings,
        initial: impl Into<PromptEncoder>,
    ) -> Trainer<'a> {
        let encoder = initial.into();
        let optimizer = |p: &Parameter| Optimizer::new(settings.optimizer, settings.weight_decay, &p.shape);
        let optimizers = encoder.parameters.iter().map(optimizer).collect();
        let state = State { progress: Progress::default(), encoder, best: None, optimizers };
        Trainer::resume(model, rows, settings, state)
    }

    /// A run from where `state` left it.
    pub fn resume(
        model: &'a LanguageModel,
        rows: &'a [Row],
        settings: Settings,
        state: State,
    ) -> Trainer<'a> {
        let shuffle = settings.shuffle.then_some(settings.seed);
        let batches =
            Batches::new(rows.len(), settings.batch.saturating_mul(settings.accumulate.max(1)), shuffle);
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
        observer.checkpoint(&self.state, true)?;
        Ok(ending)
    }

    /// The prompt to use: of the best dev evaluation, or the last where there was none.
    pub fn best_prompt(&self) -> SoftPrompt {
        self.state.best.as_ref().unwrap_or(&self.state.encoder).prompt()
    }

    fn evaluation_is_due(&self) -> bool {
        let step = self.state.progress.step;
        step == self.settings.steps
            || self.settings.eval_every.is_some_and(|every| step.is_multiple_of(every.max(1)))
    }

    fn evaluate(&mut self, evaluate: &mut Evaluate<'_>, observer: &mut dyn Observer) -> Result<()> {
        let prompt = self.state.encoder.prompt();
        let report = evaluate(self.state.progress.step, &prompt)?;
        let progress = &mut self.state.progress;
        let improved = progress.best_score.is_none_or(|best| report.score > best);
        if improved {
            progress.best_score = Some(report.score);
            progress.best_step = Some(progress.step);
            progress.best_metrics = Some(report.metrics.clone());
            progress.evaluations_without_gain = 0;
            self.state.best = Some(self.state.encoder.clone());
        } else {
            progress.evaluations_without_gain += 1;
            progress.stopped_early =
                self.settings.patience.is_some_and(|p| progress.evaluations_without_gain >= p);
        }
        observer.evaluated(&report, improved, &prompt)
    }

    /// One optimizer step.
    ///
    /// # Errors
    /// The loss is not a finite number.
    pub fn step(&mut self) -> Result<StepReport> {
        let start = Instant::now();
        let step = self.state.progress.step;
        let examples = self.batches.at(step).to_vec();
        let scored: usize = examples.iter().map(|&i| self.rows[i].scored.len()).sum();
        let parameters = &self.state.encoder.parameters;
        let mut grads: Vec<Vec<f32>> = parameters.iter().map(|p| vec![0.0; p.values.len()]).collect();
        let (mut loss, mut computed_tokens) = (0.0, 0);
        for part in examples.chunks(self.settings.batch.max(1)) {
            let weight = 1.0 / scored as f32;
            let rows: Vec<Row> = part.iter().map(|&i| Row { weight, ..self.rows[i].clone() }).collect();
            let batch = PackedBatch::from_rows(self.model.family(), &rows);
            computed_tokens += batch.len();
            loss += self.accumulate(&batch, &mut grads);
        }
        if !loss.is_finite() || grads.iter().flatten().any(|g| !g.is_finite()) {
            return Err(self.not_finite(loss));
        }
        let schedule = Schedule {
            lr: self.settings.lr,
            warmup: self.settings.warmup,
            steps: self.settings.steps,
            decay: self.settings.schedule,
        };
        let (lr, grad_norm) = (schedule.at(step), optimizer::clip(&mut grads, self.settings.clip));
        let State { encoder, optimizers, .. } = &mut self.state;
        for ((parameter, optimizer), grad) in encoder.parameters.iter_mut().zip(optimizers).zip(&grads) {
            optimizer.step(lr, &mut parameter.values, grad);
        }
        self.state.progress.step += 1;
        Ok(StepReport {
            step: step + 1,
            loss,
            lr,
            grad_norm,
            examples: examples.len(),
            tokens: examples.iter().map(|&i| self.rows[i].len()).sum(),
            computed_tokens,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// Adds the batch's gradient to `grads`; returns its loss.
    fn accumulate(&self, batch: &PackedBatch, grads: &mut [Vec<f32>]) -> f64 {
        let encoder = &self.state.encoder;
        on_pool(|| {
            let tape = if self.settings.recompute { Tape::recomputing() } else { Tape::new() };
            let leaves = encoder.leaves(&tape);
            let prompt = encoder.forward(&tape, &leaves);
            let loss = self.model.score(&tape, batch, Some(&prompt)).loss;
            let mut found = tape.backward(&loss);
            for (grad, leaf) in grads.iter_mut().zip(&leaves) {
                grad.iter_mut().zip(found.take(leaf).f32s()).for_each(|(g, d)| *g += d);
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
