//! Activations of the MLP, plain and gated.
//!
//! ```text
//! plain      y = act(x)                 d_x = d_y * act'(x)
//! gated      y = act(gate) * up         d_gate = d_y * up * act'(gate),   d_up = d_y * act(gate)
//! ```
//! Both remember their inputs. Sources: Hendrycks & Gimpel 2016 (GELU), Shazeer 2020 (gated).

use kernels::activation::Activation;
use tensor::Tensor;
use tensor::ops::pointwise;

use crate::{Gradients, NodeId, Op, Tape, Value};

/// `y = act(x)`, any shape.
pub fn activation(tape: &Tape, x: &Value, act: Activation) -> Value {
    let y = pointwise::activation(act, x.tensor());
    tape.record(y, &[x], || PlainOp { input: x.node(), act, x: x.tensor().clone() })
}

struct PlainOp {
    input: Option<NodeId>,
    act: Activation,
    x: Tensor,
}

impl Op for PlainOp {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        grads.add(self.input, || pointwise::activation_backward(self.act, &self.x, &d_y));
    }
}

/// `y = act(gate) * up`, any shape.
pub fn gated(tape: &Tape, gate: &Value, up: &Value, act: Activation) -> Value {
    let y = pointwise::gated(act, gate.tensor(), up.tensor());
    tape.record(y, &[gate, up], || GatedOp {
        inputs: [gate.node(), up.node()],
        act,
        gate: gate.tensor().clone(),
        up: up.tensor().clone(),
    })
}

struct GatedOp {
    inputs: [Option<NodeId>; 2],
    act: Activation,
    gate: Tensor,
    up: Tensor,
}

impl Op for GatedOp {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let d = pointwise::gated_backward(self.act, [&self.gate, &self.up], &d_y);
        self.inputs.into_iter().zip(d).for_each(|(node, d)| grads.add(node, || d));
    }
}
