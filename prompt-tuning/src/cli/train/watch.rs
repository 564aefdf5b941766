//! Watching a run: progress on the terminal or JSON lines, the log, the state, and the best prompt on disk.

use serde_json::{Value, json};

use super::TrainArgs;
use super::inputs::Inputs;
use crate::cli::print_json;
use crate::cli::progress::Progress;
use crate::error::Result;
use crate::learner::Learner;
use crate::prompt_encoder::Method;
use crate::train::cost::Cost;
use crate::train::run_folder::RunFolder;
use crate::train::state::State;
use crate::train::{DevReport, Observer, Settings, StepReport};

/// Observer of a run from the command line.
pub(super) struct Watch<'a> {
    args: &'a TrainArgs,
    inputs: &'a Inputs,
    folder: &'a mut RunFolder,
    progress: Progress,
    total: u64,
    method: Method,
    cost: Cost,
    done: Done,
}

/// What this process has done.
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    pub examples: usize,
    /// Multiplications and additions in products with weights.
    pub flops: f64,
    /// Of each step.
    pub seconds: Vec<f64>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        args: &'a TrainArgs,
        inputs: &'a Inputs,
        folder: &'a mut RunFolder,
        (settings, cost): (&Settings, Cost),
    ) -> Watch<'a> {
        let (total, method) = (settings.steps, settings.method);
        let progress = Progress::new("train", total, args.common.json);
        Watch { args, inputs, folder, progress, total, method, cost, done: Done::default() }
    }

    /// Says what is about to happen.
    pub(super) fn begin(&mut self, inputs: &Inputs, state: &State, resumed_at: Option<u64>) {
        if self.args.common.json {
            return;
        }
        let config = inputs.session.model.config();
        let what = match &state.learner {
            Learner::Prompt(encoder) => {
                format!("frozen; training {} numbers for {} virtual tokens", encoder.len(), inputs.n_tokens())
            }
            Learner::Weights(weights) => {
                let (n, tensors) = (state.learner.len(), weights.parameters.len());
                format!("its file is only read; training copies of {n} numbers in {tensors} weights")
            }
        };
        self.progress.note(format!(
            "{}: {} layers, d_model {}, {what} on {} examples",
            inputs.session.name,
            config.n_layers,
            config.d_model,
            inputs.rows.len()
        ));
        if self.args.resume {
            self.progress.note(match resumed_at {
                Some(step) => format!("going on after step {step}"),
                None => "nothing was saved yet: starting at the first step".into(),
            });
        }
    }

    fn save_every(&self) -> u64 {
        let weights = self.args.method == super::Method::Full;
        self.args.save_every.unwrap_or(if weights { 500 } else { 10 })
    }

    /// Takes the progress away; says what this process has done.
    pub(super) fn finish(self) -> Done {
        self.progress.finish();
        self.done
    }
}

impl Observer for Watch<'_> {
    fn step(&mut self, report: &StepReport) -> Result<()> {
        self.done.examples += report.examples;
        self.done.flops += self.cost.flops(report.computed_tokens, report.scored_tokens);
        self.done.seconds.push(report.seconds);
        self.folder.log_step(report)?;
        if self.args.common.json {
            return print_json(report);
        }
        let rate = report.examples as f64 / report.seconds;
        self.progress.at(report.step, format!("loss {:.4}  {rate:.1} examples/s", report.loss));
        Ok(())
    }

    fn evaluated(&mut self, report: &DevReport, improved: bool, learner: &Learner) -> Result<()> {
        self.folder.log_dev(report)?;
        if improved {
            self.inputs.write(self.args, self.method, learner, report.step)?;
        }
        if self.args.common.json {
            return print_json(&json!({ "step": report.step, "dev": report.metrics }));
        }
        let name = self.inputs.metric_name();
        let value = report.metrics.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let mark = if improved { "  best so far" } else { "" };
        self.progress.note(format!("step {}: dev {name} {value:.4}{mark}", report.step));
        Ok(())
    }

    fn checkpoint(&mut self, state: &State, last: bool) -> Result<()> {
        let step = state.progress.step;
        if self.args.no_state {
            return Ok(());
        }
        if last || (step.is_multiple_of(self.save_every()) && step < self.total) {
            self.folder.save_state(state)?;
        }
        Ok(())
    }
}
