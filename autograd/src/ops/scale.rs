//! A value times a constant.
//!
//! ```text
//! forward    y = c x
//! backward   d_x = c d_y
//! ```

use kernels::{Isa, elementwise};
use tensor::Tensor;

use crate::{Gradients, NodeId, Op, Tape, Value};

/// `factor * x`, any shape.
pub fn scale(tape: &Tape, x: &Value, factor: f32) -> Value {
    let y = scaled(x.tensor(), factor);
    tape.record(y, &[x], || Scale { input: x.node(), factor })
}

fn scaled(x: &Tensor, factor: f32) -> Tensor {
    Tensor::build(x.shape(), |y| elementwise::scale(Isa::best(), factor, x.f32s(), y))
}

struct Scale {
    input: Option<NodeId>,
    factor: f32,
}

impl Op for Scale {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        grads.add(self.input, || scaled(&d_y, self.factor));
    }
}
