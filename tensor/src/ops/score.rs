//! Log-probabilities of tokens, a block of rows of logits at a time.

use std::ops::Range;

use kernels::Isa;
use kernels::cross_entropy::{self as kernel, Target};
use kernels::matmul;

use super::product::{Matrix, product};
use crate::Tensor;

/// What one block of rows says.
#[derive(Debug)]
pub struct Scores {
    /// The rows of the hidden states, `[rows, C]`.
    pub hidden: Tensor,
    /// `log p` of each target.
    pub log_probs: Vec<f32>,
    /// `Σ weight (softmax - onehot)` of each row, `[rows, V]`, if it was asked for.
    pub d_logits: Option<Tensor>,
}

/// Scores `targets`, whose rows count from the first of `rows`, on those rows of the hidden states `h` through the head.
pub fn score(
    (h, rows): (&Tensor, Range<usize>),
    (w, bias): (Matrix, Option<&Tensor>),
    targets: &[Target],
    with_gradient: bool,
) -> Scores {
    let vocab = w.n_out;
    let hidden = part(h, rows);
    let logits = product(&hidden, w, bias, None);
    let lse = log_sum_exp(&logits);
    let at = |t: &Target| t.row as usize * vocab + t.token as usize;
    let picked = pick(&logits, targets.iter().map(at));
    let log_probs = picked.iter().zip(targets).map(|(x, t)| x - lse.f32s()[t.row as usize]).collect();
    let d_logits = with_gradient.then(|| backward(&logits, &lse, targets));
    Scores { hidden, log_probs, d_logits }
}

/// Some rows of the hidden states, which are all of them where there is one block.
fn part(h: &Tensor, rows: Range<usize>) -> Tensor {
    if rows == (0..h.rows()) {
        return h.clone();
    }
    h.take_rows(&(rows.start as u32..rows.end as u32).collect::<Vec<u32>>())
}

/// `[T, V]` to `[T]`
fn log_sum_exp(logits: &Tensor) -> Tensor {
    let shape = [logits.rows()];
    on_gpu!(|gpu| &[logits] => gpu.one(&shape, |lse| {
        kernel::cuda::log_sum_exp(gpu.launcher(), gpu.read(logits)?.slice(), logits.width(), lse)
    }));
    Tensor::build(&shape, |lse| kernel::log_sum_exp(Isa::best(), logits.f32s(), logits.width(), lse))
}

/// Single numbers, which are all that is read back of a block of logits.
fn pick(logits: &Tensor, at: impl Iterator<Item = usize>) -> Vec<f32> {
    on_gpu!(|_| &[logits] => {
        let at: Vec<u32> = at.map(|at| u32::try_from(at).expect("a block is smaller")).collect();
        logits.reshaped(&[logits.len(), 1]).take_rows(&at).f32s().to_vec()
    });
    at.map(|at| logits.f32s()[at]).collect()
}

fn backward(logits: &Tensor, lse: &Tensor, targets: &[Target]) -> Tensor {
    let vocab = logits.width();
    on_gpu!(|gpu| &[logits] => gpu.one(logits.shape(), |d| {
        let kernel::cuda::Targets { begin, tokens, weights } =
            kernel::cuda::Targets::of(targets, logits.rows(), vocab);
        let (begin, tokens, weights) = (gpu.send(&begin)?, gpu.send(&tokens)?, gpu.send(&weights)?);
        let targets = kernel::cuda::OnDevice {
            begin: begin.slice(),
            tokens: tokens.slice(),
            weights: weights.slice(),
        };
        let lse = gpu.read(lse)?;
        kernel::cuda::backward(gpu.launcher(), (gpu.read(logits)?.slice(), vocab), lse.slice(), targets, d)
    }));
    Tensor::build(logits.shape(), |d| {
        kernel::backward(Isa::best(), logits.f32s(), vocab, lse.f32s(), targets, d);
    })
}

/// Writes `d_h = d_logits Wᵀ` of one block into its rows of `d`, from `first` on, which must be on the device of `d_logits`.
///
/// Panics where others hold `d`.
pub fn backward_hidden(d_logits: &Tensor, w: Matrix, d: &mut Tensor, first: usize) {
    let (at, n) = (first * w.n_in, d_logits.rows() * w.n_in);
    on_gpu!(|gpu| &[d] => {
        gpu.write(d, |d| {
            let [_, d] = d.split_at(at);
            let [d, _] = d.split_at(n);
            matmul::cuda::backward_input(
                gpu.launcher(), gpu.read(d_logits)?.slice(), w.on(&gpu.elements(w.tensor)?), d)
        });
    });
    let d = &mut d.fresh()[at..at + n];
    matmul::backward_input(Isa::best(), d_logits.f32s(), w.weight(), d);
}
