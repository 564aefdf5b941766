//! The numbers as Markdown, and the part of a page that they replace.

use std::fmt::Write;

use crate::case::Kind;
use crate::report::{Limit, Measurement, Roofline, percent};

/// Dtypes and peers that have a column; other dtypes, those of quantised weights, have a table of their own.
const COLUMNS: [&str; 6] = ["f32", "f16", "bf16", "bf16xbf16", "gemm", "matrixmultiply"];

/// `page` with what stands between `<!-- name:begin -->` and `<!-- name:end -->` replaced by `text`.
///
/// # Errors
/// The markers are not there, each once and in this order.
pub fn replace(page: &str, name: &str, text: &str) -> Result<String, String> {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    if page.matches(&begin).count() != 1 || page.matches(&end).count() != 1 {
        return Err(format!("it needs the lines `{begin}` and `{end}`, once each"));
    }
    let (before, rest) = page.split_once(&begin).expect("it is there");
    let (_, after) = rest.split_once(&end).ok_or_else(|| format!("`{end}` must come after `{begin}`"))?;
    Ok(format!("{before}{begin}\n{}\n{end}{after}", text.trim()))
}

/// Machine, ceilings, the share of each kind, and every kernel of the fastest instruction set.
pub fn roofline(run: &Roofline) -> String {
    let best = run.best_tier();
    let rows = rows_of(run, best);
    let mut out = format!("{}.\n\n", run.machine.line());
    out += &ceilings(run);
    out += &shares(&rows);
    let _ = write!(
        out,
        "\n<details>\n<summary>Every kernel ({best}): GFLOP/s, or GB/s where bytes are the limit, and the share of \
         the limit; best of several rounds, in turns with the ceilings and the peers</summary>\n\n"
    );
    let has_column = |m: &&Measurement| COLUMNS.contains(&&*m.dtype);
    let (numbers, quantised): (Vec<_>, Vec<_>) = rows.iter().copied().partition(has_column);
    out += &kernels(&numbers, &COLUMNS);
    if !quantised.is_empty() {
        let mut dtypes: Vec<&str> = Vec::new();
        for m in &quantised {
            if !dtypes.contains(&&*m.dtype) {
                dtypes.push(&m.dtype);
            }
        }
        let _ = write!(out, "\nQuantised weights:\n\n{}", kernels(&quantised, &dtypes));
    }
    out + "\n</details>\n"
}

/// What was measured with the fastest instruction set, or is not compiled for each: one for each kernel, shape and dtype.
fn rows_of<'a>(run: &'a Roofline, best: &str) -> Vec<&'a Measurement> {
    let mut rows: Vec<&Measurement> = run.measurements.iter().filter(|m| m.tier == best).collect();
    let name = |m: &'a Measurement| (&*m.kernel, &*m.shape, &*m.dtype);
    let seen: std::collections::HashSet<_> = rows.iter().map(|&m| name(m)).collect();
    rows.extend(run.measurements.iter().filter(|&m| m.tier == "any" && !seen.contains(&name(m))));
    rows
}

fn ceilings(run: &Roofline) -> String {
    let mut out = String::from("| ceiling | all threads | one core |\n|---|---|---|\n");
    for peak in run.ceilings.arithmetic.iter().rev() {
        let (all, one) = (peak.gflops, peak.gflops_one_core);
        let _ = writeln!(out, "| {} {} | {all:.0} GFLOP/s | {one:.0} |", peak.tier, peak.arithmetic);
    }
    for (name, level) in [("memory", run.ceilings.memory), ("caches", run.ceilings.cache)] {
        let megabytes = level.bytes as f64 / 1e6;
        let mut line = |what: &str, all: f64, one: f64| {
            let _ = writeln!(out, "| {name}, {what} ({megabytes:.0} MB) | {all:.1} GB/s | {one:.1} |");
        };
        line("read", level.read, level.read_one_core);
        line("copied", level.copy, level.copy_one_core);
        line("two summed", level.sum, level.sum_one_core);
    }
    out
}

/// Of each kind, the lowest and the median share.
fn shares(rows: &[&Measurement]) -> String {
    let mut out = String::from("\n| share of the ceiling | cases | lowest | median |\n|---|---|---|---|\n");
    for kind in Kind::ALL {
        let mut of_kind: Vec<f64> = rows.iter().filter(|m| m.kind == kind).map(|m| m.share.best).collect();
        of_kind.sort_by(f64::total_cmp);
        if let Some(lowest) = of_kind.first() {
            let (n, median) = (of_kind.len(), of_kind[of_kind.len() / 2]);
            let _ = writeln!(out, "| {} | {n} | {} | {} |", kind.name(), percent(*lowest), percent(median));
        }
    }
    out
}

/// A line for each kernel and shape, a column for each dtype and peer.
fn kernels(rows: &[&Measurement], columns: &[&str]) -> String {
    let mut out =
        format!("| kernel | shape | {} |\n|---|---|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    let mut names: Vec<(&str, &str)> = rows.iter().map(|m| (&*m.kernel, &*m.shape)).collect();
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(*name));
    for (kernel, shape) in names {
        let here: Vec<_> = rows.iter().filter(|m| (&*m.kernel, &*m.shape) == (kernel, shape)).collect();
        let ours = |dtype: &str| here.iter().find(|m| m.dtype == dtype).map(|m| cell(m));
        let peer = |name: &str| here.iter().find_map(|m| m.peer_gflops(name)).map(|g| format!("{g:.1}"));
        let cell_of = |column: &&str| ours(column).or_else(|| peer(column)).unwrap_or_default();
        let cells: Vec<String> = columns.iter().map(cell_of).collect();
        let _ = writeln!(out, "| {kernel} | {shape} | {} |", cells.join(" | "));
    }
    out
}

fn cell(m: &Measurement) -> String {
    let rate = match m.limit {
        Limit::Arithmetic => format!("{:.1}", m.gflops()),
        Limit::Memory => format!("{:.1} GB/s", m.gb_per_s()),
    };
    format!("{rate} ({})", percent(m.share.best))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn only_the_part_between_the_markers_changes() {
        let page = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n";
        assert_eq!(replace(page, "x", "new\n").unwrap(), "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n");
        assert!(replace("no markers", "x", "new").is_err());
        assert!(replace("<!-- x:end --> <!-- x:begin -->", "x", "new").is_err());
        assert!(replace(&page.repeat(2), "x", "new").is_err());
    }

    #[test]
    fn the_page_has_the_machine_the_ceilings_and_each_kernel_once() {
        let run = example();
        let page = roofline(&run);
        assert!(page.starts_with(&run.machine.line()));
        for line in [
            "| avx2 f32 | 150 GFLOP/s | 75 |",
            "| memory, read (1 MB) | 20.0 GB/s | 10.0 |",
            "| matrix product | 1 | 90 % | 90 % |",
            "| matmul | 820x768x768 | 100.0 (90 %) |  |  |  | 50.0 |  |",
            "| gelu | 820x768x768 | 20.0 (90 %) |  |  |  | 50.0 |  |",
        ] {
            assert_eq!(page.matches(line).count(), 1, "{line}\n{page}");
        }
    }

    #[test]
    fn what_is_counted_is_in_the_table() {
        let mut run = example();
        let mut add = |dtype: &str, tier: &str| {
            let old = run.measurements[1].clone();
            run.measurements.push(Measurement { dtype: dtype.into(), tier: tier.into(), ..old });
        };
        add("Q8_0", "avx2");
        add("bf16xbf16", "avx2");
        // there is one of the fastest instruction set
        add("f32", "any");
        add("f16", "any");
        let page = roofline(&run);
        assert!(page.contains("| matrix product | 4 | 90 % | 90 % |"), "{page}");
        assert!(page.contains("| matmul | 820x768x768 | 100.0 (90 %) |\n"), "{page}");
        let kernels = page.split("<details>").nth(1).expect("the table");
        assert_eq!(kernels.matches("100.0 (90 %)").count(), 4, "{page}");
    }
}
