//! The output folder of a run: the adapter, `metrics.jsonl`, the training state and the picture.
//!
//! Every file is replaced as a whole (written beside, synced, renamed), except `metrics.jsonl`, to which lines are
//! added; a resumed run first drops the lines that are younger than its state.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::state::{self, State};
use super::{DevReport, Settings, StepReport};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::plot::{self, Curves};
use crate::{adapter, atomic, checkpoint_folder};

/// Name of the log.
pub const METRICS: &str = "metrics.jsonl";
/// Name of the picture.
pub const PICTURE: &str = "training.svg";

/// What to do with a folder that already holds a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Keep,
    /// Go on with it.
    Resume,
    /// Throw it away.
    Overwrite,
}

impl Existing {
    /// What `--resume` and `--overwrite` ask for.
    pub fn of(resume: bool, overwrite: bool) -> Existing {
        match (resume, overwrite) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Overwrite,
            _ => Existing::Keep,
        }
    }
}

/// An output folder.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    settings: Settings,
    inputs: String,
    metrics: Option<File>,
}

impl RunFolder {
    /// Opens or makes the folder. `inputs` names model, task and data; a resumed run must have the same.
    ///
    /// # Errors
    /// It cannot be made or written, or holds another run.
    pub fn open(path: &Path, settings: &Settings, inputs: &str, existing: Existing) -> Result<RunFolder> {
        atomic::prepare_folder(path)?;
        let ours =
            || [METRICS, PICTURE, state::FILE, checkpoint_folder::WEIGHTS].into_iter().chain(adapter::FILES);
        let found = ours().find(|name| path.join(name).exists());
        match (existing, found) {
            (Existing::Keep, Some(name)) => {
                return Err(Error::Input(format!(
                    "`{}` already holds a run (`{name}`); continue it with --resume, replace it with --overwrite, or choose another --out",
                    path.display()
                )));
            }
            // the log and the state of a run are found before its weights
            (Existing::Overwrite, Some(checkpoint_folder::WEIGHTS)) => {
                return Err(Error::Input(format!(
                    "--overwrite: `{}` holds a model that no run here has made; choose another --out",
                    path.display()
                )));
            }
            (Existing::Overwrite, Some(_)) => {
                for name in ours().filter(|name| path.join(name).exists()) {
                    fs::remove_file(path.join(name)).map_err(|e| Error::write(&path.join(name), e))?;
                }
            }
            _ => {}
        }
        Ok(RunFolder {
            path: path.to_path_buf(),
            settings: settings.clone(),
            inputs: inputs.into(),
            metrics: None,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state to go on from, of a run that began with `initial`, and the log cut back to it; `None` when the run has
    /// not saved one yet.
    ///
    /// # Errors
    /// The state is damaged or of another run.
    pub fn load_state(&mut self, initial: &Learner) -> Result<Option<State>> {
        let state = State::load(&self.path, &self.settings, &self.inputs, initial)?;
        let foreign = || {
            adapter::FILES.iter().any(|name| self.path.join(name).exists())
                && !self.path.join(METRICS).exists()
        };
        if state.is_none() && foreign() {
            return Err(Error::Input(format!(
                "--resume: `{}` holds a prompt but no run; start from that prompt with --init, in another --out",
                self.path.display()
            )));
        }
        let step = state.as_ref().map_or(0, |s| s.progress.step);
        let keep = |line: &&str| {
            let value: Option<Value> = serde_json::from_str(line).ok();
            value.and_then(|v| v["step"].as_u64()).is_some_and(|s| s <= step)
        };
        let old = fs::read_to_string(self.path.join(METRICS)).unwrap_or_default();
        let kept: String = old.lines().filter(keep).flat_map(|line| [line, "\n"]).collect();
        atomic::write(&self.path.join(METRICS), kept.as_bytes())?;
        Ok(state)
    }

    /// Adds a line to the log.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn log(&mut self, line: &impl Serialize) -> Result<()> {
        let failed = |e: &dyn std::fmt::Display| Error::Failure(format!("cannot write `{METRICS}`: {e}"));
        let mut text = serde_json::to_string(line).map_err(|e| failed(&e))?;
        text.push('\n');
        if self.metrics.is_none() {
            let file = OpenOptions::new().create(true).append(true).open(self.path.join(METRICS));
            self.metrics = Some(file.map_err(|e| failed(&e))?);
        }
        match &mut self.metrics {
            Some(file) => file.write_all(text.as_bytes()).map_err(|e| failed(&e)),
            None => Ok(()),
        }
    }

    /// Adds a step to the log.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn log_step(&mut self, report: &StepReport) -> Result<()> {
        self.log(report)
    }

    /// Adds an evaluation to the log.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn log_dev(&mut self, report: &DevReport) -> Result<()> {
        self.log(&serde_json::json!({ "step": report.step, "dev": report.metrics }))
    }

    /// Saves the state.
    ///
    /// # Errors
    /// It cannot be written; the older one is still there.
    pub fn save_state(&self, state: &State) -> Result<()> {
        state.save(&self.path, &self.settings, &self.inputs)
    }

    /// Draws the log as a picture.
    ///
    /// # Errors
    /// The log cannot be read or the picture not be written.
    pub fn draw(&self, title: &str, metric_name: &str) -> Result<PathBuf> {
        let text = fs::read_to_string(self.path.join(METRICS)).unwrap_or_default();
        let mut curves = Curves { title: title.into(), metric_name: metric_name.into(), ..Curves::default() };
        for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let Some(step) = line["step"].as_u64() else { continue };
            curves.loss.extend(line["loss"].as_f64().map(|loss| (step, loss)));
            curves.metric.extend(line["dev"][metric_name].as_f64().map(|m| (step, m)));
        }
        let path = self.path.join(PICTURE);
        let svg = plot::svg(&curves).map_err(|e| Error::Failure(format!("cannot draw the run: {e}")))?;
        atomic::write(&path, svg.as_bytes())?;
        Ok(path)
    }
}
