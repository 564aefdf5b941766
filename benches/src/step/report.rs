//! The numbers of some training steps.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::report::percent;

/// What one step did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Time, packing and optimizer included.
    pub seconds: f64,
    /// Examples.
    pub examples: usize,
    /// Tokens of the examples, prompt and all.
    pub tokens: usize,
    /// Tokens computed: shared prefixes once.
    pub computed_tokens: usize,
    /// Loss before the step.
    pub loss: f64,
    /// Billions of operations that it needs.
    pub gflop: f64,
    /// Billions of operations per second that the machine did just before.
    pub peak_gflops: f64,
}

/// Steps of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRun {
    /// Where it ran.
    pub machine: Machine,
    /// Name of the model.
    pub model: String,
    /// Instruction set.
    pub tier: String,
    /// Virtual tokens.
    pub prompt: usize,
    /// Examples of a step.
    pub batch: usize,
    /// The steps that were measured.
    pub steps: Vec<Step>,
    /// Most memory that the process had, the mapped weights included.
    pub peak_rss_bytes: Option<u64>,
}

/// The largest, and the one in the middle.
fn best_and_median(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [values.last(), values.get(values.len() / 2)].map(|x| x.copied().unwrap_or(0.0))
}

impl StepRun {
    /// Seconds: of the best step, and of the median one.
    pub fn seconds(&self) -> [f64; 2] {
        best_and_median(self.steps.iter().map(|s| 1.0 / s.seconds)).map(f64::recip)
    }

    /// Examples per second: in the best step, and in the median one.
    pub fn examples_per_s(&self) -> [f64; 2] {
        best_and_median(self.steps.iter().map(|s| s.examples as f64 / s.seconds))
    }

    /// Billions of operations per second: in the best step, and in the median one.
    pub fn gflops(&self) -> [f64; 2] {
        best_and_median(self.steps.iter().map(|s| s.gflop / s.seconds))
    }

    /// Share of the peak: best over best, median over median.
    pub fn share(&self) -> [f64; 2] {
        let peak = best_and_median(self.steps.iter().map(|s| s.peak_gflops));
        let gflops = self.gflops();
        [gflops[0] / peak[0], gflops[1] / peak[1]]
    }

    fn mean(&self, of: impl Fn(&Step) -> f64) -> f64 {
        self.steps.iter().map(of).sum::<f64>() / self.steps.len().max(1) as f64
    }

    fn memory(&self) -> String {
        self.peak_rss_bytes.map_or("unknown".into(), |bytes| format!("{:.2} GB", bytes as f64 / 1e9))
    }

    /// As lines of text.
    pub fn text(&self) -> String {
        let (examples, gflops, share) = (self.examples_per_s(), self.gflops(), self.share());
        let mut out = format!("{}\n", self.machine.line());
        let _ = writeln!(
            out,
            "{}, prompt {}, batch {}, {} steps ({})",
            self.model,
            self.prompt,
            self.batch,
            self.steps.len(),
            self.tier
        );
        let _ = writeln!(
            out,
            "a step: {:.0} tokens of which {:.0} are computed, {:.1} GFLOP, {:.3} s",
            self.mean(|s| s.tokens as f64),
            self.mean(|s| s.computed_tokens as f64),
            self.mean(|s| s.gflop),
            self.mean(|s| s.seconds),
        );
        let _ = writeln!(out, "{:>9.2} examples/s (median {:.2})", examples[0], examples[1]);
        let _ = writeln!(
            out,
            "{:>9.1} GFLOP/s (median {:.1}): {} of the peak (median {})",
            gflops[0],
            gflops[1],
            percent(share[0]),
            percent(share[1])
        );
        let _ = write!(out, "{:>12} at most in memory, mapped weights included", self.memory());
        out
    }

    /// Several runs as a table.
    pub fn markdown(runs: &[StepRun]) -> String {
        let mut out = runs.first().map_or(String::new(), |run| format!("{}.\n\n", run.machine.line()));
        out += "| model | prompt | batch | examples/s (median) | GFLOP/s | share of the FMA peak (median) | memory |\n";
        out += "|---|---|---|---|---|---|---|\n";
        for run in runs {
            let (examples, gflops, share) = (run.examples_per_s(), run.gflops(), run.share());
            let _ = writeln!(
                out,
                "| {} | {} | {} | {:.2} ({:.2}) | {:.1} | {} ({}) | {} |",
                run.model,
                run.prompt,
                run.batch,
                examples[0],
                examples[1],
                gflops[0],
                percent(share[0]),
                percent(share[1]),
                run.memory()
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_best_and_of_the_median_step() {
        let step = |seconds| Step {
            seconds,
            examples: 32,
            tokens: 1000,
            computed_tokens: 800,
            loss: 1.0,
            gflop: 100.0,
            peak_gflops: 200.0,
        };
        let run = StepRun {
            machine: Machine::here(),
            model: "m".into(),
            tier: "avx2".into(),
            prompt: 20,
            batch: 32,
            steps: [2.0, 1.0, 4.0].map(step).into(),
            peak_rss_bytes: Some(1_230_000_000),
        };
        assert_eq!(run.seconds(), [1.0, 2.0]);
        assert_eq!(run.examples_per_s(), [32.0, 16.0]);
        assert_eq!(run.share(), [0.5, 0.25]);
        let table = StepRun::markdown(std::slice::from_ref(&run));
        assert!(table.contains("| m | 20 | 32 | 32.00 (16.00) | 100.0 | 50 % (25 %) | 1.23 GB |"), "{table}");
        assert!(run.text().contains("100.0 GFLOP/s (median 50.0): 50 % of the peak (median 25 %)"));
    }
}
