//! A linear layer, with the residual added as the product is written.
//!
//! ```text
//! forward    y = x W + b + r
//! backward   d_x = d_y Wᵀ        d_r = d_y
//!            d_W = xᵀ d_y        d_b = Σ_rows d_y        where they are trained
//! ```
//! With frozen `W` there is no `d_W`, so `x` is not remembered. Only the weight is, where it lies.

use tensor::Tensor;
use tensor::ops::{pointwise, product};

use crate::{Gradients, Linear, NodeId, Op, Tape, Value};

/// `[T, n_in] -> [T, n_out]`; `residual` is `[T, n_out]`.
pub fn linear(tape: &Tape, x: &Value, layer: &Linear, residual: Option<&Value>) -> Value {
    let y = product::product(x.tensor(), layer.matrix(), layer.bias(), residual.map(Value::tensor));
    let (weight, bias) = layer.values(tape);
    let inputs = [Some(x), residual, Some(&weight), bias.as_ref()];
    let present: Vec<&Value> = inputs.into_iter().flatten().collect();
    tape.record_rows(y, &present, || LinearOp {
        nodes: inputs.map(|value| value.and_then(Value::node)),
        input: weight.node().map(|_| x.tensor().clone()),
        layer: layer.clone(),
    })
}

struct LinearOp {
    /// Input, residual, weight and bias.
    nodes: [Option<NodeId>; 4],
    /// `x`, if the weight is trained.
    input: Option<Tensor>,
    layer: Linear,
}

impl Op for LinearOp {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let LinearOp { nodes: [x, residual, weight, bias], layer, .. } = &*self;
        if let Some(x) = &self.input {
            grads.add(*weight, || product::backward_weight([x, &d_y], layer.matrix(), None));
        }
        grads.add(*bias, || pointwise::sum_of_rows(&d_y));
        grads.add(*x, || product::backward_input(&d_y, layer.matrix()));
        grads.add(*residual, || d_y);
    }
}
