//! Attention with an interval mask.

use kernels::Isa;
use kernels::attention::{self as kernel, Gradients, Heads, Rows, RowsMut};
use kernels::matmul::Precision;

use crate::{Intervals, Tensor};

/// Columns of a matrix, from one on.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// The matrix.
    pub tensor: &'a Tensor,
    /// The first of the columns.
    pub from: usize,
}

/// A bias by how far a query is behind a key (T5): see [`kernel::Bias`].
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a> {
    /// Position of each query.
    pub query_positions: &'a [u32],
    /// Position of each key.
    pub key_positions: &'a [u32],
    /// `[H, 2 * reach + 1]`
    pub table: &'a Tensor,
}

/// What forward and backward share.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Heads and scale.
    pub heads: Heads,
    /// `[queries, H*D]`
    pub q: Columns<'a>,
    /// `[keys, KV*D]`
    pub k: Columns<'a>,
    /// `[keys, KV*D]`
    pub v: Columns<'a>,
    /// Who sees whom.
    pub mask: &'a Intervals,
    /// What is added to the scores, if anything.
    pub bias: Option<Bias<'a>>,
    /// What a GPU rounds the factors of its products to; a CPU computes in f32.
    pub precision: Precision,
}

/// What the forward pass left and what comes from above.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// Output of [`forward`], `[queries, H*D]`.
    pub out: &'a Tensor,
    /// The other output of [`forward`].
    pub lse: &'a Tensor,
    /// Gradient of the output, `[queries, H*D]`.
    pub d_out: &'a Tensor,
}

impl<'a> Bias<'a> {
    /// As the CPU's kernels take it.
    pub fn on_cpu(self) -> kernel::Bias<'a> {
        let Bias { query_positions, key_positions, table } = self;
        kernel::Bias { query_positions, key_positions, table: table.f32s() }
    }
}

impl<'a> Columns<'a> {
    /// Every column.
    pub fn all(tensor: &'a Tensor) -> Columns<'a> {
        Columns { tensor, from: 0 }
    }

    fn rows(self) -> Rows<'a> {
        // an empty batch has no numbers to skip
        Rows { data: self.tensor.f32s().get(self.from..).unwrap_or(&[]), stride: self.tensor.width() }
    }
}

impl<'a> Inputs<'a> {
    fn n_queries(&self) -> usize {
        self.q.tensor.rows()
    }

    fn n_keys(&self) -> usize {
        self.mask.begin.len()
    }

    /// Of queries, keys and values.
    fn widths(&self) -> [usize; 3] {
        [self.heads.n_heads, self.heads.n_kv_heads, self.heads.n_kv_heads].map(|n| n * self.heads.head_dim)
    }

    /// `[queries, H*D]`
    fn out_shape(&self) -> [usize; 2] {
        [self.n_queries(), self.widths()[0]]
    }

    /// As the CPU's kernels take them.
    fn on_cpu(&self) -> kernel::Inputs<'a> {
        let bias = self.bias.map(Bias::on_cpu);
        let [q, k, v] = [self.q, self.k, self.v].map(Columns::rows);
        kernel::Inputs {
            heads: self.heads,
            q,
            k,
            v,
            mask: self.mask.mask(),
            bias,
            n_queries: self.n_queries(),
        }
    }

    /// What decides on the device: forward and backward agree on it.
    #[cfg(feature = "cuda")]
    fn tensors(&self) -> Vec<&'a Tensor> {
        // there are no kernels for wider heads
        if self.heads.head_dim > 256 {
            return Vec::new();
        }
        [self.q, self.k, self.v].map(|columns| columns.tensor).to_vec()
    }
}

impl<'a> Upstream<'a> {
    fn on_cpu(self) -> kernel::Upstream<'a> {
        let Upstream { out, lse, d_out } = self;
        kernel::Upstream { out: out.f32s(), lse: lse.f32s(), d_out: d_out.f32s() }
    }
}

/// `[queries, H*D]`, and the log-sum-exp of each query and head, `[queries, H]`.
pub fn forward(inputs: Inputs) -> (Tensor, Tensor) {
    let shape = inputs.out_shape();
    let per_head = [shape[0], inputs.heads.n_heads];
    on_gpu!(|gpu| &inputs.tensors() => {
        let [y, lse] = gpu.build([&shape, &per_head], |[y, lse]| {
            inputs.on(gpu, |inputs| kernel::cuda::forward(gpu.launcher(), inputs, y, lse))
        });
        (y, lse)
    });
    let mut lse = Tensor::room(&per_head);
    let y = Tensor::build(&shape, |y| kernel::forward(Isa::best(), inputs.on_cpu(), y, lse.fresh()));
    (y, lse)
}

/// `[d_q, d_k, d_v]`
pub fn backward(inputs: Inputs, upstream: Upstream) -> [Tensor; 3] {
    let ([w_q, w_k, w_v], n_keys) = (inputs.widths(), inputs.n_keys());
    let shapes = [[inputs.n_queries(), w_q], [n_keys, w_k], [n_keys, w_v]];
    on_gpu!(|gpu| &inputs.tensors() => gpu.build(shapes.each_ref().map(|shape| shape.as_slice()), |d| {
        let [d_q, d_k, d_v] = d;
        let whole = |data, stride| kernel::cuda::RowsMut { data, stride };
        let d = kernel::cuda::Gradients { d_q: whole(d_q, w_q), d_k: whole(d_k, w_k), d_v: whole(d_v, w_v) };
        inputs.backward_on(gpu, upstream, d)
    }));
    let mut d = shapes.map(|shape| Tensor::room(&shape));
    let [d_q, d_k, d_v] = d.each_mut().map(|d| {
        let width = d.width();
        RowsMut::of(d.fresh(), width)
    });
    kernel::backward(Isa::best(), inputs.on_cpu(), upstream.on_cpu(), Gradients { d_q, d_k, d_v });
    d
}

/// The gradient of the matrix `[keys, 3*H*D]` whose columns the inputs are. Where only some of its rows are queries, `rows`
/// says which, and the others get zeros.
pub fn backward_fused(inputs: Inputs, upstream: Upstream, rows: Option<&[u32]>) -> Tensor {
    let (widths, n_keys) = (inputs.widths(), inputs.n_keys());
    let shape = [n_keys, widths.iter().sum()];
    on_gpu!(|gpu| &inputs.tensors() => match rows {
        None => gpu.one(&shape, |d_qkv| {
            let [d_q, d_k, d_v] = kernel::cuda::RowsMut::side_by_side(d_qkv, widths);
            inputs.backward_on(gpu, upstream, kernel::cuda::Gradients { d_q, d_k, d_v })
        }),
        Some(rows) => inputs.backward_fused_rows(gpu, upstream, rows),
    });
    let mut d_qkv = Tensor::room(&shape);
    let [mut d_q, d_k, d_v] = RowsMut::side_by_side(d_qkv.fresh(), widths);
    if let Some(rows) = rows {
        d_q = d_q.keep(rows);
    }
    kernel::backward(Isa::best(), inputs.on_cpu(), upstream.on_cpu(), Gradients { d_q, d_k, d_v });
    d_qkv
}

/// The gradient of the table of the bias. On the CPU.
pub fn backward_bias(inputs: Inputs, upstream: Upstream) -> Tensor {
    let shape = inputs.bias.expect("the bias that is trained").table.shape();
    Tensor::build(shape, |d| kernel::backward_bias(inputs.on_cpu(), upstream.on_cpu(), d))
}

#[cfg(feature = "cuda")]
mod on_gpu {
    use kernels::cuda::Failed;

    use super::{Bias, Columns, Inputs, Upstream, kernel};
    use crate::Tensor;
    use crate::gpu::{Gpu, Lent};
    use crate::ops::rows;

    fn columns<'a>(lent: &'a Lent<'_, f32>, columns: Columns) -> kernel::cuda::Rows<'a> {
        let all = lent.slice();
        let from = columns.from.min(all.len());
        kernel::cuda::Rows { data: all.part(from..all.len()), stride: columns.tensor.width() }
    }

    impl Inputs<'_> {
        /// As the kernels take them.
        pub(super) fn on(
            &self,
            gpu: Gpu,
            launch: impl FnOnce(kernel::cuda::Inputs) -> Result<(), Failed>,
        ) -> Result<(), Failed> {
            let lent = [gpu.read(self.q.tensor)?, gpu.read(self.k.tensor)?, gpu.read(self.v.tensor)?];
            let bias = self.bias.map(|Bias { query_positions, key_positions, table }| {
                Ok((gpu.send(query_positions)?, gpu.send(key_positions)?, gpu.read(table)?))
            });
            let bias = bias.transpose()?;
            let mask = kernel::cuda::Mask { begin: self.mask.begin.on(gpu)?, end: self.mask.end.on(gpu)? };
            launch(kernel::cuda::Inputs {
                heads: self.heads,
                q: columns(&lent[0], self.q),
                k: columns(&lent[1], self.k),
                v: columns(&lent[2], self.v),
                mask,
                bias: bias.as_ref().map(|(query_positions, key_positions, table)| kernel::cuda::Bias {
                    query_positions: query_positions.slice(),
                    key_positions: key_positions.slice(),
                    table: table.slice(),
                }),
                n_queries: self.n_queries(),
                precision: self.precision,
            })
        }

        pub(super) fn backward_on(
            &self,
            gpu: Gpu,
            upstream: Upstream,
            into: kernel::cuda::Gradients,
        ) -> Result<(), Failed> {
            let Upstream { out, lse, d_out } = upstream;
            let (out, lse, d_out) = (gpu.read(out)?, gpu.read(lse)?, gpu.read(d_out)?);
            let upstream =
                kernel::cuda::Upstream { out: out.slice(), lse: lse.slice(), d_out: d_out.slice() };
            let mut dots = gpu.room(self.n_queries() * self.heads.n_heads)?;
            self.on(gpu, |inputs| {
                kernel::cuda::backward(gpu.launcher(), inputs, upstream, dots.slice_mut(), into)
            })
        }

        /// The three gradients apart, and then row by row together: the query's, or zeros, the key's, the value's.
        pub(super) fn backward_fused_rows(&self, gpu: Gpu, upstream: Upstream, queries: &[u32]) -> Tensor {
            let ([width, ..], n_keys) = (self.widths(), self.n_keys());
            let [d_q, d_kv] = gpu.build([&self.out_shape(), &[2 * n_keys, width]], |[d_q, d_kv]| {
                let [d_k, d_v] = d_kv.split_at(n_keys * width);
                let [d_q, d_k, d_v] =
                    [d_q, d_k, d_v].map(|data| kernel::cuda::RowsMut { data, stride: width });
                self.backward_on(gpu, upstream, kernel::cuda::Gradients { d_q, d_k, d_v })
            });
            let d_q = rows::scatter(&d_q, queries, &[n_keys, width], None);
            let n = n_keys as u32;
            let order: Vec<u32> = (0..n).flat_map(|t| [2 * n + t, t, n + t]).collect();
            rows::gather(&d_kv, Some(&d_q), &order).reshaped(&[n_keys, 3 * width])
        }
    }
}
