//! Optimizer steps on the GPU: [`super`]'s functions, with slices of its memory.

use super::{AdamW, Sgd};
use crate::cuda::{Failed, Launcher, Slice, SliceMut, rows};

const FILE: &str = "optim";

/// [`super::adamw`]
///
/// # Errors
/// The launch failed. Panics when the lengths differ or `step` is 0.
pub fn adamw(
    gpu: &dyn Launcher,
    settings: AdamW,
    step: u64,
    grad: Slice<f32>,
    [param, m, v]: [SliceMut<f32>; 3],
) -> Result<(), Failed> {
    let n = param.len();
    assert_eq!((grad.len(), m.len(), v.len()), (n, n, n), "grad, m and v");
    let f = super::AdamWStep::of(settings, step);
    if n == 0 {
        return Ok(());
    }
    let slices = [grad.into(), param.read().into(), m.read().into(), v.read().into()];
    let launch = rows::number_by_number(FILE, ["adamw_x1", "adamw_x4"], n, &slices);
    let launch =
        launch.arg(f.keep).arg(f.beta1).arg(f.beta2).arg(f.step_size).arg(f.root_correction2).arg(f.eps);
    // SAFETY: the kernel's parameters, of one length
    unsafe { launch.arg(grad).arg(param).arg(m).arg(v).size(n).on(gpu) }
}

/// [`super::sgd`]
///
/// # Errors
/// The launch failed. Panics when the lengths differ; without momentum `velocity` may be empty.
pub fn sgd(
    gpu: &dyn Launcher,
    settings: Sgd,
    grad: Slice<f32>,
    param: SliceMut<f32>,
    velocity: SliceMut<f32>,
) -> Result<(), Failed> {
    let Sgd { lr, momentum, weight_decay } = settings;
    let n = param.len();
    assert_eq!(grad.len(), n, "grad");
    if n == 0 {
        return Ok(());
    }
    let mut slices = vec![grad.into(), param.read().into()];
    let launch = if momentum == 0.0 {
        let launch = rows::number_by_number(FILE, ["sgd_x1", "sgd_x4"], n, &slices);
        launch.arg(lr).arg(weight_decay).arg(grad).arg(param)
    } else {
        assert_eq!(velocity.len(), n, "velocity");
        slices.push(velocity.read().into());
        let launch = rows::number_by_number(FILE, ["sgd_momentum_x1", "sgd_momentum_x4"], n, &slices);
        launch.arg(lr).arg(momentum).arg(weight_decay).arg(grad).arg(param).arg(velocity)
    };
    // SAFETY: the kernel's parameters, of one length
    unsafe { launch.size(n).on(gpu) }
}
