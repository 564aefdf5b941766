//! Layer normalisation on the GPU: [`super`]'s functions, with slices of its memory.

use crate::{
    cuda::{Failed, Launcher, Slabs, Slice, SliceMut, rows},
    slices::n_rows,
};

const FILE: &str = "layer_norm";

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
    let launch =
        rows::block_per_row(FILE, ["layer_norm_forward_x1", "layer_norm_forward_x4"], (t, c), &vectors);
    let launch = launch.arg(x).arg(weight).arg(bias).arg(eps).arg(y).arg(mean).arg(rstd).size(c);
    // SAFETY: the kernel's parameters, with the sizes checked above
    unsafe { launch.on(gpu) }
}

/// What the gradients are computed from.
#[derive(Clone, Copy, Debug)]
pub struct Backward<'a> {
    /// The input, `[T, C]`.
    pub x: Slice<'a, f32>,
    /// Of the forward pass, `[T]`.
    pub mean: Slice<'a, f32>,
    /// Of the forward pass, `[T]`.
    pub rstd: Slice<'a, f32>,
    /// From above, `[T, C]`.
    pub d_y: Slice<'a, f32>,
}

impl Backward<'_> {
    /// Rows, if the sizes fit together.
    fn rows(&self, c: usize) -> usize {
        let t = n_rows(self.x.len(), c);
        assert_eq!(self.d_y.len(), self.x.len(), "d_y");
        assert_eq!((self.mean.len(), self.rstd.len()), (t, t), "one mean and rstd per row");
        t
    }
}

/// [`super::backward_input`], or with `add` [`super::accumulate_input`].
///
/// # Errors
/// The launch failed. Panics when the sizes do not fit together.
pub fn backward_input(
    gpu: &dyn Launcher,
    from: Backward,
    weight: Slice<f32>,
    d_x: SliceMut<f32>,
    add: bool,
) -> Result<(), Failed> {
    let c = weight.len();
    let t = from.rows(c);
    assert_eq!(d_x.len(), from.x.len(), "d_x");
    if t == 0 {
        return Ok(());
    }
    let Backward { x, mean, rstd, d_y } = from;
    let vectors = [x.into(), weight.into(), d_y.into(), d_x.read().into()];
    let launch =
        rows::block_per_row(FILE, ["layer_norm_backward_x1", "layer_norm_backward_x4"], (t, c), &vectors);
    let launch = launch.arg(x).arg(weight).arg(mean).arg(rstd).arg(d_y).arg(d_x).arg(u32::from(add)).size(c);
    // SAFETY: the kernel's parameters, with the sizes checked above
    unsafe { launch.on(gpu) }
}

/// [`super::backward_affine`], into `d_affine[2, C]`: the gradient of the weight, then that of the bias. `partial` is scratch
/// memory of [`Slabs::of`]`(T).n * 2 * C` numbers.
///
/// # Errors
/// A launch failed. Panics when the sizes do not fit together.
pub fn backward_affine(
    gpu: &dyn Launcher,
    from: Backward,
    mut partial: SliceMut<f32>,
    d_affine: SliceMut<f32>,
) -> Result<(), Failed> {
    let c = d_affine.len() / 2;
    let t = from.rows(c);
    let slabs = Slabs::of(t);
    assert_eq!(partial.len(), slabs.n * 2 * c, "two sums of C numbers per slab");
    if t > 0 {
        let Backward { x, mean, rstd, d_y } = from;
        let launch = rows::columns_of_slabs(FILE, "layer_norm_backward_affine", slabs, c);
        let launch = launch.arg(x).arg(mean).arg(rstd).arg(d_y).arg(partial.lend());
        // SAFETY: the kernel's parameters, with the sizes checked above
        unsafe { launch.size(t).size(slabs.rows).size(c).on(gpu)? };
    }
    rows::sum_slabs(gpu, slabs, partial.read(), d_affine)
}
