//! The forward pass of root-mean-square normalisation on the GPU, with slices of its memory; the gradients are in
//! [`crate::norms`].

use crate::{
    cuda::{Failed, Launcher, Slice, SliceMut, rows},
    slices::n_rows,
};

/// [`super::forward`]
///
/// # Errors
/// The launch failed. Panics when the sizes do not fit together.
pub fn forward(
    gpu: &dyn Launcher,
    x: Slice<f32>,
    weight: Slice<f32>,
    eps: f32,
    y: SliceMut<f32>,
    rstd: SliceMut<f32>,
) -> Result<(), Failed> {
    let c = weight.len();
    let t = n_rows(x.len(), c);
    assert_eq!((y.len(), rstd.len()), (x.len(), t), "y and one rstd per row");
    if t == 0 {
        return Ok(());
    }
    let vectors = [x.into(), weight.into(), y.read().into()];
    let kernels = ["rms_norm_forward_x1", "rms_norm_forward_x4"];
    let launch = rows::block_per_row("rms_norm", kernels, (t, c), &vectors);
    let launch = launch.arg(x).arg(weight).arg(eps).arg(y).arg(rstd).size(c);
    // SAFETY: the kernel's parameters, with the sizes checked above
    unsafe { launch.on(gpu) }
}
