//! Matrices put together, and taken apart.
//!
//! ```text
//! stack      y = [a; b]  (rows of a, then rows of b)      d_a, d_b = the rows of d_y
//! beside     y = [a  b]  (columns)                        d_a, d_b = the columns of d_y
//! columns    y = x[:, from..to]                           d_x = d_y there, zero elsewhere
//! ```
//! Remember sizes only. All of them pick rows: columns are rows of the same numbers in a narrower shape.

use std::ops::Range;

use tensor::Tensor;
use tensor::ops::rows::{cut, gather, places, scatter};

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
    let rows = left.tensor().rows();
    let width = divisor(widths);
    let [narrow_left, narrow_right] = parts.map(|v| cut(v.tensor(), width));
    let [of_left, of_right] = widths.map(|of_part| (of_part / width) as u32);
    let behind = narrow_left.rows() as u32;
    let row =
        |t: u32| (t * of_left..(t + 1) * of_left).chain(behind + t * of_right..behind + (t + 1) * of_right);
    let order: Vec<u32> = (0..rows as u32).flat_map(row).collect();
    let y = gather(&narrow_left, Some(&narrow_right), &order).reshaped(&[rows, widths[0] + widths[1]]);
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
        let Columns { node, width, at } = *self;
        grads.add(node, || {
            let piece = divisor([width, at.start, at.len()]);
            let places = places(0..d_y.rows() as u32, width / piece, at.start / piece..at.end / piece);
            let d_x = scatter(&cut(&d_y, piece), &places, &[d_y.rows() * width / piece, piece], None);
            d_x.reshaped(&[d_y.rows(), width])
        });
    }
}

fn take(x: &Tensor, at: Range<usize>) -> Tensor {
    let piece = divisor([x.width(), at.start, at.len()]);
    let places = places(0..x.rows() as u32, x.width() / piece, at.start / piece..at.end / piece);
    gather(&cut(x, piece), None, &places).reshaped(&[x.rows(), at.len()])
}

/// The widest piece of which all these widths are made.
fn divisor<const N: usize>(widths: [usize; N]) -> usize {
    let common = |a: usize, b: usize| {
        let (mut a, mut b) = (a, b);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    widths.into_iter().fold(0, common).max(1)
}
