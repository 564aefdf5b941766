//! Root-mean-square normalisation.
//!
//! ```text
//! forward    y = x * rstd * w,   rstd = (mean(x²) + eps)^(-1/2)      per row
//! backward   g = d_y * w
//!            d_x = rstd * (g - x * rstd² * mean(g x))
//!            d_w = Σ_rows d_y * x * rstd                             where it is trained
//! ```
//! Remembers `x` and `rstd`. Source: Zhang & Sennrich 2019.

use kernels::Isa;
use kernels::rms_norm as kernel;
use tensor::Tensor;

use crate::{Gradients, NodeId, Op, Tape, Value, Weight};

/// `[T, C] -> [T, C]`; `weight` is `[C]` in f32.
pub fn rms_norm(tape: &Tape, x: &Value, weight: &Weight, eps: f32) -> Value {
    let mut rstd = vec![0.0; x.tensor().rows()];
    let y = Tensor::build(x.tensor().shape(), |y| {
        kernel::forward(Isa::best(), x.tensor().f32s(), weight.f32s(), eps, y, &mut rstd);
    });
    let weight = weight.value(tape);
    tape.record_rows(y, &[x, &weight], || {
        // a gradient summed over the rows needs them all
        let x = if weight.node().is_some() { x.everywhere() } else { x.clone() };
        RmsNorm {
            nodes: [x.node(), weight.node()],
            x: x.remembered(),
            weight: weight.tensor().clone(),
            rstd: x.remembered_of(rstd),
        }
    })
}

struct RmsNorm {
    /// Input and weight.
    nodes: [Option<NodeId>; 2],
    x: Tensor,
    weight: Tensor,
    rstd: Vec<f32>,
}

impl Op for RmsNorm {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        grads.add(self.nodes[1], || {
            Tensor::build(self.weight.shape(), |d_weight| {
                kernel::backward_weight(Isa::best(), self.x.f32s(), &self.rstd, d_y.f32s(), d_weight);
            })
        });
        grads.add_into(self.nodes[0], self.x.shape(), |d_x, accumulate| {
            let kernel = if accumulate { kernel::accumulate_input } else { kernel::backward_input };
            kernel(Isa::best(), self.x.f32s(), self.weight.f32s(), &self.rstd, d_y.f32s(), d_x);
        });
    }
}
