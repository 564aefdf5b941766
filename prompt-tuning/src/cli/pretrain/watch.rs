//! Watching a run of `pretrain`: progress or JSON lines, the log, the state.

use serde_json::{Value, json};

use super::PretrainArgs;
use super::material::Material;
use crate::cli::print_json;
use crate::cli::progress::Progress;
use crate::error::Result;
use crate::learner::Learner;
use crate::train::run_folder::RunFolder;
use crate::train::state::State;
use crate::train::{DevReport, Observer, StepReport};

pub(super) struct Watch<'a> {
    args: &'a PretrainArgs,
    material: &'a Material,
    folder: &'a mut RunFolder,
    progress: Progress,
    done: Done,
}

/// What this process has gone through.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    pub tokens: usize,
    pub scored_tokens: usize,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        args: &'a PretrainArgs,
        material: &'a Material,
        folder: &'a mut RunFolder,
    ) -> Watch<'a> {
        let progress = Progress::new("pretrain", args.steps, args.common.json);
        Watch { args, material, folder, progress, done: Done::default() }
    }

    /// Says what is about to happen.
    pub(super) fn begin(&self, first: u64, n_parameters: usize) {
        if self.args.common.json {
            return;
        }
        let Material { model, n_documents, n_tokens, examples, valid, .. } = self.material;
        let config = model.config();
        self.progress.note(format!(
            "{n_documents} documents; {n_tokens} training tokens in {} blocks, {} for validation; vocabulary {}",
            examples.n_rows(),
            valid.len(),
            config.vocab_size
        ));
        let epochs = (self.args.steps * (self.args.batch * self.args.accumulate) as u64) as f64
            / examples.n_rows() as f64;
        self.progress.note(format!(
            "{} layers, d_model {}, {n_parameters} parameters, {epochs:.1} epochs",
            config.n_layers, config.d_model,
        ));
        if first > 0 {
            self.progress.note(format!("going on after step {first}"));
        }
    }

    /// Takes the progress away; says what this process has gone through.
    pub(super) fn finish(self) -> Done {
        self.progress.finish();
        self.done
    }
}

impl Observer for Watch<'_> {
    fn step(&mut self, report: &StepReport) -> Result<()> {
        self.done.tokens += report.tokens;
        self.done.scored_tokens += report.scored_tokens;
        self.folder.log(report)?;
        if self.args.common.json {
            return print_json(report);
        }
        let rate = report.tokens as f64 / report.seconds;
        self.progress.at(report.step, format!("loss {:.4}  {rate:.0} tokens/s", report.loss));
        Ok(())
    }

    fn evaluated(&mut self, report: &DevReport, improved: bool, _: &Learner) -> Result<()> {
        self.folder.log_dev(report)?;
        if self.args.common.json {
            return print_json(&json!({ "step": report.step, "valid": report.metrics }));
        }
        let number = |name: &str| report.metrics.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let mark = if improved { "  best so far" } else { "" };
        self.progress.note(format!(
            "step {}: validation loss {:.4}, perplexity {:.2}{mark}",
            report.step,
            number("loss"),
            number("perplexity")
        ));
        Ok(())
    }

    fn checkpoint(&mut self, state: &State, last: bool) -> Result<()> {
        let step = state.progress.step;
        if last || (step.is_multiple_of(self.args.save_every) && step < self.args.steps) {
            self.folder.save_state(state)?;
        }
        Ok(())
    }
}
