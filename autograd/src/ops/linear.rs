//! A frozen linear layer, with the residual added as the product is written.
//!
//! ```text
//! forward    y = x W + b + r
//! backward   d_x = d_y Wᵀ        d_r = d_y
//! ```
//! `W` and `b` are frozen: there is no `d_W`, so `x` is not remembered. Only the weight is, where it lies.

use kernels::Isa;
use kernels::matmul::{self, Epilogue};
use tensor::Tensor;

use crate::{Gradients, Linear, NodeId, Op, Tape, Value};

/// `[T, n_in] -> [T, n_out]`; `residual` is `[T, n_out]`.
pub fn linear(tape: &Tape, x: &Value, layer: &Linear, residual: Option<&Value>) -> Value {
    let rows = x.tensor().len() / layer.n_in();
    let epilogue = Epilogue { bias: layer.bias(), residual: residual.map(|r| r.tensor().f32s()) };
    let y = Tensor::build(&[rows, layer.n_out()], |y| {
        matmul::forward(Isa::best(), x.tensor().f32s(), layer.weight(), epilogue, y);
    });
    tape.record_rows(y, &[x, residual.unwrap_or(x)], || LinearOp {
        x: x.node(),
        residual: residual.and_then(Value::node),
        layer: layer.clone(),
    })
}

struct LinearOp {
    x: Option<NodeId>,
    residual: Option<NodeId>,
    layer: Linear,
}

impl Op for LinearOp {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        grads.add(self.x, || {
            Tensor::build(&[d_y.rows(), self.layer.n_in()], |d_x| {
                matmul::backward_input(Isa::best(), d_y.f32s(), self.layer.weight(), d_x);
            })
        });
        grads.add(self.residual, || d_y);
    }
}
