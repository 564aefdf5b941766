//! Prompt tuning beside fine-tuning: one task, one budget, several methods, seeds and training-set sizes.
//!
//! ```text
//! plan       which methods, and which cells (method × size × seed) there are
//! subset     the training rows of a cell
//! summary    cells of several seeds together: accuracy, overfitting, cost, forgetting
//! findings   what the numbers show, in sentences, common claims beside them
//! report     all of it as a page
//! scale      the same with models of several sizes
//! ```
//!
//! A [`Comparison`] is plain data, kept as `compare.json`. Each cell is measured in a process of its own, so that its peak
//! memory is its own.

mod findings;
pub mod plan;
mod plots;
mod ranking;
pub mod report;
pub mod scale;
pub mod subset;
pub mod summary;

#[cfg(test)]
mod tests;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::summary::Summary;
use crate::atomic;
use crate::error::{Error, Result};

/// All cells over the same rows, and where they come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the task.
    pub task: String,
    /// As it was given.
    pub model: String,
    /// Numbers in the model.
    pub model_size: u64,
    /// File of the measured rows.
    pub data: String,
    /// Training file.
    pub train: String,
    /// Rows of that file.
    pub n_train: usize,
    /// Names of the labels.
    pub labels: Vec<String>,
    /// Right label of each measured row.
    pub gold: Vec<usize>,
    /// The budget of every training run: optimizer steps.
    pub steps: u64,
    /// Examples of a step, or all where there are fewer.
    pub batch: usize,
    /// General text whose perplexity is measured, if any.
    pub general: Option<String>,
    /// Other tasks that are asked without training for them.
    pub others: Vec<String>,
    /// What the model does without adaptation.
    pub before: Side,
    /// What was compared.
    pub methods: Vec<Method>,
    /// The command that repeats it.
    pub command: String,
    /// Processor, threads and the like, in words.
    pub machine: String,
    /// Wall time of all cells.
    pub seconds: f64,
    /// One per method, size and seed.
    pub cells: Vec<Cell>,
}

/// One of the methods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// As in tables.
    pub name: String,
    /// What it changes.
    pub kind: Kind,
    /// How it is asked for on the command line.
    pub arguments: String,
}

/// What a method changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nothing: words in front of the text.
    Asked,
    /// Trained vectors in front of a frozen model.
    Prompt,
    /// The model's weights, or some of them.
    Weights,
}

/// One method with one draw of training rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Name of the method.
    pub method: String,
    /// Labelled rows it has seen.
    pub n_train: usize,
    /// Seed of their choice and of training.
    pub seed: u64,
    /// Label of each measured row.
    pub predicted: Vec<usize>,
    /// Accuracy on the rows it was trained on, or on as many of them as were asked.
    pub train_accuracy: Option<f64>,
    /// Wording that was chosen, where there was a choice.
    pub wording: Option<String>,
    /// What training cost, where there was any.
    pub training: Option<Training>,
    /// What the adapted model does elsewhere.
    pub after: Side,
    /// Wall time of the whole cell.
    pub seconds: f64,
}

/// What training cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Optimizer steps.
    pub steps: u64,
    /// Numbers that were trained.
    pub trained: u64,
    /// Bytes of the file that is kept.
    pub stored_bytes: u64,
    /// Wall time of the steps.
    pub seconds: f64,
    /// Middle one of the steps.
    pub seconds_per_step: f64,
    /// Multiplications and additions in products with weights, all steps.
    pub flops: f64,
    /// Most memory the process had.
    pub peak_rss_bytes: Option<u64>,
}

/// What a model does besides the task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// On general text.
    pub perplexity: Option<f64>,
    /// Accuracy on each other task.
    pub others: Vec<f64>,
}

/// Share of rows whose predicted label is the right one.
pub fn share_right(predicted: &[usize], gold: &[usize]) -> f64 {
    let right = predicted.iter().zip(gold).filter(|(predicted, gold)| predicted == gold).count();
    right as f64 / gold.len() as f64
}

impl Comparison {
    /// Number of measured rows.
    pub fn n(&self) -> usize {
        self.gold.len()
    }

    /// Which rows of a cell are right.
    pub fn right<'a>(&'a self, cell: &'a Cell) -> impl Iterator<Item = bool> + 'a {
        self.gold.iter().zip(&cell.predicted).map(|(gold, predicted)| gold == predicted)
    }

    /// Share of right rows of a cell.
    pub fn accuracy(&self, cell: &Cell) -> f64 {
        share_right(&cell.predicted, &self.gold)
    }

    /// Writes `compare.json`, the old file or the new one.
    ///
    /// # Errors
    /// [`Error::Write`]; [`Error::Failure`] for a comparison that contradicts itself.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.check().map_err(|why| Error::Failure(format!("the comparison is not written: {why}")))?;
        atomic::write_json(path, self)
    }

    /// Reads what [`Comparison::write`] wrote.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::File`] for what is no comparison, or one that contradicts itself.
    pub fn read(path: &Path) -> Result<Comparison> {
        let read: Comparison = atomic::read_json(path)?;
        read.check().map_err(|why| Error::file(path, why))?;
        Ok(read)
    }

    /// That lengths agree, and that methods and labels exist.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> std::result::Result<(), String> {
        if self.gold.is_empty() || self.cells.is_empty() {
            return Err("it has no rows or no cells".into());
        }
        let known = |label: &usize| *label < self.labels.len();
        if !self.gold.iter().all(known) {
            return Err("a right label is not among the labels".into());
        }
        for cell in &self.cells {
            let Cell { method, predicted, .. } = cell;
            let others = cell.after.others.len();
            if !self.methods.iter().any(|m| m.name == *method) {
                return Err(format!("`{method}` is not among the methods"));
            }
            if predicted.len() != self.n() || !predicted.iter().all(known) {
                return Err(format!("`{method}`: not one known label per row"));
            }
            if others != 0 && others != self.others.len() {
                return Err(format!("`{method}`: not one accuracy per other task"));
            }
        }
        Ok(())
    }
}
