//! The numbers as text, a line for each, so that they can be printed as they come.

use std::fmt::Write;

use crate::machine::Machine;
use crate::report::{Ceilings, Level, Limit, Measurement, percent};

/// Machine and ceilings.
pub fn head(machine: &Machine, ceilings: &Ceilings) -> String {
    let mut out = format!("{}\n\n", machine.line());
    for peak in &ceilings.arithmetic {
        let name = format!("{} {}", peak.tier, peak.arithmetic);
        let _ =
            writeln!(out, "{name:>16}  {:7.1} GFLOP/s, one core {:.1}", peak.gflops, peak.gflops_one_core);
    }
    for (name, level) in [("memory", ceilings.memory), ("caches", ceilings.cache)] {
        let _ = writeln!(out, "{name:>16}  {}", level_line(level));
    }
    out
}

fn level_line(level: Level) -> String {
    format!(
        "{:7.1} GB/s read, {:.1} copied, {:.1} summed (one core {:.1}, {:.1}, {:.1}) over {:.0} MB",
        level.read,
        level.copy,
        level.sum,
        level.read_one_core,
        level.copy_one_core,
        level.sum_one_core,
        level.bytes as f64 / 1e6
    )
}

/// The names of the columns, with those of the peers.
pub fn columns<'a>(peers: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = format!(
        "{:<25} {:<28} {:<9} {:<10} {:>10} {:>10} {:>8} {:>8} {:>7} {:>7}  {:<6}",
        "kernel",
        "shape",
        "dtype",
        "tier",
        "best ms",
        "median",
        "GFLOP/s",
        "GB/s",
        "share",
        "median",
        "limit"
    );
    peers.into_iter().for_each(|name| {
        let _ = write!(out, " {name:>15}");
    });
    out
}

/// One measurement.
pub fn row(m: &Measurement) -> String {
    let limit = if m.limit == Limit::Memory { "bytes" } else { "flops" };
    let mut out = format!(
        "{:<25} {:<28} {:<9} {:<10} {:>10.3} {:>10.3} {:>8.1} {:>8.1} {:>7} {:>7}  {limit:<6}",
        m.kernel,
        m.shape,
        m.dtype,
        m.tier,
        1e3 * m.seconds.best,
        1e3 * m.seconds.median,
        m.gflops(),
        m.gb_per_s(),
        percent(m.share.best),
        percent(m.share.median),
    );
    for peer in &m.peers {
        let _ = write!(out, " {:>15.1}", m.flops / peer.seconds.best / 1e9);
    }
    out
}
