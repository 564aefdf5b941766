//! Some rows of a matrix.
//!
//! ```text
//! forward    y[i] = x[rows[i]]
//! backward   d_x[rows[i]] += d_y[i],   zero elsewhere
//! ```
//! Remembers the row numbers.

use std::sync::Arc;

use tensor::{Tensor, ops::rows};

use crate::{Gradients, NodeId, Op, Tape, Value};

/// `[T, C] -> [rows.len(), C]`; a row may be named more than once.
pub fn gather_rows(tape: &Tape, x: &Value, rows: &Arc<[u32]>) -> Value {
    let y = x.tensor().take_rows(rows);
    tape.record(y, &[x], || GatherRows { input: x.node(), from: x.tensor().rows(), rows: rows.clone() })
}

struct GatherRows {
    input: Option<NodeId>,
    from: usize,
    rows: Arc<[u32]>,
}

impl Op for GatherRows {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let shape = [self.from, d_y.width()];
        grads.add_into(self.input, &shape, |before| rows::scatter(&d_y, &self.rows, &shape, before));
    }
}
