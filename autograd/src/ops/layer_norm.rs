//! Layer normalisation.
//!
//! ```text
//! forward    y = (x - mean) * rstd * w + b          per row
//! backward   n = (x - mean) * rstd,  g = d_y * w
//!            d_x = rstd * (g - mean(g) - n * mean(g n))
//!            d_w = Σ_rows d_y * n,  d_b = Σ_rows d_y        where they are trained
//! ```
//! Remembers `x`, `mean` and `rstd`. Source: Ba, Kiros & Hinton 2016.

use tensor::Tensor;
use tensor::ops::norm::{self, Backward};

use crate::{Gradients, NodeId, Op, Tape, Value, Weight};

/// `[T, C] -> [T, C]`; `weight` and `bias` are `[C]` in f32.
pub fn layer_norm(tape: &Tape, x: &Value, weight: &Weight, bias: &Weight, eps: f32) -> Value {
    let (y, [mean, rstd]) = norm::layer_norm(x.tensor(), [weight.tensor(), bias.tensor()], eps);
    let affine = [weight.value(tape), bias.value(tape)];
    tape.record_rows(y, &[x, &affine[0], &affine[1]], || {
        // a gradient summed over the rows needs them all
        let x = if affine.iter().any(|v| v.node().is_some()) { x.everywhere() } else { x.clone() };
        LayerNorm {
            input: x.node(),
            affine: affine.each_ref().map(Value::node),
            x: x.remembered(),
            weight: affine[0].tensor().clone(),
            mean: x.remembered_of(&mean),
            rstd: x.remembered_of(&rstd),
        }
    })
}

struct LayerNorm {
    input: Option<NodeId>,
    /// Weight and bias.
    affine: [Option<NodeId>; 2],
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
}

impl Op for LayerNorm {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let from = Backward { x: &self.x, mean: Some(&self.mean), rstd: &self.rstd, d_y: &d_y };
        if self.affine.iter().any(Option::is_some) {
            let d = norm::layer_norm_backward_affine(from);
            self.affine.into_iter().zip(d).for_each(|(node, d)| grads.add(node, || d));
        }
        grads.add_into(self.input, self.x.shape(), |before| norm::backward_input(from, &self.weight, before));
    }
}
