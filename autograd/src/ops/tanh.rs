//! The hyperbolic tangent, of prompt encoders.
//!
//! ```text
//! y = tanh(x)          d_x = d_y (1 - y²)
//! ```
//! Remembers `y`.

use tensor::Tensor;

use crate::{Gradients, NodeId, Op, Tape, Value};

/// Any shape.
pub fn tanh(tape: &Tape, x: &Value) -> Value {
    let y = Tensor::build(x.tensor().shape(), |y| {
        y.iter_mut().zip(x.tensor().f32s()).for_each(|(y, x)| *y = x.tanh());
    });
    tape.record(y.clone(), &[x], || Tanh { input: x.node(), y })
}

struct Tanh {
    input: Option<NodeId>,
    y: Tensor,
}

impl Op for Tanh {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        grads.add(self.input, || {
            Tensor::build(self.y.shape(), |d_x| {
                let of = self.y.f32s().iter().zip(d_y.f32s());
                d_x.iter_mut().zip(of).for_each(|(d_x, (y, d_y))| *d_x = d_y * (1.0 - y * y));
            })
        });
    }
}
