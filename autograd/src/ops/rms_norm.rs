//! Root-mean-square normalisation with a frozen weight.
//!
//! ```text
//! forward    y = x * rstd * w,   rstd = (mean(x²) + eps)^(-1/2)      per row
//! backward   g = d_y * w
//!            d_x = rstd * (g - x * rstd² * mean(g x))
//! ```
//! Remembers `x` and `rstd`. Source: Zhang & Sennrich 2019.

use kernels::Isa;
use kernels::rms_norm as kernel;
use tensor::{Frozen, Tensor};

use crate::{Gradients, NodeId, Op, Tape, Value};

/// `[T, C] -> [T, C]`; `weight` is `[C]` in f32.
pub fn rms_norm(tape: &Tape, x: &Value, weight: &Frozen, eps: f32) -> Value {
    let mut rstd = vec![0.0; x.tensor().rows()];
    let y = Tensor::build(x.tensor().shape(), |y| {
        kernel::forward(Isa::best(), x.tensor().f32s(), weight.f32s(), eps, y, &mut rstd);
    });
    tape.record_rows(y, &[x], || RmsNorm {
        input: x.node(),
        x: x.remembered(),
        weight: weight.clone(),
        rstd: x.remembered_of(rstd),
    })
}

struct RmsNorm {
    input: Option<NodeId>,
    x: Tensor,
    weight: Frozen,
    rstd: Vec<f32>,
}

impl Op for RmsNorm {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        grads.add_into(self.input, self.x.shape(), |d_x, accumulate| {
            let kernel = if accumulate { kernel::accumulate_input } else { kernel::backward_input };
            kernel(Isa::best(), self.x.f32s(), self.weight.f32s(), &self.rstd, d_y.f32s(), d_x);
        });
    }
}
