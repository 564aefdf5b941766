//! The forward pass of layer normalisation on the GPU, with slices of its memory; the gradients are in [`crate::norms`].

use crate::{
    cuda::{Failed, Launcher, Slice, SliceMut, rows},
    slices::n_rows,
};

/// The parameters of the layer.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// Factor of each column, `[C]`.
    pub weight: Slice<'a, f32>,
    /// Summand of each column, `[C]`.
    pub bias: Slice<'a, f32>,
    /// Added to the variance.
    pub eps: f32,
}

/// [`super::forward`]
///
/// # Errors
/// The launch failed. Panics when the sizes do not fit together.
pub fn forward(
    gpu: &dyn Launcher,
    x: Slice<f32>,
    affine: Affine,
    y: SliceMut<f32>,
    [mean, rstd]: [SliceMut<f32>; 2],
) -> Result<(), Failed> {
    let Affine { weight, bias, eps } = affine;
    let c = weight.len();
    let t = n_rows(x.len(), c);
    assert_eq!((bias.len(), y.len()), (c, x.len()), "bias and y");
    assert_eq!((mean.len(), rstd.len()), (t, t), "one mean and rstd per row");
    if t == 0 {
        return Ok(());
    }
    let vectors = [x.into(), weight.into(), bias.into(), y.read().into()];
    let kernels = ["layer_norm_forward_x1", "layer_norm_forward_x4"];
    let launch = rows::block_per_row("layer_norm", kernels, (t, c), &vectors);
    let launch = launch.arg(x).arg(weight).arg(bias).arg(eps).arg(y).arg(mean).arg(rstd).size(c);
    // SAFETY: the kernel's parameters, with the sizes checked above
    unsafe { launch.on(gpu) }
}
