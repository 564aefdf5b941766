//! The numbers of a run on a GPU, as `--json` writes them.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::report::percent;
use crate::step::report::StepRun;

/// One run of `gpu`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GpuRun {
    /// What it ran in.
    pub machine: Machine,
    /// What it ran on.
    pub gpu: Gpu,
    /// Bytes that the driver's copy reads and writes per second.
    pub copy_bytes_per_s: f64,
    /// One per operation and problem.
    pub measurements: Vec<Measurement>,
    /// Training steps.
    pub steps: Vec<StepRun>,
    /// Why there are not more of them.
    pub failure: Option<String>,
}

/// A GPU as its driver describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Gpu {
    /// "NVIDIA H200"
    pub name: String,
    /// "9.0"
    pub capability: String,
    /// The driver's version of CUDA: 13000 is 13.0.
    pub driver: i32,
    /// Bytes of memory.
    pub memory: u64,
}

/// One operation on one problem.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// The operation.
    pub kernel: String,
    /// Its sizes.
    pub problem: String,
    /// The largest difference from the CPU as a share of the largest number, if it was compared.
    pub error: Option<f64>,
    /// The largest that is right.
    pub tolerance: f64,
    /// Best and median.
    pub seconds: [f64; 2],
    /// Operations that it needs.
    pub flops: f64,
    /// Bytes that must be read and written.
    pub bytes: f64,
}

impl GpuRun {
    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// An operation differs from the CPU's, or a training step failed.
    pub fn check(&self) -> Result<(), String> {
        let wrong = self.measurements.iter().filter(|m| m.is_wrong());
        let wrong: Vec<String> = wrong.map(|m| format!("{} {}", m.kernel, m.problem)).collect();
        match (wrong.is_empty(), &self.failure) {
            (true, None) => Ok(()),
            (false, _) => Err(format!("not what the CPU computes: {}", wrong.join("; "))),
            (true, Some(why)) => Err(why.clone()),
        }
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let Gpu { name, capability, driver, memory } = &self.gpu;
        let mut out = format!(
            "{name} (compute capability {capability}, {:.0} GB, CUDA {}.{}) in {}.\nThe driver copies {:.0} GB/s, bytes \
             read and bytes written both counted.\n\n",
            *memory as f64 / 1e9,
            driver / 1000,
            driver % 1000 / 10,
            self.machine.line(),
            self.copy_bytes_per_s / 1e9
        );
        out += "| operation | problem | difference | µs (median) | TFLOP/s | GB/s | of the copy |\n|---|---|---|---|---|---|---|\n";
        for m in &self.measurements {
            out += &m.line(self.copy_bytes_per_s);
        }
        if !self.steps.is_empty() {
            out += "\n| model | prompt | batch | ms a step (median) | examples/s | TFLOP/s |\n|---|---|---|---|---|---|\n";
        }
        for run in &self.steps {
            out += &step_line(run);
        }
        out
    }
}

impl Measurement {
    /// Whether it computes something else than the CPU.
    pub fn is_wrong(&self) -> bool {
        self.error.is_some_and(|error| error > self.tolerance)
    }

    fn line(&self, copy: f64) -> String {
        let [best, median] = self.seconds;
        let wrong = if self.is_wrong() { " WRONG" } else { "" };
        let difference = self.error.map_or("not compared".into(), |error| format!("{error:.1e}{wrong}"));
        let bandwidth = self.bytes / best;
        format!(
            "| {} | {} | {difference} | {:.1} ({:.1}) | {:.2} | {:.0} | {} |\n",
            self.kernel,
            self.problem,
            best * 1e6,
            median * 1e6,
            self.flops / best / 1e12,
            bandwidth / 1e9,
            percent(bandwidth / copy),
        )
    }
}

fn step_line(run: &StepRun) -> String {
    let [best, median] = run.seconds().map(|seconds| seconds * 1e3);
    let ([examples, _], [gflops, _]) = (run.examples_per_s(), run.gflops());
    format!(
        "| {} | {} | {} | {best:.2} ({median:.2}) | {examples:.0} | {:.1} |\n",
        run.model,
        run.prompt,
        run.batch,
        gflops / 1e3
    )
}
