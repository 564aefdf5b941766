//! The comparison as one page.

use std::path::Path;

use super::plots::figures;
use super::summary::{Group, HEADS, count};
use super::{Comparison, Kind, Method, Summary, ranking};
use crate::atomic;
use crate::error::Result;
use crate::page::{self, Figure, document, duration, escaped, findings};

/// Writes the page, the old file or the new one.
///
/// # Errors
/// [`crate::Error::Write`].
pub fn write(comparison: &Comparison, summary: &Summary, path: &Path) -> Result<()> {
    atomic::write(path, html(comparison, summary).as_bytes())
}

/// The page.
pub fn html(comparison: &Comparison, summary: &Summary) -> String {
    let title = format!("Prompt tuning beside fine-tuning: {} with {}", comparison.task, comparison.model);
    let lead = format!(
        "{} rows of <code>{}</code>, {} cells, every training {} steps of at most {} examples.",
        comparison.n(),
        escaped(&comparison.data),
        comparison.cells.len(),
        comparison.steps,
        comparison.batch
    );
    let sections = [
        findings(&summary.findings),
        ranking::figure(summary).iter().map(Figure::html).collect(),
        table(summary),
        figures(comparison, summary).iter().map(Figure::html).collect(),
        methods(comparison),
        what_was_run(comparison),
    ];
    document(&title, &lead, &sections)
}

fn table(summary: &Summary) -> String {
    let rows: Vec<Vec<String>> = summary.groups.iter().map(Group::cells_of_table).collect();
    format!(
        "<section>\n<h2>All methods</h2>\n<p class=\"note\">rows: labelled rows the method has seen. accuracy: mean over the \
         seeds, with its standard deviation, and a 95 % bootstrap interval over rows and seeds. train-dev: accuracy on the \
         training rows less that on the measured ones, in points. trained: numbers that are moved. stored: the file that is \
         kept. s/step: the middle step. TFLOP: products with weights, all steps. memory: the most the process had. ppl \
         and others: what is forgotten, the change of perplexity on general text and, in points, of accuracy on other tasks, the \
         prompt in front.</p>\n\
         {}</section>\n",
        page::table(&HEADS, &rows, &[0])
    )
}

fn methods(comparison: &Comparison) -> String {
    let changes = |kind| match kind {
        Kind::Asked => "nothing",
        Kind::Prompt => "vectors in front of a frozen model",
        Kind::Weights => "weights",
    };
    let row = |method: &Method| {
        vec![method.name.clone(), changes(method.kind).to_string(), method.arguments.clone()]
    };
    let rows: Vec<Vec<String>> = comparison.methods.iter().map(row).collect();
    let table = page::table(&["method", "changes", "how"], &rows, &[0, 1, 2]);
    format!("<section>\n<h2>Methods</h2>\n{table}</section>\n")
}

fn what_was_run(comparison: &Comparison) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "not measured".into(), |x| format!("{x:.2}"));
    let others = comparison.others.iter().zip(&comparison.before.others);
    let others: Vec<String> = others.map(|(name, share)| format!("{name} {:.1} %", 100.0 * share)).collect();
    let entries = [
        ("Model", format!("{}, {} numbers", comparison.model, count(comparison.model_size))),
        ("Measured rows", format!("{}, {} rows", comparison.data, comparison.n())),
        ("Training rows from", format!("{}, {} rows", comparison.train, comparison.n_train)),
        ("Labels", comparison.labels.join(", ")),
        ("Budget", format!("{} steps of {} examples", comparison.steps, comparison.batch)),
        ("Seeds", page::seeds(comparison.cells.iter().map(|cell| cell.seed))),
        ("General text", comparison.general.clone().unwrap_or_else(|| "none".into())),
        ("Its perplexity before", number(comparison.before.perplexity)),
        ("Other tasks before", if others.is_empty() { "none".into() } else { others.join(", ") }),
        ("Machine", comparison.machine.clone()),
        ("Wall time", duration(comparison.seconds)),
    ];
    page::what_was_run(&comparison.command, &entries)
}
