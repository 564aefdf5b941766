//! Softmax cross-entropy on the GPU: [`super`]'s functions, with slices of its memory.

use super::{Target, check_targets};
use crate::{
    cuda::{Failed, Launch, Launcher, Slice, SliceMut},
    slices::n_rows,
};

const FILE: &str = "cross_entropy";

/// Threads for a row of `vocab` logits: whole warps, about eight numbers for each thread.
fn threads(vocab: usize) -> u32 {
    vocab.div_ceil(8).next_multiple_of(32).clamp(32, 1024) as u32
}

/// [`super::log_sum_exp`]
///
/// # Errors
/// The launch failed. Panics when the sizes do not fit together.
pub fn log_sum_exp(
    gpu: &dyn Launcher,
    logits: Slice<f32>,
    vocab: usize,
    lse: SliceMut<f32>,
) -> Result<(), Failed> {
    let rows = lse.len();
    assert_eq!(n_rows(logits.len(), vocab), rows, "one lse per row");
    if rows == 0 {
        return Ok(());
    }
    let launch = Launch::new(FILE, "log_sum_exp", rows, threads(vocab)).arg(logits).arg(lse).size(vocab);
    // SAFETY: the kernel's parameters, with the sizes checked above
    unsafe { launch.on(gpu) }
}

/// Targets as the kernel reads them: those of row `r` are `begin[r]..begin[r + 1]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets {
    /// One number more than there are rows.
    pub begin: Vec<u32>,
    /// Vocabulary index of each target.
    pub tokens: Vec<u32>,
    /// Factor of each target in the loss.
    pub weights: Vec<f32>,
}

impl Targets {
    /// Of the targets of `rows` rows of `vocab` logits.
    ///
    /// Panics when they are not sorted by row, or one lies outside.
    pub fn of(targets: &[Target], rows: usize, vocab: usize) -> Targets {
        check_targets(targets, rows, vocab);
        let begin = (0..=rows as u32).map(|row| targets.partition_point(|t| t.row < row) as u32).collect();
        let (tokens, weights) = targets.iter().map(|t| (t.token, t.weight)).unzip();
        Targets { begin, tokens, weights }
    }
}

/// [`Targets`], on the device.
#[derive(Clone, Copy, Debug)]
pub struct OnDevice<'a> {
    /// [`Targets::begin`]
    pub begin: Slice<'a, u32>,
    /// [`Targets::tokens`], each below the size of the vocabulary.
    pub tokens: Slice<'a, u32>,
    /// [`Targets::weights`]
    pub weights: Slice<'a, f32>,
}

/// [`super::backward`]
///
/// # Errors
/// The launch failed. Panics when the sizes do not fit together.
pub fn backward(
    gpu: &dyn Launcher,
    (logits, vocab): (Slice<f32>, usize),
    lse: Slice<f32>,
    targets: OnDevice,
    d_logits: SliceMut<f32>,
) -> Result<(), Failed> {
    let OnDevice { begin, tokens, weights } = targets;
    let rows = n_rows(logits.len(), vocab);
    assert_eq!((lse.len(), d_logits.len()), (rows, logits.len()), "one lse per row, d_logits like logits");
    assert_eq!((begin.len(), tokens.len()), (rows + 1, weights.len()), "targets of every row");
    if rows == 0 {
        return Ok(());
    }
    let launch = Launch::new(FILE, "cross_entropy_backward", rows, threads(vocab)).arg(logits).arg(lse);
    let launch = launch.arg(begin).arg(tokens).arg(weights).arg(d_logits).size(tokens.len()).size(vocab);
    // SAFETY: the kernel's parameters, with the sizes checked above; the kernel checks what the targets name
    unsafe { launch.on(gpu) }
}
