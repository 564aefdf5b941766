//! A linear layer, with the residual added as the product is written.
//!
//! ```text
//! forward    y = x W + b + r
//! backward   d_x = d_y Wᵀ        d_r = d_y
//!            d_W = xᵀ d_y        d_b = Σ_rows d_y        where they are trained
//! ```
//! With frozen `W` there is no `d_W`, so `x` is not remembered. Only the weight is, where it lies.

use kernels::matmul::{self, Epilogue};
use kernels::{Isa, elementwise};
use tensor::Tensor;

use crate::{Gradients, Linear, NodeId, Op, Tape, Value};

/// `[T, n_in] -> [T, n_out]`; `residual` is `[T, n_out]`.
pub fn linear(tape: &Tape, x: &Value, layer: &Linear, residual: Option<&Value>) -> Value {
    let rows = x.tensor().len() / layer.n_in();
    let epilogue = Epilogue { bias: layer.bias(), residual: residual.map(|r| r.tensor().f32s()) };
    let y = Tensor::build(&[rows, layer.n_out()], |y| {
        matmul::forward(Isa::best(), x.tensor().f32s(), layer.weight(), epilogue, y);
    });
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
            grads.add(*weight, || {
                Tensor::build(layer.shape(), |d_w| layer.d_weight(x.f32s(), d_y.f32s(), None, d_w))
            });
        }
        grads.add(*bias, || {
            Tensor::build(&[layer.n_out()], |d_b| elementwise::sum_of_rows(Isa::best(), d_y.f32s(), d_b))
        });
        grads.add(*x, || {
            Tensor::build(&[d_y.rows(), layer.n_in()], |d_x| {
                matmul::backward_input(Isa::best(), d_y.f32s(), layer.weight(), d_x);
            })
        });
        grads.add(*residual, || d_y);
    }
}
