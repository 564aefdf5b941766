//! Operations on the GPU: first compared with the CPU's on the same numbers, then timed by the clock of the GPU.
//!
//! They are measured as training uses them, through `tensor::ops`: what the CPU needs to launch them shows where it is slower than
//! the kernel. The bandwidth that they are held against is that of the driver's own copy, measured in the same run.

pub mod cases;
pub mod report;

use kernels::cuda::Driver;
use tensor::{Device, Tensor, device};

use crate::clock::Times;
use crate::machine::Machine;
use cases::Case;
use report::{Gpu, GpuRun, Measurement};

/// How thoroughly.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How often a time is taken.
    pub rounds: usize,
    /// What one time is to take at least; an operation is repeated until it does.
    pub seconds: f64,
    /// Bytes of the copy that bandwidth is measured with.
    pub copy_bytes: usize,
}

/// Compares and times `cases`, with `watch` told of each that is done.
///
/// # Errors
/// There is no GPU, or something fails on it.
pub fn run(cases: &[Case], effort: Effort, mut watch: impl FnMut(&Measurement)) -> Result<GpuRun, String> {
    let gpu = Driver::get().map_err(|e| e.to_string())?.gpu();
    let copy = copy_bandwidth(effort)?;
    let mut measurements = Vec::new();
    for case in cases {
        let measured =
            measure(case, effort).map_err(|why| format!("{} {}: {why}", case.name, case.problem))?;
        watch(&measured);
        measurements.push(measured);
    }
    Ok(GpuRun {
        machine: Machine::here(),
        gpu: Gpu {
            name: gpu.name.clone(),
            capability: format!("{}.{}", gpu.capability.0, gpu.capability.1),
            driver: gpu.driver,
            memory: gpu.memory,
        },
        copy_bytes_per_s: copy,
        measurements,
        steps: Vec::new(),
        failure: None,
    })
}

/// Bytes read and written per second by the driver's copy: the best of some.
fn copy_bandwidth(effort: Effort) -> Result<f64, String> {
    let driver = Driver::get().map_err(|e| e.to_string())?;
    let n = effort.copy_bytes / size_of::<f32>();
    let from = driver.upload(&vec![1.0f32; n]).map_err(|e| e.to_string())?;
    let mut to = driver.allocate::<f32>(n).map_err(|e| e.to_string())?;
    let mut best = f64::INFINITY;
    for _ in 0..=effort.rounds {
        let milliseconds = driver.timed(|| to.copy_from(&from)).map_err(|e| e.to_string())?;
        best = best.min(f64::from(milliseconds) / 1e3);
    }
    Ok(2.0 * effort.copy_bytes as f64 / best)
}

fn measure(case: &Case, effort: Effort) -> Result<Measurement, String> {
    let there = (case.make)(Device::Cuda)?;
    let error = case.is_compared.then(|| -> Result<f64, String> {
        let (here, there) = ((case.make)(Device::Cpu)?(), there());
        device::check().map_err(|e| e.to_string())?;
        Ok(here.iter().zip(&there).map(|(here, there)| error(here, there)).fold(0.0, f64::max))
    });
    let error = error.transpose()?;
    let repeated =
        |n: usize| device::seconds(|| (0..n).for_each(|_| drop(there()))).map_err(|e| e.to_string());
    repeated(1)?;
    let once = repeated(1)?.max(1e-6);
    let n = (effort.seconds / once).ceil().clamp(1.0, 1000.0) as usize;
    let mut times = Times::default();
    for _ in 0..effort.rounds {
        times.push(repeated(n)? / n as f64);
    }
    Ok(Measurement {
        kernel: case.name.to_string(),
        problem: case.problem.clone(),
        error,
        tolerance: case.tolerance,
        seconds: [times.best(), times.median()],
        flops: case.flops,
        bytes: case.bytes,
    })
}

/// The largest difference, as a share of the largest number. Where there is a NaN it is larger than any.
fn error(here: &Tensor, there: &Tensor) -> f64 {
    let (here, there) = (here.f32s(), there.f32s());
    let largest = here.iter().fold(0.0f64, |m, &x| m.max(f64::from(x).abs()));
    let difference = |(&a, &b): (&f32, &f32)| (f64::from(a) - f64::from(b)).abs();
    let worst = here.iter().zip(there).map(difference).map(|d| if d.is_nan() { f64::MAX } else { d });
    if here.len() != there.len() {
        return f64::MAX;
    }
    (worst.fold(0.0, f64::max) / largest.max(f64::MIN_POSITIVE)).min(f64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_shares_of_the_largest_number() {
        let tensor = |x: &[f32]| Tensor::from_vec(&[x.len()], x.to_vec());
        assert_eq!(error(&tensor(&[1.0, -4.0]), &tensor(&[1.5, -4.0])), 0.125);
        assert_eq!(error(&tensor(&[0.0]), &tensor(&[0.0])), 0.0);
        assert!(error(&tensor(&[1.0, 2.0]), &tensor(&[f32::NAN, 2.0])) > 1e300);
    }
}
