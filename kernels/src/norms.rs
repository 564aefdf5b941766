//! The gradients of [`layer_norm`](crate::layer_norm) and [`rms_norm`](crate::rms_norm) on the GPU. They differ in the mean,
//! which only LayerNorm has: it is one more argument, and its gradient, that of the bias, one more sum.

use crate::{
    cuda::{Failed, Launch, Launcher, Slabs, Slice, SliceMut, rows},
    slices::n_rows,
};

/// What the gradients are computed from.
#[derive(Clone, Copy, Debug)]
pub struct Backward<'a> {
    /// The input, `[T, C]`.
    pub x: Slice<'a, f32>,
    /// Of the forward pass of LayerNorm, `[T]`; RMSNorm has none.
    pub mean: Option<Slice<'a, f32>>,
    /// Of the forward pass, `[T]`.
    pub rstd: Slice<'a, f32>,
    /// From above, `[T, C]`.
    pub d_y: Slice<'a, f32>,
}

impl Backward<'_> {
    /// Rows, if the sizes fit together.
    fn rows(&self, c: usize) -> usize {
        let t = n_rows(self.x.len(), c);
        assert_eq!((self.d_y.len(), self.rstd.len()), (self.x.len(), t), "d_y and one rstd per row");
        assert!(self.mean.is_none_or(|mean| mean.len() == t), "one mean per row");
        t
    }

    /// What all kernels take after their own inputs.
    fn args(&self, launch: Launch) -> Launch {
        self.mean.into_iter().chain([self.rstd, self.d_y]).fold(launch, Launch::arg)
    }
}

/// [`layer_norm::backward_input`](crate::layer_norm::backward_input), or that of RMSNorm; or with `add` their
/// `accumulate_input`.
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
    let (file, kernels) = match from.mean {
        Some(_) => ("layer_norm", ["layer_norm_backward_x1", "layer_norm_backward_x4"]),
        None => ("rms_norm", ["rms_norm_backward_x1", "rms_norm_backward_x4"]),
    };
    let vectors = [from.x.into(), weight.into(), from.d_y.into(), d_x.read().into()];
    let launch = rows::block_per_row(file, kernels, (t, c), &vectors).arg(from.x).arg(weight);
    let launch = from.args(launch).arg(d_x).arg(u32::from(add)).size(c);
    // SAFETY: the kernel's parameters, with the sizes checked above
    unsafe { launch.on(gpu) }
}

/// The gradients of the parameters: [`layer_norm::backward_affine`](crate::layer_norm::backward_affine) into `d[2, C]`, that of
/// the weight and then that of the bias; or [`rms_norm::backward_weight`](crate::rms_norm::backward_weight) into `d[C]`.
/// `partial` is scratch memory of [`Slabs::of`]`(T).n` times as many numbers.
///
/// # Errors
/// A launch failed. Panics when the sizes do not fit together.
pub fn backward_parameters(
    gpu: &dyn Launcher,
    from: Backward,
    mut partial: SliceMut<f32>,
    d: SliceMut<f32>,
) -> Result<(), Failed> {
    let (file, kernel, sums) = match from.mean {
        Some(_) => ("layer_norm", "layer_norm_backward_affine", 2),
        None => ("rms_norm", "rms_norm_backward_weight", 1),
    };
    let c = d.len() / sums;
    let t = from.rows(c);
    let slabs = Slabs::of(t);
    assert_eq!(partial.len(), slabs.n * sums * c, "sums of C numbers per slab");
    if t > 0 {
        let launch = from.args(rows::columns_of_slabs(file, kernel, slabs, c).arg(from.x));
        let launch = launch.arg(partial.lend()).size(t).size(slabs.rows).size(c);
        // SAFETY: the kernel's parameters, with the sizes checked above
        unsafe { launch.on(gpu)? };
    }
    rows::sum_slabs(gpu, slabs, partial.read(), d)
}
