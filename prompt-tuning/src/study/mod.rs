//! What came out of a zero/few-shot study: the runs, what they say, and the page that shows it.
//!
//! A [`Study`] is plain data, kept as `study.json`. [`summary::Summary`] groups its runs and compares them, with
//! [`statistics`] that tell a difference from noise, and [`report::html`] makes one page of both.

pub mod conduct;
pub mod metrics;
mod plots;
pub mod report;
pub mod statistics;
pub mod summary;

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

pub use self::metrics::{RunMetrics, Scored};
pub use self::summary::Summary;
use crate::atomic;
use crate::error::{Error, Result};

/// All runs of a study over the same rows, and where they come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Study {
    /// Name of the task.
    pub task: String,
    /// As it was given.
    pub model: String,
    /// File of the evaluated rows.
    pub data: String,
    /// File of the demonstrations.
    pub train: String,
    /// Rows of that file.
    pub n_train: usize,
    /// Names of the labels.
    pub labels: Vec<String>,
    /// Right label of each evaluated row.
    pub gold: Vec<usize>,
    /// The command that repeats it.
    pub command: String,
    /// Processor, threads and the like, in words.
    pub machine: String,
    /// Wall time of all runs.
    pub seconds: f64,
    /// Tokens that went through the model.
    pub computed_tokens: u64,
    /// Tokens that runs on their own would have computed, row by row.
    pub plain_tokens: u64,
    /// One per condition, seed and order.
    pub runs: Vec<Run>,
}

/// One pass over all rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Name of the template.
    pub template: String,
    /// Demonstrations in front of a row: the fewest of any row.
    pub shots: usize,
    /// Demonstrations that were asked for; more than `shots` where the context window holds fewer.
    pub requested_shots: usize,
    /// Seed of the choice.
    pub seed: u64,
    /// Which of the orders tried with this seed, from 0.
    pub order: usize,
    /// The order itself: place `i` has demonstration `permutation[i]` of those chosen. Empty where rows differ.
    pub permutation: Vec<usize>,
    /// How demonstrations were chosen.
    pub choice: String,
    /// How they were ordered.
    pub ordering: String,
    /// As in task files: `none`, `contextual` or `pmi`.
    pub calibration: String,
    /// Labels of the demonstrations, first to last.
    pub demonstration_labels: DemonstrationLabels,
    /// Label of each row.
    pub predicted: Vec<usize>,
    /// Its probability among the labels.
    #[serde(deserialize_with = "numbers")]
    pub probability: Vec<f64>,
    /// How good that is.
    pub metrics: RunMetrics,
}

/// Labels of the demonstrations in front of a row, first to last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DemonstrationLabels {
    /// The same for all rows.
    Shared(Vec<usize>),
    /// Of each row its own.
    PerRow(Vec<Vec<usize>>),
}

impl DemonstrationLabels {
    /// Those in front of row `i`.
    pub fn of_row(&self, i: usize) -> &[usize] {
        match self {
            DemonstrationLabels::Shared(labels) => labels,
            DemonstrationLabels::PerRow(rows) => &rows[i],
        }
    }
}

impl Study {
    /// Number of evaluated rows.
    pub fn n(&self) -> usize {
        self.gold.len()
    }

    /// Which rows of a run are right.
    pub fn right<'a>(&'a self, run: &'a Run) -> impl Iterator<Item = bool> + 'a {
        self.gold.iter().zip(&run.predicted).map(|(gold, predicted)| gold == predicted)
    }

    /// Writes `study.json`, the old file or the new one.
    ///
    /// # Errors
    /// [`Error::Write`]; [`Error::Failure`] for a study that contradicts itself.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.check().map_err(|why| Error::Failure(format!("the study is not written: {why}")))?;
        atomic::write_json(path, self)
    }

    /// Reads what [`Study::write`] wrote.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::File`] for what is no study, or one that contradicts itself.
    pub fn read(path: &Path) -> Result<Study> {
        let study: Study = atomic::read_json(path)?;
        study.check().map_err(|why| Error::file(path, why))?;
        Ok(study)
    }

    /// That lengths agree, labels exist and accuracies are those of the predictions.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.gold.is_empty() || self.runs.is_empty() {
            return Err("it has no rows or no runs".into());
        }
        let known = |label: &usize| *label < self.labels.len();
        if !self.gold.iter().all(known) {
            return Err("a right label is not among the labels".into());
        }
        self.runs
            .iter()
            .enumerate()
            .try_for_each(|(i, run)| self.check_run(run, known).map_err(|why| format!("run {i}: {why}")))
    }

    fn check_run(&self, run: &Run, known: impl Fn(&usize) -> bool) -> Result<(), &'static str> {
        if run.predicted.len() != self.n() || run.probability.len() != self.n() {
            return Err("not one prediction and probability per row");
        }
        let of_demonstrations = match &run.demonstration_labels {
            DemonstrationLabels::Shared(labels) => labels.iter().all(&known),
            DemonstrationLabels::PerRow(rows) if rows.len() != self.n() => {
                return Err("not one list of demonstrations per row");
            }
            DemonstrationLabels::PerRow(rows) => rows.iter().flatten().all(&known),
        };
        if !run.predicted.iter().all(&known) || !of_demonstrations {
            return Err("a label is not among the labels");
        }
        let accuracy = self.right(run).filter(|&right| right).count() as f64 / self.n() as f64;
        if (accuracy - run.metrics.accuracy).abs() <= 1e-9 {
            Ok(())
        } else {
            Err("its accuracy is not that of its predictions")
        }
    }
}

/// The command line of this process.
pub fn command() -> String {
    std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// What it runs on: processor and threads, in words.
pub fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    format!("{model}, {} threads", rayon::current_num_threads())
}

/// JSON has no NaN and no infinity: they are written as null, which is read as NaN.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let values = Vec::<Option<f64>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|x| x.unwrap_or(f64::NAN)).collect())
}

#[cfg(test)]
mod example;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_study_is_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("study.json");
        let study = example::study();
        study.write(&path).unwrap();
        assert_eq!(Study::read(&path).unwrap(), study);
    }

    #[test]
    fn a_loss_that_is_no_number_is_read_as_nan() {
        let mut study = example::study();
        study.runs[0].metrics.loss = f64::INFINITY;
        study.runs[0].probability[0] = f64::NAN;
        let again: Study = serde_json::from_str(&serde_json::to_string(&study).unwrap()).unwrap();
        assert!(again.runs[0].metrics.loss.is_nan() && again.runs[0].probability[0].is_nan());
    }

    #[test]
    fn contradictions_are_found() {
        let broken = |change: fn(&mut Study)| {
            let mut study = example::study();
            change(&mut study);
            study.check().unwrap_err()
        };
        assert!(broken(|s| s.runs.clear()).contains("no runs"));
        assert!(broken(|s| s.gold[0] = 9).contains("right label"));
        assert!(broken(|s| s.runs[1].predicted.truncate(3)).starts_with("run 1: not one prediction"));
        assert!(broken(|s| s.runs[0].metrics.accuracy += 0.1).contains("accuracy"));
        assert!(broken(|s| s.runs[0].metrics.accuracy = f64::NAN).contains("accuracy"));
        let unknown = |s: &mut Study| s.runs[0].demonstration_labels = DemonstrationLabels::Shared(vec![7]);
        assert!(broken(unknown).contains("a label"));
        let few = |s: &mut Study| s.runs[0].demonstration_labels = DemonstrationLabels::PerRow(vec![vec![0]]);
        assert!(broken(few).contains("per row"));
    }
}
