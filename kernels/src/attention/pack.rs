//! Copies between the caller's rows and the layouts the products want: one head alone, rows padded to whole vectors.

use std::ops::Range;

use super::{Rows, visible::KEYS};
use crate::{
    simd::{MAX_LANES, Simd, SimdOp},
    slices::load,
};

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
    pub(super) fn row<'a>(self, x: Rows<'a>, i: usize) -> &'a [f32] {
        x.part(i, self.start, self.head_dim)
    }

    /// The rows from `first` on, beginning at this head.
    pub(super) fn rows_from<'a>(self, x: Rows<'a>, first: usize) -> Rows<'a> {
        Rows { data: &x.data[first * x.stride + self.start..], stride: x.stride }
    }

    /// `out[n, padded(D)] = factor * x[rows]`; the padding keeps what it holds, which is zero.
    pub(super) fn pack(self, x: Rows, rows: Range<usize>, factor: f32, out: &mut [f32]) {
        for (i, out) in rows.zip(out.chunks_exact_mut(padded(self.head_dim))) {
            for (out, x) in out.iter_mut().zip(self.row(x, i)) {
                *out = factor * x;
            }
        }
    }
}

/// `out[D, KEYS] = x[rows]ᵀ` for the columns of one head; columns without a row become zero.
pub(super) struct PackTransposed<'a> {
    pub column: Column,
    pub x: Rows<'a>,
    pub rows: Range<usize>,
    pub out: &'a mut [f32],
}

impl SimdOp for PackTransposed<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let head_dim = self.column.head_dim;
        for j in (0..KEYS).step_by(S::LANES) {
            for d in (0..head_dim).step_by(S::LANES) {
                let mut square = [s.splat(0.0); MAX_LANES];
                let rows = (self.rows.start + j).min(self.rows.end)..self.rows.end;
                for (vector, i) in square[..S::LANES].iter_mut().zip(rows) {
                    *vector = load(s, self.column.row(self.x, i), d);
                }
                s.transpose(&mut square);
                for (d, &vector) in (d..head_dim).zip(&square[..S::LANES]) {
                    s.store(vector, &mut self.out[d * KEYS + j..]);
                }
            }
        }
    }
}
