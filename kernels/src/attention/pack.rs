//! Copies between the caller's rows and the layouts the products want: one head alone, rows padded to whole vectors.

use std::ops::Range;

use super::{Rows, visible::TILE};
use crate::{
    simd::{MAX_LANES, Simd},
    slices::{load, store},
};

/// How many rows ahead of its use a row is asked for: rows of one head lie too far apart for the CPU to guess them.
const AHEAD: usize = 8;

/// `width` rounded up to whole vectors of any tier.
pub(super) fn padded(width: usize) -> usize {
    width.next_multiple_of(MAX_LANES)
}

/// The columns of one head.
#[derive(Clone, Copy)]
pub(super) struct Column {
    pub start: usize,
    pub head_dim: usize,
}

impl Column {
    pub(super) fn of(head: usize, head_dim: usize) -> Column {
        Column { start: head * head_dim, head_dim }
    }

    /// Row `i` of this head.
    #[inline(always)]
    pub(super) fn row<'a>(self, x: Rows<'a>, i: usize) -> &'a [f32] {
        x.part(i, self.start, self.head_dim)
    }

    /// `out = factor * x[rows]`, in rows padded with zeros.
    #[inline(always)]
    pub(super) fn pack<S: Simd>(
        self,
        s: S,
        factor: f32,
        x: Rows,
        rows: impl Iterator<Item = usize> + Clone,
        out: &mut [f32],
    ) {
        let mut ahead = rows.clone().skip(AHEAD);
        for (i, out) in rows.zip(out.chunks_exact_mut(padded(self.head_dim))) {
            if let Some(next) = ahead.next() {
                self.row(x, next).chunks(MAX_LANES).for_each(|line| s.prefetch(line));
            }
            let (out, padding) = out.split_at_mut(self.head_dim);
            copy(s, factor, self.row(x, i), out);
            padding.fill(0.0);
        }
    }
}

/// `out = factor * x`
#[inline(always)]
pub(super) fn copy<S: Simd>(s: S, factor: f32, x: &[f32], out: &mut [f32]) {
    for d in (0..x.len()).step_by(S::LANES) {
        store(s, s.mul(s.splat(factor), load(s, x, d)), out, d);
    }
}

/// Whether `x`, rows of [`padded`] width, holds neither NaN nor infinity.
#[inline(always)]
pub(super) fn all_finite<S: Simd>(s: S, x: &[f32]) -> bool {
    // 0 times a finite number is 0; several sums, because one would be a chain of additions that wait for each other
    let mut zeros = [s.splat(0.0); 4];
    for line in x.chunks(4 * S::LANES) {
        for (zero, x) in zeros.iter_mut().zip(line.chunks_exact(S::LANES)) {
            *zero = s.mul_add(s.load(x), s.splat(0.0), *zero);
        }
    }
    zeros.into_iter().all(|zero| s.sum(zero) == 0.0)
}

/// `out[D, TILE] = factor * x[rows]ᵀ` for the columns of one head; columns without a row become zero up to a whole vector.
#[inline(always)]
pub(super) fn transpose<S: Simd>(
    s: S,
    factor: f32,
    (column, x): (Column, Rows),
    rows: Range<usize>,
    out: &mut [f32],
) {
    let (head_dim, n) = (column.head_dim, rows.len());
    for i in (0..n).step_by(S::LANES) {
        for d in (0..head_dim).step_by(S::LANES) {
            let mut square = [s.splat(0.0); MAX_LANES];
            for r in 0..S::LANES {
                if i + r < n {
                    square[r] = s.mul(s.splat(factor), load(s, column.row(x, rows.start + i + r), d));
                }
            }
            s.transpose(&mut square);
            for r in 0..S::LANES {
                if d + r < head_dim {
                    s.store(square[r], &mut out[(d + r) * TILE + i..]);
                }
            }
        }
    }
}
