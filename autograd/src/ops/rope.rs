//! Rotary position embedding.
//!
//! ```text
//! forward    (a, b) -> (a cos - b sin, b cos + a sin)      for each pair of lanes (i, i + D/2)
//! backward   the rotation by the negative angle
//! ```
//! Remembers the angles, which all layers share. Source: Su et al. 2021, in the half-split form of Llama.

use std::sync::Arc;

use kernels::Isa;
use kernels::rope::{self as kernel, Table};
use tensor::Tensor;

use crate::{Gradients, NodeId, Op, Tape, Value};

/// `[T, heads * D] -> [T, heads * D]`, row `t` rotated by the angles of row `t` of the table.
pub fn rope(tape: &Tape, x: &Value, table: &Arc<Table>) -> Value {
    let y = Tensor::build(x.tensor().shape(), |y| kernel::forward(Isa::best(), table, x.tensor().f32s(), y));
    tape.record(y, &[x], || Rope { input: x.node(), table: table.clone() })
}

struct Rope {
    input: Option<NodeId>,
    table: Arc<Table>,
}

impl Op for Rope {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        grads.add(self.input, || {
            Tensor::build(d_y.shape(), |d_x| kernel::backward(Isa::best(), &self.table, d_y.f32s(), d_x))
        });
    }
}
