//! Products with the matrix of a linear layer.

use kernels::Isa;
use kernels::matmul::{self, Epilogue, Layout, Precision, reference::Shape};

use crate::Tensor;

/// A matrix that maps `n_in` features to `n_out`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The numbers, in any format.
    pub tensor: &'a Tensor,
    /// Which way round they are.
    pub layout: Layout,
    /// Width of the input.
    pub n_in: usize,
    /// Width of the output.
    pub n_out: usize,
    /// How products with it are computed; those for its own gradient are always in f32.
    pub precision: Precision,
}

impl<'a> Matrix<'a> {
    /// As the CPU's kernels take it.
    pub fn weight(self) -> matmul::Weight<'a> {
        let Matrix { tensor, layout, n_in, n_out, precision } = self;
        matmul::Weight { elements: tensor.elements(), layout, n_in, n_out, precision }
    }

    /// As the GPU's kernels take it.
    #[cfg(feature = "cuda")]
    pub(super) fn on<'b>(self, elements: &'b crate::gpu::LentElements<'b>) -> matmul::cuda::Weight<'b> {
        let Matrix { layout, n_in, n_out, .. } = self;
        let rung = match self.precision {
            Precision::F32 => matmul::cuda::Rung::Tiled,
            Precision::Bf16 => matmul::cuda::Rung::TensorCores,
        };
        matmul::cuda::Weight { elements: elements.slice(), layout, n_in, n_out, rung }
    }
}

/// `x W + bias + residual`: `[T, n_in]` to `[T, n_out]`.
pub fn product(x: &Tensor, w: Matrix, bias: Option<&Tensor>, residual: Option<&Tensor>) -> Tensor {
    let shape = [x.len() / w.n_in, w.n_out];
    on_gpu!(|gpu| &[x, w.tensor] => gpu.one(&shape, |y| {
        let (bias, residual) = (bias.map(|x| gpu.read(x)).transpose()?, residual.map(|x| gpu.read(x)).transpose()?);
        let epilogue = matmul::cuda::Epilogue {
            bias: bias.as_ref().map(|x| x.slice()),
            residual: residual.as_ref().map(|x| x.slice()),
        };
        matmul::cuda::forward(gpu.launcher(), gpu.read(x)?.slice(), w.on(&gpu.elements(w.tensor)?), epilogue, y)
    }));
    let epilogue = Epilogue { bias: bias.map(Tensor::f32s), residual: residual.map(Tensor::f32s) };
    Tensor::build(&shape, |y| matmul::forward(Isa::best(), x.f32s(), w.weight(), epilogue, y))
}

/// `d_x = d_y Wᵀ`: `[T, n_out]` to `[T, n_in]`.
pub fn backward_input(d_y: &Tensor, w: Matrix) -> Tensor {
    let shape = [d_y.len() / w.n_out, w.n_in];
    on_gpu!(|gpu| &[d_y, w.tensor] => gpu.one(&shape, |d_x| {
        matmul::cuda::backward_input(gpu.launcher(), gpu.read(d_y)?.slice(), w.on(&gpu.elements(w.tensor)?), d_x)
    }));
    Tensor::build(&shape, |d_x| matmul::backward_input(Isa::best(), d_y.f32s(), w.weight(), d_x))
}

/// `d_W = xᵀ d_y` as `w` is stored, plus `before` if there is one.
pub fn backward_weight([x, d_y]: [&Tensor; 2], w: Matrix, before: Option<&Tensor>) -> Tensor {
    let Matrix { layout, n_in, n_out, .. } = w;
    let shape = Shape { layout, n_in, n_out };
    on_gpu!(|gpu| &[x, d_y] => gpu.one(w.tensor.shape(), |d_w| {
        let turned = if layout == Layout::OutIn { d_y } else { x };
        let mut turned = gpu.room(turned.len())?;
        let before = before.map(|before| gpu.read(before)).transpose()?;
        let (x, d_y) = (gpu.read(x)?, gpu.read(d_y)?);
        let into = (before.as_ref().map(|before| before.slice()), d_w);
        let both = [x.slice(), d_y.slice()];
        matmul::cuda::backward_weight(gpu.launcher(), both, shape, turned.slice_mut(), into)
    }));
    Tensor::build(w.tensor.shape(), |d_w| {
        let before = before.map(Tensor::f32s);
        matmul::backward_weight(Isa::best(), (x.f32s(), d_y.f32s()), shape, before, d_w);
    })
}
