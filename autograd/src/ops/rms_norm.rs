//! Root-mean-square normalisation.
//!
//! ```text
//! forward    y = x * rstd * w,   rstd = (mean(x²) + eps)^(-1/2)      per row
//! backward   g = d_y * w
//!            d_x = rstd * (g - x * rstd² * mean(g x))
//!            d_w = Σ_rows d_y * x * rstd                             where it is trained
//! ```
//! Remembers `x` and `rstd`. Source: Zhang & Sennrich 2019.

use tensor::Tensor;
use tensor::ops::norm::{self, Backward};

use crate::{Gradients, NodeId, Op, Tape, Value, Weight};

/// `[T, C] -> [T, C]`; `weight` is `[C]` in f32.
pub fn rms_norm(tape: &Tape, x: &Value, weight: &Weight, eps: f32) -> Value {
    let (y, rstd) = norm::rms_norm(x.tensor(), weight.tensor(), eps);
    let weight = weight.value(tape);
    tape.record_rows(y, &[x, &weight], || {
        // a gradient summed over the rows needs them all
        let x = if weight.node().is_some() { x.everywhere() } else { x.clone() };
        RmsNorm {
            nodes: [x.node(), weight.node()],
            x: x.remembered(),
            weight: weight.tensor().clone(),
            rstd: x.remembered_of(&rstd),
        }
    })
}

struct RmsNorm {
    /// Input and weight.
    nodes: [Option<NodeId>; 2],
    x: Tensor,
    weight: Tensor,
    rstd: Tensor,
}

impl Op for RmsNorm {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let from = Backward { x: &self.x, mean: None, rstd: &self.rstd, d_y: &d_y };
        grads.add(self.nodes[1], || norm::rms_norm_backward_weight(from));
        grads.add_into(self.nodes[0], self.x.shape(), |before| {
            norm::backward_input(from, &self.weight, before)
        });
    }
}
