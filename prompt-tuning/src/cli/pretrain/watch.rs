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
    tokens: usize,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        args: &'a PretrainArgs,
        material: &'a Material,
        folder: &'a mut RunFolder,
    ) -> Watch<'a> {
        let progress = Progress::new("pretrain", args.steps, args.common.json);
        Watch { args, material, folder, progress, tokens: 0 }
    }

    /// Says what is about to happen.
    pub(super) fn begin(&self, first: u64) {
        if self.args.common.json {
            return;
        }
        let Material { shape, n_documents, n_tokens, examples, valid, .. } = self.material;
        self.progress.note(format!(
            "{n_documents} documents; {n_tokens} training tokens in {} blocks, {} for validation; vocabulary {}",
            examples.n_rows(),
            valid.len(),
            shape.vocab_size
        ));
        let epochs = (self.args.steps * (self.args.batch * self.args.accumulate) as u64) as f64
            / examples.n_rows() as f64;
        self.progress.note(format!(
            "{} layers, d_model {}, {} parameters, {epochs:.1} epochs",
            shape.n_layers,
            shape.d_model,
            shape.n_parameters()
        ));
        if first > 0 {
            self.progress.note(format!("going on after step {first}"));
        }
    }

    /// Takes the progress away; says how many tokens this process has seen.
    pub(super) fn finish(self) -> usize {
        self.progress.finish();
        self.tokens
    }
}

impl Observer for Watch<'_> {
    fn step(&mut self, report: &StepReport) -> Result<()> {
        self.tokens += report.tokens;
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
