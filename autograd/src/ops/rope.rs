//! Rotary position embedding.
//!
//! ```text
//! forward    (a, b) -> (a cos - b sin, b cos + a sin)      for each pair of lanes (i, i + D/2)
//! backward   the rotation by the negative angle
//! ```
//! Remembers the angles, which all layers share. Source: Su et al. 2021, in the half-split form of Llama.

use std::sync::Arc;

use tensor::Tensor;
use tensor::ops::rope::{self as op, Angles};

use crate::{Gradients, NodeId, Op, Tape, Value};

/// `[T, heads * D] -> [T, heads * D]`, row `t` rotated by the angles of token `t`.
pub fn rope(tape: &Tape, x: &Value, angles: &Arc<Angles>) -> Value {
    let y = op::rope(x.tensor(), angles);
    tape.record(y, &[x], || Rope { input: x.node(), angles: angles.clone() })
}

struct Rope {
    input: Option<NodeId>,
    angles: Arc<Angles>,
}

impl Op for Rope {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        grads.add(self.input, || op::backward(&d_y, &self.angles));
    }
}
