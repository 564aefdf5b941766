//! Activations of the MLP, plain and gated.
//!
//! ```text
//! plain      y = act(x)                 d_x = d_y * act'(x)
//! gated      y = act(gate) * up         d_gate = d_y * up * act'(gate),   d_up = d_y * act(gate)
//! ```
//! Both remember their inputs. Sources: Hendrycks & Gimpel 2016 (GELU), Shazeer 2020 (gated).

use kernels::Isa;
use kernels::activation::{self as kernel, Activation, Gated};
use tensor::Tensor;

use crate::{Gradients, NodeId, Op, Tape, Value};

/// `y = act(x)`, any shape.
pub fn activation(tape: &Tape, x: &Value, act: Activation) -> Value {
    let y = Tensor::build(x.tensor().shape(), |y| kernel::forward(Isa::best(), act, x.tensor().f32s(), y));
    tape.record(y, &[x], || PlainOp { input: x.node(), act, x: x.tensor().clone() })
}

struct PlainOp {
    input: Option<NodeId>,
    act: Activation,
    x: Tensor,
}

impl Op for PlainOp {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        grads.add(self.input, || {
            Tensor::build(self.x.shape(), |d_x| {
                kernel::backward(Isa::best(), self.act, self.x.f32s(), d_y.f32s(), d_x);
            })
        });
    }
}

/// `y = act(gate) * up`, any shape.
pub fn gated(tape: &Tape, gate: &Value, up: &Value, act: Activation) -> Value {
    let inputs = Gated { act, gate: gate.tensor().f32s(), up: up.tensor().f32s() };
    let y = Tensor::build(gate.tensor().shape(), |y| kernel::gated_forward(Isa::best(), inputs, y));
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
        let inputs = Gated { act: self.act, gate: self.gate.f32s(), up: self.up.f32s() };
        let mut d_up = None;
        let d_gate = Tensor::build(self.gate.shape(), |d_gate| {
            d_up = Some(Tensor::build(self.up.shape(), |d_up| {
                kernel::gated_backward(Isa::best(), inputs, d_y.f32s(), d_gate, d_up);
            }));
        });
        let [gate, up] = self.inputs;
        grads.add(gate, || d_gate);
        if let Some(d_up) = d_up {
            grads.add(up, || d_up);
        }
    }
}
