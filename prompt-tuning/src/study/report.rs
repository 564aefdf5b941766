//! The study as one page: HTML with its drawings and style inside, which refers to nothing outside of it and runs no
//! script.

use std::fmt::Write;
use std::path::Path;

use super::plots::figures;
use super::statistics::Estimate;
use super::summary::Comparison;
use super::{Study, Summary};
use crate::atomic;
use crate::error::Result;
use crate::page::{self, Figure, document, duration, escaped, findings, seeds, thousands};

/// Writes the page, the old file or the new one.
///
/// # Errors
/// [`crate::Error::Write`].
pub fn write(study: &Study, summary: &Summary, path: &Path) -> Result<()> {
    atomic::write(path, html(study, summary).as_bytes())
}

/// The page.
pub fn html(study: &Study, summary: &Summary) -> String {
    let title = format!("Zero- and few-shot study: {} with {}", study.task, study.model);
    let sections = [
        findings(&summary.findings),
        what_was_run(study),
        conditions(summary),
        figures(study, summary).iter().map(Figure::html).collect(),
        confusion(study, summary),
        comparisons(summary),
    ];
    document(&title, &lead(study), &sections)
}

fn lead(study: &Study) -> String {
    let demonstrations = match study.n_train {
        0 => "no demonstrations".into(),
        n => format!("demonstrations from {n} rows of <code>{}</code>", escaped(&study.train)),
    };
    let (n, data) = (study.n(), escaped(&study.data));
    format!("{n} rows of <code>{data}</code>, {} runs, {demonstrations}.", study.runs.len())
}

fn conditions(summary: &Summary) -> String {
    let n_names = summary.n_names();
    let class = |i: usize| if i < n_names { " class=\"name\"" } else { "" };
    let heads = summary.columns().into_iter().enumerate();
    let heads: String = heads.map(|(i, head)| format!("<th{}>{head}</th>", class(i))).collect();
    let mut rows = String::new();
    for (group, cells) in summary.cells().iter().enumerate() {
        let best = if group == summary.best { " class=\"best\"" } else { "" };
        let cells = cells.iter().enumerate();
        let cells: String =
            cells.map(|(i, cell)| format!("<td{}>{}</td>", class(i), escaped(cell))).collect();
        let _ = writeln!(rows, "<tr{best}>{cells}</tr>");
    }
    format!(
        "<section>\n<h2>All conditions</h2>\n<p class=\"note\">Mean, standard deviation, least and greatest accuracy over \
         the runs (seeds and orders); macro F1, loss and expected calibration error are means over the runs. Recency and \
         majority are biases in percentage points. The best condition is bold.</p>\n<div class=\"scroll\"><table>\n\
         <thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n</section>\n"
    )
}

/// More labels than this make no table that can be read.
const LABELS: usize = 24;

fn confusion(study: &Study, summary: &Summary) -> String {
    let n = study.labels.len();
    let heading = "<section class=\"figure\">\n<h2>Confusion</h2>\n";
    if n > LABELS {
        return format!(
            "{heading}<p class=\"note\">Left out: {n} labels are too many for a table.</p>\n</section>\n"
        );
    }
    let counts = confusions(study, summary);
    let heads: String = study.labels.iter().map(|label| format!("<th>{}</th>", escaped(label))).collect();
    let mut rows = String::new();
    for (label, counts) in counts.iter().enumerate() {
        let total: usize = counts.iter().sum();
        let cell = |&count: &usize| {
            let share = if total == 0 { 0.0 } else { 100.0 * count as f64 / total as f64 };
            format!("<td class=\"cell\" style=\"--share:{share:.0}%\"><span>{share:.1}</span></td>")
        };
        let cells: String = counts.iter().map(cell).collect();
        let of_label = study.gold.iter().filter(|&&gold| gold == label).count();
        let _ = writeln!(
            rows,
            "<tr><td class=\"name\">{}</td><td>{of_label}</td>{cells}</tr>",
            escaped(&study.labels[label])
        );
    }
    format!(
        "{heading}<p class=\"note\">Rows: the right label, and how many rows have it. Columns: what was predicted, in percent \
         of them, over all runs of the best condition ({}).</p>\n<div class=\"scroll\"><table>\n\
         <thead><tr><th class=\"name\">right</th><th>rows</th>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n\
         </section>\n",
        escaped(&summary.name(summary.best)),
    )
}

/// `[right][predicted]` over all runs of the best group.
fn confusions(study: &Study, summary: &Summary) -> Vec<Vec<usize>> {
    let mut counts = vec![vec![0; study.labels.len()]; study.labels.len()];
    for &run in &summary.groups[summary.best].runs {
        for (&gold, &predicted) in study.gold.iter().zip(&study.runs[run].predicted) {
            counts[gold][predicted] += 1;
        }
    }
    counts
}

fn comparisons(summary: &Summary) -> String {
    if summary.comparisons.is_empty() {
        return String::new();
    }
    let rows: String = summary.comparisons.iter().map(|c| comparison(summary, c)).collect();
    format!(
        "<section>\n<h2>All comparisons</h2>\n<p class=\"note\">Difference of mean accuracy in percentage points, with the \
         95 % interval of a paired bootstrap over rows and seeds (1000 draws). With few seeds it is somewhat too narrow; \
         where a side has one seed it says nothing about others. Where each side is one run, McNemar’s exact test decides. \
         Of {} comparisons one in twenty is expected to look like more than noise by chance.</p>\n\
         <div class=\"scroll\"><table>\n<thead><tr><th class=\"name\">this</th><th class=\"name\">against</th>\
         <th>difference</th><th>interval</th><th>McNemar p</th><th></th><th class=\"name\">both with</th></tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n</section>\n",
        summary.comparisons.len(),
    )
}

fn comparison(summary: &Summary, comparison: &Comparison) -> String {
    let name = |name: String| format!("<td class=\"name\">{}</td>", escaped(&name));
    let [this, against, both] = summary.names(comparison).map(name);
    let Estimate { value, low, high } = comparison.difference;
    let p = comparison.mcnemar.map_or_else(|| "-".into(), |p| format!("{p:.3}"));
    let noise = if comparison.is_noise() { "within noise" } else { "" };
    format!(
        "<tr>{this}{against}<td>{:+.1}</td><td>{:.1} to {:.1}</td><td>{p}</td><td>{noise}</td>{both}</tr>\n",
        100.0 * value,
        100.0 * low,
        100.0 * high
    )
}

fn what_was_run(study: &Study) -> String {
    let seeds = seeds(study.runs.iter().map(|run| run.seed));
    let saved = study.plain_tokens as f64 / study.computed_tokens as f64;
    let tokens = format!(
        "{} computed; runs on their own would have computed {}{}",
        thousands(study.computed_tokens),
        thousands(study.plain_tokens),
        if saved.is_finite() { format!(" ({saved:.1} times as many)") } else { String::new() },
    );
    let demonstrations = match study.n_train {
        0 => "none".into(),
        n => format!("{}, {n} rows", study.train),
    };
    let entries = [
        ("Model", study.model.clone()),
        ("Data", format!("{}, {} rows", study.data, study.n())),
        ("Demonstrations from", demonstrations),
        ("Labels", study.labels.join(", ")),
        ("Runs", format!("{}, seeds {seeds}", study.runs.len())),
        ("Machine", study.machine.clone()),
        ("Wall time", duration(study.seconds)),
        ("Tokens", tokens),
    ];
    page::what_was_run(&study.command, &entries)
}

#[cfg(test)]
mod tests;
