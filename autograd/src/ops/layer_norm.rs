//! Layer normalisation.
//!
//! ```text
//! forward    y = (x - mean) * rstd * w + b          per row
//! backward   n = (x - mean) * rstd,  g = d_y * w
//!            d_x = rstd * (g - mean(g) - n * mean(g n))
//!            d_w = Σ_rows d_y * n,  d_b = Σ_rows d_y        where they are trained
//! ```
//! Remembers `x`, `mean` and `rstd`. Source: Ba, Kiros & Hinton 2016.

use kernels::Isa;
use kernels::layer_norm::{self as kernel, Affine};
use tensor::Tensor;

use crate::{Gradients, NodeId, Op, Tape, Value, Weight};

/// `[T, C] -> [T, C]`; `weight` and `bias` are `[C]` in f32.
pub fn layer_norm(tape: &Tape, x: &Value, weight: &Weight, bias: &Weight, eps: f32) -> Value {
    let rows = x.tensor().rows();
    let (mut mean, mut rstd) = (vec![0.0; rows], vec![0.0; rows]);
    let affine = Affine { weight: weight.f32s(), bias: bias.f32s(), eps };
    let y = Tensor::build(x.tensor().shape(), |y| {
        kernel::forward(Isa::best(), x.tensor().f32s(), affine, y, &mut mean, &mut rstd);
    });
    let affine = [weight.value(tape), bias.value(tape)];
    tape.record_rows(y, &[x, &affine[0], &affine[1]], || {
        // a gradient summed over the rows needs them all
        let x = if affine.iter().any(|v| v.node().is_some()) { x.everywhere() } else { x.clone() };
        LayerNorm {
            input: x.node(),
            affine: affine.each_ref().map(Value::node),
            x: x.remembered(),
            weight: affine[0].tensor().clone(),
            mean: x.remembered_of(mean),
            rstd: x.remembered_of(rstd),
        }
    })
}

struct LayerNorm {
    input: Option<NodeId>,
    /// Weight and bias.
    affine: [Option<NodeId>; 2],
    x: Tensor,
    weight: Tensor,
    mean: Vec<f32>,
    rstd: Vec<f32>,
}

impl Op for LayerNorm {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        if self.affine.iter().any(Option::is_some) {
            let [d_weight, d_bias] = self.d_affine(&d_y);
            grads.add(self.affine[0], || d_weight);
            grads.add(self.affine[1], || d_bias);
        }
        grads.add_into(self.input, self.x.shape(), |d_x, accumulate| {
            let kernel = if accumulate { kernel::accumulate_input } else { kernel::backward_input };
            kernel(Isa::best(), self.x.f32s(), self.weight.f32s(), &self.mean, &self.rstd, d_y.f32s(), d_x);
        });
    }
}

impl LayerNorm {
    fn d_affine(&self, d_y: &Tensor) -> [Tensor; 2] {
        let mut d_bias = vec![0.0; self.weight.len()];
        let d_weight = Tensor::build(self.weight.shape(), |d_weight| {
            let (x, d_y) = (self.x.f32s(), d_y.f32s());
            kernel::backward_affine(Isa::best(), x, &self.mean, &self.rstd, d_y, [d_weight, &mut d_bias]);
        });
        [d_weight, Tensor::from_vec(self.weight.shape(), d_bias)]
    }
}
