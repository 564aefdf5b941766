//! The language-model head and the cross-entropy loss at the scored rows, in one operation.
//!
//! ```text
//! forward    z = h W,   log p = z[token] - lse(z),   loss = Σ_t weight_t · (-log p_t)
//! backward   d_z[row] = Σ_{t at row} weight_t · (softmax(z) - onehot(token_t)),   d_h = d_z Wᵀ
//! ```
//! The gradient of a sum of losses is known before the loss is, up to the factor that comes from above. So it is
//! made right here, a block of rows at a time, and no more than one block of `[rows, V]` logits ever exists.
//! Remembers `d_h` for a factor of one.

use kernels::cross_entropy::{self as kernel, Target};
use kernels::matmul::{self, Epilogue};
use kernels::{Isa, elementwise};
use tensor::{Buffer, Tensor};

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
    let wanted = hidden.node().is_some();
    let mut log_probs = Vec::with_capacity(targets.len());
    let mut d_hidden = wanted.then(|| Tensor::build(h.shape(), |_| ()));
    let block = block_rows(head.n_out());
    let blocks = h.f32s().chunks(block * head.n_in()).enumerate();
    for (i, rows) in blocks {
        let first = (i * block) as u32;
        let until = first + (rows.len() / head.n_in()) as u32;
        let (a, b) = (at_row(targets, first), at_row(targets, until));
        let local: Vec<_> = targets[a..b].iter().map(|t| Target { row: t.row - first, ..*t }).collect();
        let d_rows = d_hidden
            .as_mut()
            .and_then(Tensor::get_mut)
            .map(|d| &mut d[i * block * head.n_in()..][..rows.len()]);
        score_block(rows, head, &local, d_rows, &mut log_probs);
    }
    assert_eq!(log_probs.len(), targets.len(), "targets are sorted by row and lie within the hidden rows");
    let loss: f64 = targets.iter().zip(&log_probs).map(|(t, &lp)| -f64::from(t.weight) * f64::from(lp)).sum();
    let loss = Tensor::from_vec(&[1], vec![loss as f32]);
    let loss = match d_hidden {
        Some(d_hidden) => tape.record(loss, &[hidden], || CrossEntropy { hidden: hidden.node(), d_hidden }),
        None => Value::constant(loss),
    };
    Scored { loss, log_probs }
}

fn at_row(targets: &[Target], row: u32) -> usize {
    targets.partition_point(|t| t.row < row)
}

fn score_block(
    rows: &[f32],
    head: &Linear,
    targets: &[Target],
    d_rows: Option<&mut [f32]>,
    log_probs: &mut Vec<f32>,
) {
    let (isa, n, vocab) = (Isa::best(), rows.len() / head.n_in(), head.n_out());
    let mut logits = Buffer::uninit(n * vocab);
    matmul::forward(
        isa,
        rows,
        head.weight(),
        Epilogue { bias: head.bias(), residual: None },
        logits.as_mut_slice(),
    );
    let logits = logits.as_slice();
    let mut lse = vec![0.0; n];
    kernel::log_sum_exp(isa, logits, vocab, &mut lse);
    log_probs.extend(
        targets.iter().map(|t| logits[t.row as usize * vocab + t.token as usize] - lse[t.row as usize]),
    );
    if let Some(d_rows) = d_rows {
        let mut d_logits = Buffer::uninit(n * vocab);
        kernel::backward(isa, logits, vocab, &lse, targets, d_logits.as_mut_slice());
        matmul::backward_input(isa, d_logits.as_slice(), head.weight(), d_rows);
    }
}

struct CrossEntropy {
    hidden: Option<NodeId>,
    d_hidden: Tensor,
}

impl Op for CrossEntropy {
    fn backward(self: Box<Self>, d_loss: Tensor, grads: &mut Gradients) {
        let factor = d_loss.f32s()[0];
        grads.add(self.hidden, || {
            if factor == 1.0 {
                return self.d_hidden;
            }
            Tensor::build(self.d_hidden.shape(), |d| {
                elementwise::scale(Isa::best(), factor, self.d_hidden.f32s(), d)
            })
        });
    }
}
