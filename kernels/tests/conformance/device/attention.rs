//! Attention of every device.

use prompt_tuning_kernels::attention::{self, Gradients, Inputs, RowsMut, Upstream};
use prompt_tuning_kernels::matmul::Precision;

#[cfg(feature = "cuda")]
use super::cuda::{Host, read, write};
use super::{Device, unwritten};

impl Device {
    /// `(out, lse)`
    pub(crate) fn attention(self, inputs: Inputs, precision: Precision) -> (Vec<f32>, Vec<f32>) {
        let rows = inputs.n_queries * inputs.heads.n_heads;
        let (mut out, mut lse) = (unwritten(rows * inputs.heads.head_dim), unwritten(rows));
        match self {
            Device::Cpu(isa) => {
                assert_eq!(precision, Precision::F32, "the CPU has no other");
                attention::forward(isa, inputs, &mut out, &mut lse);
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let inputs = on_device(inputs, precision);
                attention::cuda::forward(&host, inputs, write(&mut out), write(&mut lse)).unwrap();
            }
        }
        (out, lse)
    }

    /// The gradients of q, k and v, matrices of these widths.
    pub(crate) fn attention_backward(
        self,
        inputs: Inputs,
        (upstream, precision): (Upstream, Precision),
        widths: [usize; 3],
    ) -> [Vec<f32>; 3] {
        let n_keys = inputs.mask.begin.len();
        let [mut d_q, mut d_k, mut d_v] =
            [inputs.n_queries * widths[0], n_keys * widths[1], n_keys * widths[2]].map(unwritten);
        match self {
            Device::Cpu(isa) => {
                let gradients = Gradients {
                    d_q: RowsMut::of(&mut d_q, widths[0]),
                    d_k: RowsMut::of(&mut d_k, widths[1]),
                    d_v: RowsMut::of(&mut d_v, widths[2]),
                };
                attention::backward(isa, inputs, upstream, gradients);
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let places =
                    [(&mut d_q[..], widths[0]), (&mut d_k[..], widths[1]), (&mut d_v[..], widths[2])];
                backward(&host, on_device(inputs, precision), upstream, places);
            }
        }
        [d_q, d_k, d_v]
    }

    /// The same, computed as columns of one matrix.
    pub(crate) fn attention_backward_side_by_side(
        self,
        inputs: Inputs,
        (upstream, precision): (Upstream, Precision),
        widths: [usize; 3],
    ) -> [Vec<f32>; 3] {
        let width: usize = widths.iter().sum();
        let mut all = unwritten(inputs.n_queries * width);
        match self {
            Device::Cpu(isa) => {
                let [d_q, d_k, d_v] = RowsMut::side_by_side(&mut all, widths);
                attention::backward(isa, inputs, upstream, Gradients { d_q, d_k, d_v });
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                // three slices cannot have columns of one matrix in turns, so each has a matrix with the others' columns
                let firsts = [0, widths[0], widths[0] + widths[1]];
                let mut parts = firsts.map(|first| all[first.min(all.len())..].to_vec());
                let [q, k, v] = &mut parts;
                let inputs = on_device(inputs, precision);
                backward(&host, inputs, upstream, [(q, width), (k, width), (v, width)]);
                for ((part, first), own) in parts.iter().zip(firsts).zip(widths) {
                    for (row, part) in all.chunks_mut(width).zip(part.chunks(width)) {
                        row[first..first + own].copy_from_slice(&part[..own]);
                    }
                }
            }
        }
        let mut first = 0;
        widths.map(|own| {
            let columns = first..first + own;
            first += own;
            all.chunks(width).flat_map(|row| row[columns.clone()].iter().copied()).collect()
        })
    }
}

#[cfg(feature = "cuda")]
fn on_device(inputs: Inputs<'_>, precision: Precision) -> attention::cuda::Inputs<'_> {
    use attention::cuda::{Bias, Mask, Rows};
    fn of(rows: attention::Rows<'_>) -> Rows<'_> {
        Rows { data: read(rows.data), stride: rows.stride }
    }
    attention::cuda::Inputs {
        heads: inputs.heads,
        q: of(inputs.q),
        k: of(inputs.k),
        v: of(inputs.v),
        mask: Mask { begin: read(inputs.mask.begin), end: read(inputs.mask.end) },
        bias: inputs.bias.map(|bias| Bias {
            query_positions: read(bias.query_positions),
            key_positions: read(bias.key_positions),
            table: read(bias.table),
        }),
        n_queries: inputs.n_queries,
        precision,
    }
}

/// Into three slices with their strides.
#[cfg(feature = "cuda")]
fn backward(
    host: &Host,
    inputs: attention::cuda::Inputs,
    upstream: Upstream,
    [q, k, v]: [(&mut [f32], usize); 3],
) {
    let mut dots = unwritten(upstream.lse.len());
    let rows = |(data, stride)| attention::cuda::RowsMut { data: write(data), stride };
    let gradients = attention::cuda::Gradients { d_q: rows(q), d_k: rows(k), d_v: rows(v) };
    let Upstream { out, lse, d_out } = upstream;
    let upstream = attention::cuda::Upstream { out: read(out), lse: read(lse), d_out: read(d_out) };
    attention::cuda::backward(host, inputs, upstream, write(&mut dots), gradients).unwrap();
}
