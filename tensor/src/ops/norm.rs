//! Normalisation of rows: LayerNorm and RMSNorm.
//!
//! Statistics are one number per row, `[T]`.

use kernels::layer_norm::{self, Affine};
use kernels::{Isa, rms_norm};
#[cfg(feature = "cuda")]
use kernels::{
    cuda::{Failed, Slabs},
    norms,
};

use super::accumulated;
use crate::Tensor;
#[cfg(feature = "cuda")]
use crate::gpu::{Gpu, Lent};

/// LayerNorm of `[T, C]` with `weight` and `bias` of `[C]`: the result, and mean and reciprocal deviation of each row.
pub fn layer_norm(x: &Tensor, [weight, bias]: [&Tensor; 2], eps: f32) -> (Tensor, [Tensor; 2]) {
    let per_row = [x.rows()];
    on_gpu!(|gpu| &[x, weight, bias] => {
        let [y, mean, rstd] = gpu.build([x.shape(), &per_row, &per_row], |[y, mean, rstd]| {
            let (weight, bias) = (gpu.read(weight)?, gpu.read(bias)?);
            let affine = layer_norm::cuda::Affine { weight: weight.slice(), bias: bias.slice(), eps };
            layer_norm::cuda::forward(gpu.launcher(), gpu.read(x)?.slice(), affine, y, [mean, rstd])
        });
        (y, [mean, rstd])
    });
    let [mut mean, mut rstd] = [(); 2].map(|()| Tensor::room(&per_row));
    let affine = Affine { weight: weight.f32s(), bias: bias.f32s(), eps };
    let y = Tensor::build(x.shape(), |y| {
        layer_norm::forward(Isa::best(), x.f32s(), affine, y, mean.fresh(), rstd.fresh());
    });
    (y, [mean, rstd])
}

/// What the gradients of a norm start from.
#[derive(Clone, Copy, Debug)]
pub struct Backward<'a> {
    /// The input, `[T, C]`.
    pub x: &'a Tensor,
    /// Mean (of LayerNorm only) of each row.
    pub mean: Option<&'a Tensor>,
    /// Reciprocal deviation of each row.
    pub rstd: &'a Tensor,
    /// From above, `[T, C]`.
    pub d_y: &'a Tensor,
}

/// `d_x` of either norm, added to `before` if there is one.
pub fn backward_input(from: Backward, weight: &Tensor, before: Option<Tensor>) -> Tensor {
    let Backward { x, mean, rstd, d_y } = from;
    on_gpu!(|gpu| &[x, weight, d_y] => gpu.accumulated(before, x.shape(), |d_x, add| {
        let weight = gpu.read(weight)?;
        from.on(gpu, |from| norms::backward_input(gpu.launcher(), from, weight.slice(), d_x, add))
    }));
    let (isa, x, weight, rstd, d_y, shape) =
        (Isa::best(), x.f32s(), weight.f32s(), rstd.f32s(), d_y.f32s(), x.shape());
    accumulated(before, shape, |d_x, add| match mean {
        Some(mean) => {
            let kernel = if add { layer_norm::accumulate_input } else { layer_norm::backward_input };
            kernel(isa, x, weight, mean.f32s(), rstd, d_y, d_x);
        }
        None => {
            let kernel = if add { rms_norm::accumulate_input } else { rms_norm::backward_input };
            kernel(isa, x, weight, rstd, d_y, d_x);
        }
    })
}

/// `[d_weight, d_bias]` of LayerNorm, `[C]` each. Panics without a mean.
pub fn layer_norm_backward_affine(from: Backward) -> [Tensor; 2] {
    let Backward { x, mean, rstd, d_y } = from;
    let mean = mean.expect("a LayerNorm has means");
    let shape = [x.width()];
    on_gpu!(|gpu| &[x, d_y] => {
        let both = from.parameters(gpu, &[2, x.width()]);
        [0, 1].map(|row| both.take_rows(&[row]).reshaped(&shape))
    });
    let mut d_weight = Tensor::room(&shape);
    let d_bias = Tensor::build(&shape, |d_bias| {
        let into = [d_weight.fresh(), d_bias];
        layer_norm::backward_affine(Isa::best(), x.f32s(), mean.f32s(), rstd.f32s(), d_y.f32s(), into);
    });
    [d_weight, d_bias]
}

/// RMSNorm of `[T, C]` with `weight` of `[C]`: the result, and the reciprocal deviation of each row.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> (Tensor, Tensor) {
    let per_row = [x.rows()];
    on_gpu!(|gpu| &[x, weight] => {
        let [y, rstd] = gpu.build([x.shape(), &per_row], |[y, rstd]| {
            rms_norm::cuda::forward(gpu.launcher(), gpu.read(x)?.slice(), gpu.read(weight)?.slice(), eps, y, rstd)
        });
        (y, rstd)
    });
    let mut rstd = Tensor::room(&per_row);
    let y = Tensor::build(x.shape(), |y| {
        rms_norm::forward(Isa::best(), x.f32s(), weight.f32s(), eps, y, rstd.fresh());
    });
    (y, rstd)
}

/// `d_weight` of RMSNorm, `[C]`.
pub fn rms_norm_backward_weight(from: Backward) -> Tensor {
    let Backward { x, rstd, d_y, .. } = from;
    let shape = [x.width()];
    on_gpu!(|gpu| &[x, d_y] => from.parameters(gpu, &shape));
    Tensor::build(&shape, |d_weight| {
        rms_norm::backward_weight(Isa::best(), x.f32s(), rstd.f32s(), d_y.f32s(), d_weight);
    })
}

#[cfg(feature = "cuda")]
impl Backward<'_> {
    /// Launches what takes it.
    fn on(self, gpu: Gpu, launch: impl FnOnce(norms::Backward) -> Result<(), Failed>) -> Result<(), Failed> {
        let (x, rstd, d_y) = (gpu.read(self.x)?, gpu.read(self.rstd)?, gpu.read(self.d_y)?);
        let mean = self.mean.map(|mean| gpu.read(mean)).transpose()?;
        let mean = mean.as_ref().map(Lent::slice);
        launch(norms::Backward { x: x.slice(), mean, rstd: rstd.slice(), d_y: d_y.slice() })
    }

    /// The gradients of the parameters, which have this shape together.
    fn parameters(self, gpu: Gpu, shape: &[usize]) -> Tensor {
        gpu.one(shape, |d| {
            let mut partial = gpu.room(Slabs::of(self.x.rows()).n * d.len())?;
            self.on(gpu, |from| norms::backward_parameters(gpu.launcher(), from, partial.slice_mut(), d))
        })
    }
}
