//! A value times a constant.
//!
//! ```text
//! forward    y = c x
//! backward   d_x = c d_y
//! ```

use tensor::{Tensor, ops::pointwise};

use crate::{Gradients, NodeId, Op, Tape, Value};

/// `factor * x`, any shape.
pub fn scale(tape: &Tape, x: &Value, factor: f32) -> Value {
    let y = pointwise::scale(factor, x.tensor());
    tape.record(y, &[x], || Scale { input: x.node(), factor })
}

struct Scale {
    input: Option<NodeId>,
    factor: f32,
}

impl Op for Scale {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        grads.add(self.input, || pointwise::scale(self.factor, &d_y));
    }
}
