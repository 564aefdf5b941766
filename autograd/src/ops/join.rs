//! Matrices put together, and taken apart.
//!
//! ```text
//! stack      y = [a; b]  (rows of a, then rows of b)      d_a, d_b = the rows of d_y
//! beside     y = [a  b]  (columns)                        d_a, d_b = the columns of d_y
//! columns    y = x[:, from..to]                           d_x = d_y there, zero elsewhere
//! ```
//! Remember sizes only.

use std::ops::Range;

use tensor::Tensor;
use tensor::ops::rows::gather;

use crate::{Gradients, NodeId, Op, Tape, Value};

/// `[A, C]` above `[B, C]`: `[A + B, C]`.
pub fn stack(tape: &Tape, above: &Value, below: &Value) -> Value {
    let parts = [above, below];
    let [rows, more] = parts.map(|v| v.tensor().rows());
    let all: Vec<u32> = (0..(rows + more) as u32).collect();
    let y = gather(above.tensor(), Some(below.tensor()), &all);
    tape.record(y, &parts, || Stack { nodes: parts.map(Value::node), rows })
}

struct Stack {
    nodes: [Option<NodeId>; 2],
    /// Of the upper part.
    rows: usize,
}

impl Op for Stack {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let (rows, all) = (self.rows as u32, d_y.rows() as u32);
        for (node, part) in self.nodes.into_iter().zip([0..rows, rows..all]) {
            grads.add(node, || d_y.take_rows(&part.collect::<Vec<u32>>()));
        }
    }
}

/// `[T, A]` beside `[T, B]`: `[T, A + B]`.
pub fn beside(tape: &Tape, left: &Value, right: &Value) -> Value {
    let parts = [left, right];
    let widths = parts.map(|v| v.tensor().width());
    let y = Tensor::build(&[left.tensor().rows(), widths[0] + widths[1]], |y| {
        put(left.tensor(), y, widths[0] + widths[1], 0);
        put(right.tensor(), y, widths[0] + widths[1], widths[0]);
    });
    tape.record(y, &parts, || Beside { nodes: parts.map(Value::node), widths })
}

struct Beside {
    nodes: [Option<NodeId>; 2],
    widths: [usize; 2],
}

impl Op for Beside {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let [left, right] = self.widths;
        for (node, at) in self.nodes.into_iter().zip([0..left, left..left + right]) {
            grads.add(node, || take(&d_y, at));
        }
    }
}

/// Some columns: `[T, C]` to `[T, at.len()]`.
pub fn columns(tape: &Tape, x: &Value, at: Range<usize>) -> Value {
    let (y, width) = (take(x.tensor(), at.clone()), x.tensor().width());
    tape.record(y, &[x], || Columns { node: x.node(), width, at })
}

struct Columns {
    node: Option<NodeId>,
    width: usize,
    at: Range<usize>,
}

impl Op for Columns {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        grads.add(self.node, || {
            Tensor::build(&[d_y.rows(), self.width], |d_x| {
                d_x.fill(0.0);
                put(&d_y, d_x, self.width, self.at.start);
            })
        });
    }
}

fn take(x: &Tensor, at: Range<usize>) -> Tensor {
    Tensor::build(&[x.rows(), at.len()], |out| {
        let rows = out.chunks_exact_mut(at.len().max(1)).zip(x.f32s().chunks_exact(x.width().max(1)));
        rows.for_each(|(out, row)| out.copy_from_slice(&row[at.clone()]));
    })
}

/// Writes `x` into columns of `out`, whose rows are `width` long.
fn put(x: &Tensor, out: &mut [f32], width: usize, start: usize) {
    let rows = out.chunks_exact_mut(width.max(1)).zip(x.f32s().chunks_exact(x.width().max(1)));
    rows.for_each(|(out, row)| out[start..start + row.len()].copy_from_slice(row));
}
