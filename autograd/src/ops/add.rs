//! The sum of two values.
//!
//! ```text
//! forward    y = a + b
//! backward   d_a = d_y,   d_b = d_y
//! ```
//! Remembers nothing.

use tensor::{Tensor, ops::pointwise};

use crate::{Gradients, NodeId, Op, Tape, Value};

/// `a + b`, of one shape.
pub fn add(tape: &Tape, a: &Value, b: &Value) -> Value {
    let y = pointwise::add(a.tensor(), b.tensor());
    tape.record(y, &[a, b], || Add([a.node(), b.node()]))
}

struct Add([Option<NodeId>; 2]);

impl Op for Add {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let [a, b] = self.0;
        grads.add(a, || d_y.clone());
        grads.add(b, || d_y);
    }
}
