//! The one matrix product of attention: a few rows and vectors of the result, held in registers over the whole depth.

use std::ops::Range;

use super::Rows;
use crate::simd::Simd;

/// The left side of a product.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// `a[i, k]` lies at `i * stride + k`.
    Plain(Rows<'a>),
    /// `a[i, k]` lies at `k * stride + i`.
    Transposed(Rows<'a>),
}

impl<'a> Left<'a> {
    /// From row `i` and depth `k` on.
    #[inline(always)]
    pub(super) fn from(self, i: usize, k: usize) -> Left<'a> {
        let skip = |x: Rows<'a>, n: usize| Rows { data: &x.data[n..], stride: x.stride };
        match self {
            Left::Plain(a) => Left::Plain(skip(a, i * a.stride + k)),
            Left::Transposed(a) => Left::Transposed(skip(a, k * a.stride + i)),
        }
    }
}

/// `M` rows and `N` vectors of `a[M, depth] · b[depth, N]`, summed in the order of the depth.
#[inline(always)]
pub(super) fn product<S: Simd, const M: usize, const N: usize>(
    s: S,
    a: Left,
    b: Rows,
    depth: usize,
) -> [[S::V; N]; M] {
    let mut sums = [[s.splat(0.0); N]; M];
    let b = b.data.chunks(b.stride).take(depth);
    match a {
        Left::Plain(a) => {
            let mut rows = [&a.data[..0]; M];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = &a.data[r * a.stride..][..depth];
            }
            for (k, b) in b.enumerate() {
                let mut x = [0.0; M];
                for r in 0..M {
                    x[r] = rows[r][k];
                }
                multiply(s, &x, b, &mut sums);
            }
        }
        Left::Transposed(a) => {
            for (a, b) in a.data.chunks(a.stride).zip(b) {
                multiply(s, a.first_chunk().expect("M rows of a"), b, &mut sums);
            }
        }
    }
    sums
}

/// `sums[r][v] += x[r] * b[v]`
#[inline(always)]
fn multiply<S: Simd, const M: usize, const N: usize>(
    s: S,
    x: &[f32; M],
    b: &[f32],
    sums: &mut [[S::V; N]; M],
) {
    let b = &b[..N * S::LANES];
    let mut row = [s.splat(0.0); N];
    for v in 0..N {
        row[v] = s.load(&b[v * S::LANES..]);
    }
    for r in 0..M {
        let x = s.splat(x[r]);
        for v in 0..N {
            sums[r][v] = s.mul_add(x, row[v], sums[r][v]);
        }
    }
}

/// Where a product goes. A trait and no closures: those cannot be told to be inlined, and a call would pass its vectors
/// through memory.
pub(super) trait Sink {
    /// The part of the depth that matters for some rows: elsewhere `a` is zero.
    fn depth(&self, rows: Range<usize>) -> Range<usize>;
    /// Takes the vector of row `i` at column `d`.
    fn take<S: Simd>(&mut self, s: S, i: usize, d: usize, sum: S::V);
}

/// Hands every vector of `a · b` to the sink; `size = [rows, columns]`, the columns whole vectors.
#[inline(always)]
pub(super) fn multiply_all<S: Simd>(s: S, a: Left, b: Rows, size: [usize; 2], sink: &mut impl Sink) {
    // sums take three quarters of the registers, operands the rest
    let i = match S::REGISTERS {
        32.. => strips::<S, 6, 4>(s, a, b, (0, size), sink),
        16.. => strips::<S, 3, 4>(s, a, b, (0, size), sink),
        _ => strips::<S, 2, 2>(s, a, b, (0, size), sink),
    };
    strips::<S, 1, 4>(s, a, b, (i, size), sink);
}

/// Strips of `M` rows from row `i` on, as many as there are; returns the row after them.
#[inline(always)]
fn strips<S: Simd, const M: usize, const N: usize>(
    s: S,
    a: Left,
    b: Rows,
    (mut i, [n, width]): (usize, [usize; 2]),
    sink: &mut impl Sink,
) -> usize {
    while i + M <= n {
        let k = sink.depth(i..i + M);
        if !k.is_empty() {
            let a = a.from(i, k.start);
            let b = Rows { data: &b.data[k.start * b.stride..], stride: b.stride };
            let mut j = 0;
            while j + N * S::LANES <= width {
                strip::<S, M, N>(s, a, b, (k.len(), i, j), sink);
                j += N * S::LANES;
            }
            while j + 2 * S::LANES <= width {
                strip::<S, M, 2>(s, a, b, (k.len(), i, j), sink);
                j += 2 * S::LANES;
            }
            while j < width {
                strip::<S, M, 1>(s, a, b, (k.len(), i, j), sink);
                j += S::LANES;
            }
        }
        i += M;
    }
    i
}

#[inline(always)]
fn strip<S: Simd, const M: usize, const N: usize>(
    s: S,
    a: Left,
    b: Rows,
    (depth, i, j): (usize, usize, usize),
    sink: &mut impl Sink,
) {
    let sums = product::<S, M, N>(s, a, Rows { data: &b.data[j..], stride: b.stride }, depth);
    for r in 0..M {
        for v in 0..N {
            sink.take(s, i + r, j + v * S::LANES, sums[r][v]);
        }
    }
}
