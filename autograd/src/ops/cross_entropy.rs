//! The language-model head and the cross-entropy loss at the scored rows, in one operation.
//!
//! ```text
//! forward    z = h W,   log p = z[token] - lse(z),   loss = Σ_t weight_t · (-log p_t)
//! backward   d_z[row] = Σ_{t at row} weight_t · (softmax(z) - onehot(token_t)),   d_h = d_z Wᵀ
//!            d_W = hᵀ d_z,   d_b = Σ_rows d_z                                      where they are trained
//! ```
//! The gradient of a sum of losses is known before the loss is, up to the factor that comes from above. So it is
//! made right here, a block of rows at a time, and no more than one block of `[rows, V]` logits ever exists.
//! Remembers these gradients for a factor of one.

use kernels::cross_entropy::Target;
use tensor::Tensor;
use tensor::ops::score::{backward_hidden, score};
use tensor::ops::{pointwise, product, sum};

use crate::{Gradients, Linear, NodeId, Op, Tape, Value};

/// Numbers of logits that exist at one time: 32 MB. More rows share one packing of the head's weight.
const BLOCK_LOGITS: usize = 8 << 20;

/// Rows of logits that exist at one time.
fn block_rows(vocab: usize) -> usize {
    (BLOCK_LOGITS / vocab.max(1)).clamp(16, 1024)
}

/// The loss, and the log-probability of each target.
#[derive(Debug)]
pub struct Scored {
    /// `Σ weight · (-log p)`, shape `[1]`.
    pub loss: Value,
    /// `log p` of each target, in the order given.
    pub log_probs: Vec<f32>,
}

/// Scores `targets` (sorted by row) on `hidden` `[n, C]` through the head `[C -> V]`.
pub fn cross_entropy(tape: &Tape, hidden: &Value, head: &Linear, targets: &[Target]) -> Scored {
    let h = hidden.tensor();
    let (weight, bias) = head.values(tape);
    let inputs = [Some(hidden), Some(&weight), bias.as_ref()];
    let nodes = inputs.map(|value| value.and_then(Value::node));
    let mut d = Grads::of(nodes.map(|node| node.is_some()), h, head);
    let mut log_probs = Vec::with_capacity(targets.len());
    for first in (0..h.rows()).step_by(block_rows(head.n_out())) {
        let rows = first..h.rows().min(first + block_rows(head.n_out()));
        let (a, b) = (at_row(targets, rows.start), at_row(targets, rows.end));
        let local: Vec<_> =
            targets[a..b].iter().map(|t| Target { row: t.row - first as u32, ..*t }).collect();
        let scores = score((h, rows), (head.matrix(), head.bias()), &local, d.any());
        log_probs.extend(scores.log_probs);
        if let Some(d_logits) = scores.d_logits {
            d.add([&scores.hidden, &d_logits], first, head);
        }
    }
    assert_eq!(log_probs.len(), targets.len(), "targets are sorted by row and lie within the hidden rows");
    let loss: f64 = targets.iter().zip(&log_probs).map(|(t, &lp)| -f64::from(t.weight) * f64::from(lp)).sum();
    let loss = Tensor::from_vec(&[1], vec![loss as f32]);
    let present: Vec<&Value> = inputs.into_iter().flatten().collect();
    let loss = tape.record(loss, &present, || CrossEntropy { nodes, d: [d.hidden, d.weight, d.bias] });
    Scored { loss, log_probs }
}

/// Gradients that are wanted, as they grow block by block.
struct Grads {
    hidden: Option<Tensor>,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
}

impl Grads {
    fn of([hidden, weight, bias]: [bool; 3], h: &Tensor, head: &Linear) -> Grads {
        Grads {
            hidden: hidden.then(|| h.room_beside(h.shape())),
            // the first block makes it
            weight: weight.then(|| Tensor::room(&[0])),
            bias: bias.then(|| Tensor::build(&[head.n_out()], |d| d.fill(0.0))),
        }
    }

    fn any(&self) -> bool {
        self.hidden.is_some() || self.weight.is_some() || self.bias.is_some()
    }

    /// Adds what the gradient of the logits of some rows `h` of the hidden states says, which are those from `first` on.
    fn add(&mut self, [h, d_logits]: [&Tensor; 2], first: usize, head: &Linear) {
        if let Some(d) = &mut self.hidden {
            backward_hidden(d_logits, head.matrix(), d, first);
        }
        if let Some(d_weight) = &mut self.weight {
            let before = (!d_weight.is_empty()).then_some(&*d_weight);
            *d_weight = product::backward_weight([h, d_logits], head.matrix(), before);
        }
        if let Some(d_bias) = self.bias.take() {
            self.bias = Some(sum(d_bias, pointwise::sum_of_rows(d_logits)));
        }
    }
}

fn at_row(targets: &[Target], row: usize) -> usize {
    targets.partition_point(|t| (t.row as usize) < row)
}

struct CrossEntropy {
    /// Hidden states, weight and bias of the head.
    nodes: [Option<NodeId>; 3],
    d: [Option<Tensor>; 3],
}

impl Op for CrossEntropy {
    fn backward(self: Box<Self>, d_loss: Tensor, grads: &mut Gradients) {
        let factor = d_loss.f32s()[0];
        for (node, d) in self.nodes.into_iter().zip(self.d) {
            let Some(d) = d else { continue };
            grads.add(node, || if factor == 1.0 { d } else { pointwise::scale(factor, &d) });
        }
    }
}
