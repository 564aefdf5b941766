//! Who computes: the CPU with one of its instruction sets, or the kernels of the GPU.
//!
//! A method per operation takes slices and gives vectors, so that one test checks all of them. What is not written is a NaN.

mod attention;
mod cross_entropy;
#[cfg(feature = "cuda")]
#[path = "../../shim/host.rs"]
pub(crate) mod cuda;
pub(crate) mod norms;
mod pointwise;

use std::fmt::Debug;

use prompt_tuning_kernels::Isa;

/// One implementation of the kernels.
#[derive(Clone, Copy)]
pub(crate) enum Device {
    Cpu(Isa),
    /// The GPU's kernels.
    #[cfg(feature = "cuda")]
    Cuda(cuda::Host),
}

impl Device {
    fn name(self) -> String {
        match self {
            Device::Cpu(isa) => isa.name().to_string(),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => format!("{host:?}"),
        }
    }
}

/// Runs `check` for every device and case, and shows the first three failures.
pub(crate) fn on_every_device<C: Debug>(cases: &[C], check: impl Fn(Device, &C) -> Result<(), String>) {
    on_devices(cases, check, |i, on| {
        Isa::available().into_iter().map(Device::Cpu).for_each(&mut *on);
        #[cfg(feature = "cuda")]
        cuda::on_schedules(i, |host| on(Device::Cuda(host)));
        #[cfg(not(feature = "cuda"))]
        let _ = i;
    });
}

/// The same for what only a GPU has.
#[cfg(feature = "cuda")]
pub(crate) fn on_the_gpu<C: Debug>(cases: &[C], check: impl Fn(Device, &C) -> Result<(), String>) {
    on_devices(cases, check, |i, on| cuda::on_schedules(i, |host| on(Device::Cuda(host))));
}

/// `devices` calls what it is given with each device of case number `i`.
fn on_devices<C: Debug>(
    cases: &[C],
    check: impl Fn(Device, &C) -> Result<(), String>,
    devices: impl Fn(usize, &mut dyn FnMut(Device)),
) {
    let mut failures = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        devices(i, &mut |device| {
            if let Err(why) = check(device, case) {
                failures.push(format!("{} {case:?}: {why}", device.name()));
            }
        });
    }
    let n = failures.len();
    failures.truncate(3);
    assert!(n == 0, "{n} failures, the first:\n{}", failures.join("\n"));
}

/// `n` numbers that nobody has written.
fn unwritten(n: usize) -> Vec<f32> {
    vec![f32::NAN; n]
}
