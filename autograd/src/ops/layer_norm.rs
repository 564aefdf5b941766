//! Layer normalisation with frozen weight and bias.
//!
//! ```text
//! forward    y = (x - mean) * rstd * w + b          per row
//! backward   n = (x - mean) * rstd,  g = d_y * w
//!            d_x = rstd * (g - mean(g) - n * mean(g n))
//! ```
//! Remembers `x`, `mean` and `rstd`. Source: Ba, Kiros & Hinton 2016.

use kernels::Isa;
use kernels::layer_norm::{self as kernel, Affine};
use tensor::{Frozen, Tensor};

use crate::{Gradients, NodeId, Op, Tape, Value};

/// `[T, C] -> [T, C]`; `weight` and `bias` are `[C]` in f32.
pub fn layer_norm(tape: &Tape, x: &Value, weight: &Frozen, bias: &Frozen, eps: f32) -> Value {
    let rows = x.tensor().rows();
    let (mut mean, mut rstd) = (vec![0.0; rows], vec![0.0; rows]);
    let affine = Affine { weight: weight.f32s(), bias: bias.f32s(), eps };
    let y = Tensor::build(x.tensor().shape(), |y| {
        kernel::forward(Isa::best(), x.tensor().f32s(), affine, y, &mut mean, &mut rstd);
    });
    tape.record_rows(y, &[x], || LayerNorm {
        input: x.node(),
        x: x.remembered(),
        weight: weight.clone(),
        mean: x.remembered_of(mean),
        rstd: x.remembered_of(rstd),
    })
}

struct LayerNorm {
    input: Option<NodeId>,
    x: Tensor,
    weight: Frozen,
    mean: Vec<f32>,
    rstd: Vec<f32>,
}

impl Op for LayerNorm {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        grads.add_into(self.input, self.x.shape(), |d_x, accumulate| {
            let kernel = if accumulate { kernel::accumulate_input } else { kernel::backward_input };
            kernel(Isa::best(), self.x.f32s(), self.weight.f32s(), &self.mean, &self.rstd, d_y.f32s(), d_x);
        });
    }
}
