//! Cells of several seeds together.

use serde::Serialize;

use super::{Cell, Comparison, Kind, Training, findings};
use crate::study::statistics::{self, Estimate, Outcomes, Spread};
use crate::text_table::aligned;

/// Seed of the bootstrap.
pub(super) const SEED: u64 = 0;

/// What a comparison says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// One per method and number of training rows, methods in their order.
    pub groups: Vec<Group>,
    /// What the numbers show, in sentences.
    pub findings: Vec<String>,
}

/// A method with so many training rows, over its seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Name of the method.
    pub method: String,
    /// What it changes.
    pub kind: Kind,
    /// Labelled rows it has seen.
    pub n_train: usize,
    /// Over the seeds.
    pub accuracy: Spread,
    /// Mean accuracy with its interval over rows and seeds.
    pub interval: Estimate,
    /// Accuracy on the training rows less that on the measured rows.
    pub gap: Option<Spread>,
    /// Perplexity on general text by that of the unadapted model, less 1.
    pub perplexity: Option<Spread>,
    /// Accuracy on the other tasks together less that of the unadapted model.
    pub others: Option<Spread>,
    /// What training cost: the middle one by time of the seeds.
    pub training: Option<Training>,
    /// Cells of the comparison.
    #[serde(skip)]
    pub cells: Vec<usize>,
}

impl Summary {
    /// Of a comparison that [`Comparison::check`] finds right.
    pub fn of(comparison: &Comparison) -> Summary {
        let mut summary = Summary { groups: groups(comparison), findings: Vec::new() };
        summary.findings = findings::findings(comparison, &summary);
        summary
    }

    /// Numbers of training rows that trained methods have, from few to many.
    pub fn sizes(&self) -> Vec<usize> {
        let trained = self.groups.iter().filter(|group| group.kind != Kind::Asked);
        let mut sizes: Vec<usize> = trained.map(|group| group.n_train).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// Names of the methods that were run, in their order.
    pub fn methods(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for group in &self.groups {
            if !names.contains(&group.method.as_str()) {
                names.push(&group.method);
            }
        }
        names
    }

    /// The table as text.
    pub fn table(&self) -> String {
        let rows: Vec<Vec<String>> = self.groups.iter().map(Group::cells_of_table).collect();
        aligned(&HEADS, &rows, |column| column > 0)
    }
}

/// Heads of the table.
pub(super) const HEADS: [&str; 14] = [
    "method",
    "rows",
    "seeds",
    "accuracy %",
    "sd",
    "95 % interval",
    "train-dev",
    "trained",
    "stored",
    "s/step",
    "TFLOP",
    "memory",
    "ppl %",
    "others",
];

impl Group {
    /// Whether it was asked, but in words that were chosen by labelled rows.
    pub(super) fn was_chosen(&self) -> bool {
        self.kind == Kind::Asked && self.gap.is_some()
    }

    /// One row of the table. The last columns are what is forgotten: the change of perplexity on general text, and of accuracy on
    /// other tasks.
    pub(super) fn cells_of_table(&self) -> Vec<String> {
        let dash = || "-".to_string();
        let points = |spread: &Spread| format!("{:+.1}", 100.0 * spread.mean);
        let training = self.training.as_ref();
        let of = |cell: &dyn Fn(&Training) -> String| training.map_or_else(dash, cell);
        vec![
            self.method.clone(),
            self.n_train.to_string(),
            self.accuracy.n.to_string(),
            format!("{:.1}", 100.0 * self.accuracy.mean),
            self.accuracy.sd.map_or_else(dash, |sd| format!("{:.1}", 100.0 * sd)),
            format!("{:.1} to {:.1}", 100.0 * self.interval.low, 100.0 * self.interval.high),
            self.gap.as_ref().map_or_else(dash, points),
            of(&|t| count(t.trained)),
            of(&|t| bytes(t.stored_bytes)),
            of(&|t| format!("{:.2}", t.seconds_per_step)),
            of(&|t| format!("{:.2}", t.flops / 1e12)),
            of(&|t| t.peak_rss_bytes.map_or_else(dash, bytes)),
            self.perplexity.as_ref().map_or_else(dash, |p| format!("{:+.0}", 100.0 * p.mean)),
            self.others.as_ref().map_or_else(dash, points),
        ]
    }
}

/// A count in three digits.
pub(super) fn count(n: u64) -> String {
    match n as f64 {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e4 => format!("{:.0} k", n / 1e3),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// Bytes in three digits.
pub(super) fn bytes(n: u64) -> String {
    match n as f64 {
        n if n >= 1e9 => format!("{:.2} GB", n / 1e9),
        n if n >= 1e6 => format!("{:.0} MB", n / 1e6),
        n => format!("{:.0} kB", n / 1e3),
    }
}

fn groups(comparison: &Comparison) -> Vec<Group> {
    let mut groups = Vec::new();
    for method in &comparison.methods {
        let of_method = || comparison.cells.iter().enumerate().filter(|(_, c)| c.method == method.name);
        let mut sizes: Vec<usize> = of_method().map(|(_, cell)| cell.n_train).collect();
        sizes.sort_unstable();
        sizes.dedup();
        for n_train in sizes {
            let cells = of_method().filter(|(_, c)| c.n_train == n_train).map(|(i, _)| i).collect();
            groups.extend(group(comparison, (&method.name, method.kind), n_train, cells));
        }
    }
    groups
}

fn group(
    comparison: &Comparison,
    (method, kind): (&str, Kind),
    n_train: usize,
    cells: Vec<usize>,
) -> Option<Group> {
    let all: Vec<&Cell> = cells.iter().map(|&i| &comparison.cells[i]).collect();
    let spread = |value: &dyn Fn(&Cell) -> Option<f64>| {
        Spread::of(&all.iter().filter_map(|c| value(c)).collect::<Vec<_>>())
    };
    let mut trainings: Vec<&Training> = all.iter().filter_map(|cell| cell.training.as_ref()).collect();
    trainings.sort_by(|a, b| a.seconds_per_step.total_cmp(&b.seconds_per_step));
    Some(Group {
        method: method.into(),
        kind,
        n_train,
        accuracy: spread(&|cell| Some(comparison.accuracy(cell)))?,
        interval: statistics::mean(&outcomes(comparison, &cells), SEED),
        gap: spread(&|cell| Some(cell.train_accuracy? - comparison.accuracy(cell))),
        perplexity: spread(&|cell| Some(cell.after.perplexity? / comparison.before.perplexity? - 1.0)),
        others: spread(&|cell| Some(mean(&cell.after.others)? - mean(&comparison.before.others)?)),
        training: trainings.get(trainings.len() / 2).map(|&t| t.clone()),
        cells,
    })
}

fn mean(values: &[f64]) -> Option<f64> {
    Spread::of(values).map(|spread| spread.mean)
}

/// 1 for each right row of the cells, for the bootstrap.
pub(super) fn outcomes(comparison: &Comparison, cells: &[usize]) -> Outcomes {
    let mut outcomes = Outcomes::new(comparison.n());
    for cell in cells.iter().map(|&i| &comparison.cells[i]) {
        outcomes.add(cell.seed, comparison.right(cell).map(|right| Some(f64::from(right))));
    }
    outcomes
}
