//! A table whose columns are picked from the rows of a smaller one: T5's bias by distance from its buckets.
//!
//! ```text
//! forward    y[h, d] = weight[rows[d], h]
//! backward   d_weight[r, h] = Σ_{d: rows[d] = r} d_y[h, d]        where it is trained
//! ```

use std::sync::Arc;

use tensor::Tensor;

use crate::{Gradients, NodeId, Op, Tape, Value, Weight};

/// `[H, D]` from `weight` `[n, H]` in f32, where `D` is the length of `rows`.
pub fn spread(tape: &Tape, weight: &Weight, rows: &Arc<[usize]>) -> Value {
    let n_heads = weight.shape()[1];
    let y = Tensor::build(&[n_heads, rows.len()], |y| {
        for (head, y) in y.chunks_exact_mut(rows.len()).enumerate() {
            y.iter_mut().zip(&**rows).for_each(|(y, row)| *y = weight.f32s()[row * n_heads + head]);
        }
    });
    let weight = weight.value(tape);
    tape.record(y, &[&weight], || Spread {
        weight: weight.node(),
        shape: weight.tensor().shape().to_vec(),
        rows: rows.clone(),
    })
}

struct Spread {
    weight: Option<NodeId>,
    shape: Vec<usize>,
    rows: Arc<[usize]>,
}

impl Op for Spread {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let n_heads = self.shape[1];
        grads.add(self.weight, || {
            Tensor::build(&self.shape, |d| {
                d.fill(0.0);
                for (head, d_y) in d_y.f32s().chunks_exact(self.rows.len()).enumerate() {
                    d_y.iter().zip(&*self.rows).for_each(|(d_y, row)| d[row * n_heads + head] += d_y);
                }
            })
        });
    }
}
