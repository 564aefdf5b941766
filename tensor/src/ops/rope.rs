//! Rotary positions.

use kernels::Isa;
use kernels::rope::{self as kernel, Table};

use crate::Tensor;
use crate::mirror::Mirror;

/// Cosines and sines of the tokens of one batch, made once and used by every layer.
pub struct Angles {
    table: Table,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    mirrors: [Mirror<f32>; 2],
}

impl std::fmt::Debug for Angles {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.table.fmt(f)
    }
}

impl From<Table> for Angles {
    fn from(table: Table) -> Angles {
        Angles { table, mirrors: Default::default() }
    }
}

#[cfg(feature = "cuda")]
impl Angles {
    fn on(&self, gpu: crate::gpu::Gpu) -> Result<kernel::cuda::Table<'_>, kernels::cuda::Failed> {
        let Table { cos, sin, half, pairs } = &self.table;
        let [of_cos, of_sin] = &self.mirrors;
        let (cos, sin) = (of_cos.of(gpu, cos)?, of_sin.of(gpu, sin)?);
        Ok(kernel::cuda::Table { cos, sin, half: *half, pairs: *pairs })
    }
}

/// `[T, heads * D]`, row `t` rotated by the angles of token `t`.
pub fn rope(x: &Tensor, angles: &Angles) -> Tensor {
    on_gpu!(|gpu| &[x] => gpu.one(x.shape(), |y| {
        kernel::cuda::forward(gpu.launcher(), angles.on(gpu)?, gpu.read(x)?.slice(), y)
    }));
    Tensor::build(x.shape(), |y| kernel::forward(Isa::best(), &angles.table, x.f32s(), y))
}

/// `d_x` of [`rope`].
pub fn backward(d_y: &Tensor, angles: &Angles) -> Tensor {
    on_gpu!(|gpu| &[d_y] => gpu.one(d_y.shape(), |d_x| {
        kernel::cuda::backward(gpu.launcher(), angles.on(gpu)?, gpu.read(d_y)?.slice(), d_x)
    }));
    Tensor::build(d_y.shape(), |d_x| kernel::backward(Isa::best(), &angles.table, d_y.f32s(), d_x))
}
