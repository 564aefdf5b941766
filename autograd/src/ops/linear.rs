//! A linear layer, with the residual added as the product is written.
//!
//! ```text
//! forward    y = x W + b + r
//! backward   d_x = d_y Wᵀ        d_r = d_y
//!            d_W = xᵀ d_y        d_b = Σ_rows d_y        where they are trained
//! ```
//! With frozen `W` and `b` there is no `d_W`, so `x` is not remembered. Only the weight is, where it lies.

use kernels::Isa;
use kernels::matmul::{self, Epilogue, reference::Shape};
use tensor::Tensor;

use crate::{Gradients, Linear, NodeId, Op, Tape, Value};

/// `[T, n_in] -> [T, n_out]`; `residual` is `[T, n_out]`.
pub fn linear(tape: &Tape, x: &Value, layer: &Linear, residual: Option<&Value>) -> Value {
    let rows = x.tensor().len() / layer.n_in();
    let epilogue = Epilogue { bias: layer.bias(), residual: residual.map(|r| r.tensor().f32s()) };
    let y = Tensor::build(&[rows, layer.n_out()], |y| {
        matmul::forward(Isa::best(), x.tensor().f32s(), layer.weight(), epilogue, y);
    });
    let [weight, bias] = layer.values();
    let trained = [weight, bias].map(|v| v.and_then(Value::node));
    tape.record_rows(y, &[x, residual.unwrap_or(x), weight.unwrap_or(x), bias.unwrap_or(x)], || LinearOp {
        x: x.node(),
        residual: residual.and_then(Value::node),
        trained,
        input: trained[0].map(|_| x.tensor().clone()),
        layer: layer.clone(),
    })
}

struct LinearOp {
    x: Option<NodeId>,
    residual: Option<NodeId>,
    /// Weight and bias.
    trained: [Option<NodeId>; 2],
    /// `x`, if the weight is trained.
    input: Option<Tensor>,
    layer: Linear,
}

impl Op for LinearOp {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let LinearOp { layer, trained: [weight, bias], .. } = &*self;
        if let Some(x) = &self.input {
            grads.add(*weight, || d_weight(layer, x, &d_y));
        }
        grads.add(*bias, || {
            Tensor::build(&[layer.n_out()], |d_b| {
                d_b.fill(0.0);
                for d_y in d_y.f32s().chunks_exact(layer.n_out()) {
                    d_b.iter_mut().zip(d_y).for_each(|(sum, d)| *sum += d);
                }
            })
        });
        grads.add(self.x, || {
            Tensor::build(&[d_y.rows(), layer.n_in()], |d_x| {
                matmul::backward_input(Isa::best(), d_y.f32s(), layer.weight(), d_x);
            })
        });
        grads.add(self.residual, || d_y);
    }
}

fn d_weight(layer: &Linear, x: &Tensor, d_y: &Tensor) -> Tensor {
    let matmul::Weight { layout, n_in, n_out, .. } = layer.weight();
    let shape = match layout {
        matmul::Layout::OutIn => [n_out, n_in],
        matmul::Layout::InOut => [n_in, n_out],
    };
    Tensor::build(&shape, |d_w| {
        let shape = Shape { layout, n_in, n_out };
        matmul::backward_weight(Isa::best(), x.f32s(), d_y.f32s(), shape, d_w);
    })
}
