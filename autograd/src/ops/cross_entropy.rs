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
    let (weight, bias) = head.values(tape);
    let inputs = [Some(hidden), Some(&weight), bias.as_ref()];
    let nodes = inputs.map(|value| value.and_then(Value::node));
    let mut d = Grads::of(nodes.map(|node| node.is_some()), h, head);
    let mut log_probs = Vec::with_capacity(targets.len());
    let block = block_rows(head.n_out());
    let blocks = h.f32s().chunks(block * head.n_in()).enumerate();
    for (i, rows) in blocks {
        let first = (i * block) as u32;
        let until = first + (rows.len() / head.n_in()) as u32;
        let (a, b) = (at_row(targets, first), at_row(targets, until));
        let local: Vec<_> = targets[a..b].iter().map(|t| Target { row: t.row - first, ..*t }).collect();
        score_block((rows, i * block * head.n_in()), head, &local, &mut d, &mut log_probs);
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
        let zeros = |shape: &[usize]| Tensor::build(shape, |d| d.fill(0.0));
        Grads {
            hidden: hidden.then(|| Tensor::build(h.shape(), |_| ())),
            // the first block makes it
            weight: weight.then(|| Tensor::build(&[0], |_| ())),
            bias: bias.then(|| zeros(&[head.n_out()])),
        }
    }

    fn any(&self) -> bool {
        self.hidden.is_some() || self.weight.is_some() || self.bias.is_some()
    }

    /// Adds what the gradient of a block's logits says; its rows begin at `at` in the hidden states.
    fn add(&mut self, d_logits: &[f32], (rows, at): (&[f32], usize), head: &Linear) {
        if let Some(d) = self.hidden.as_mut().and_then(Tensor::get_mut) {
            matmul::backward_input(Isa::best(), d_logits, head.weight(), &mut d[at..at + rows.len()]);
        }
        if let Some(d_weight) = &mut self.weight {
            let before = (!d_weight.is_empty()).then(|| d_weight.f32s());
            *d_weight = Tensor::build(head.shape(), |d| head.d_weight(rows, d_logits, before, d));
        }
        if let Some(d_bias) = self.bias.as_mut().and_then(Tensor::get_mut) {
            let mut sums = vec![0.0; d_bias.len()];
            elementwise::sum_of_rows(Isa::best(), d_logits, &mut sums);
            elementwise::accumulate(Isa::best(), &sums, d_bias);
        }
    }
}

fn at_row(targets: &[Target], row: u32) -> usize {
    targets.partition_point(|t| t.row < row)
}

fn score_block(
    (rows, at): (&[f32], usize),
    head: &Linear,
    targets: &[Target],
    d: &mut Grads,
    log_probs: &mut Vec<f32>,
) {
    let (isa, n, vocab) = (Isa::best(), rows.len() / head.n_in(), head.n_out());
    let mut logits = Buffer::uninit(n * vocab);
    let epilogue = Epilogue { bias: head.bias(), residual: None };
    matmul::forward(isa, rows, head.weight(), epilogue, logits.as_mut_slice());
    let logits = logits.as_slice();
    let mut lse = vec![0.0; n];
    kernel::log_sum_exp(isa, logits, vocab, &mut lse);
    log_probs.extend(
        targets.iter().map(|t| logits[t.row as usize * vocab + t.token as usize] - lse[t.row as usize]),
    );
    if d.any() {
        let mut d_logits = Buffer::uninit(n * vocab);
        kernel::backward(isa, logits, vocab, &lse, targets, d_logits.as_mut_slice());
        d.add(d_logits.as_slice(), (rows, at), head);
    }
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
            grads.add(node, || match factor == 1.0 {
                true => d,
                false => {
                    Tensor::build(d.shape(), |out| elementwise::scale(Isa::best(), factor, d.f32s(), out))
                }
            });
        }
    }
}
