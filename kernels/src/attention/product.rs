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
    /// `a[i, k]`
    #[inline(always)]
    fn at(self, i: usize, k: usize) -> f32 {
        match self {
            Left::Plain(a) => a.data[i * a.stride + k],
            Left::Transposed(a) => a.data[k * a.stride + i],
        }
    }

    /// From depth `k` on.
    #[inline(always)]
    fn skip(self, k: usize) -> Left<'a> {
        match self {
            Left::Plain(a) => Left::Plain(Rows { data: &a.data[k..], ..a }),
            Left::Transposed(a) => Left::Transposed(Rows { data: &a.data[k * a.stride..], ..a }),
        }
    }
}

/// `M` rows and `N` vectors of `a[·, depth] · b[depth, ·]` at `(i, j)`, summed in the order of the depth.
///
/// Rows that run along the depth are whole, so that where they are read is checked once and not in every step.
#[inline(always)]
pub(super) fn product<S: Simd, const M: usize, const N: usize>(
    s: S,
    (a, i): (Left, usize),
    (b, j): (Rows, usize),
    depth: usize,
) -> [[S::V; N]; M] {
    let mut sums = [[s.splat(0.0); N]; M];
    let b = b.data.chunks_exact(b.stride);
    match a {
        Left::Plain(a) => {
            let mut rows = [&a.data[..0]; M];
            for r in 0..M {
                rows[r] = &a.data[(i + r) * a.stride..][..depth];
            }
            for (k, b) in (0..depth).zip(b) {
                let mut x = [0.0; M];
                for r in 0..M {
                    x[r] = rows[r][k];
                }
                multiply(s, &x, &b[j..], &mut sums);
            }
        }
        Left::Transposed(a) => {
            for ((a, b), _) in a.data.chunks_exact(a.stride).zip(b).zip(0..depth) {
                multiply(s, a[i..].first_chunk().expect("M rows of a"), &b[j..], &mut sums);
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
    /// Whether row `i` and step `k` of the depth see each other. If not, `a[i, k]` is zero, or was made of numbers that
    /// are not finite.
    fn meets(&self, i: usize, k: usize) -> bool;
    /// Takes the vector of row `i` at column `d`.
    fn take<S: Simd>(&mut self, s: S, i: usize, d: usize, sum: S::V);
}

/// Hands every vector of `a · b` to the sink; `size = [rows, columns]`, the columns whole vectors.
#[inline(always)]
pub(super) fn multiply_all<S: Simd>(s: S, a: Left, b: Rows, size: [usize; 2], sink: &mut impl Sink) {
    // M * N sums, N vectors and a broadcast fit the registers
    match S::REGISTERS {
        32.. => columns::<S, 6, 4>(s, a, b, size, sink),
        16.. => columns::<S, 6, 2>(s, a, b, size, sink),
        _ => columns::<S, 2, 2>(s, a, b, size, sink),
    }
}

/// The same over the pairs that see each other and no others, one by one: slow, for factors that are not finite. Zero
/// times one of those is a NaN, which would reach rows that do not see it. Other rows get the same bits as from
/// [`multiply_all`], where what is left out here adds zero.
#[inline(always)]
pub(super) fn multiply_visible<S: Simd>(
    s: S,
    a: Left,
    b: Rows,
    [n, width]: [usize; 2],
    sink: &mut impl Sink,
) {
    for i in 0..n {
        let depth = sink.depth(i..i + 1);
        if depth.is_empty() {
            continue;
        }
        for d in (0..width).step_by(S::LANES) {
            let mut sum = s.splat(0.0);
            for k in depth.clone().filter(|&k| sink.meets(i, k)) {
                sum = s.mul_add(s.splat(a.at(i, k)), s.load(&b.data[k * b.stride + d..]), sum);
            }
            sink.take(s, i, d, sum);
        }
    }
}

/// Columns of `b`, `N` vectors at a time: so many stay in the nearest cache while all rows of `a` meet them.
#[inline(always)]
fn columns<S: Simd, const M: usize, const N: usize>(
    s: S,
    a: Left,
    b: Rows,
    [n, width]: [usize; 2],
    sink: &mut impl Sink,
) {
    let mut j = 0;
    while j + N * S::LANES <= width {
        rows::<S, M, N>(s, a, (b, j), n, sink);
        j += N * S::LANES;
    }
    while j < width {
        rows::<S, M, 1>(s, a, (b, j), n, sink);
        j += S::LANES;
    }
}

/// Rows of `a`: as many times `M` as there are, then the rest.
#[inline(always)]
fn rows<S: Simd, const M: usize, const N: usize>(
    s: S,
    a: Left,
    b: (Rows, usize),
    n: usize,
    sink: &mut impl Sink,
) {
    let i = strips::<S, M, N>(s, a, b, 0..n, sink);
    let i = strips::<S, 3, N>(s, a, b, i..n, sink);
    strips::<S, 1, N>(s, a, b, i..n, sink);
}

/// Strips of `M` rows, as many as there are; returns the row after them.
#[inline(always)]
fn strips<S: Simd, const M: usize, const N: usize>(
    s: S,
    a: Left,
    (b, j): (Rows, usize),
    rows: Range<usize>,
    sink: &mut impl Sink,
) -> usize {
    let mut i = rows.start;
    while i + M <= rows.end {
        let k = sink.depth(i..i + M);
        if !k.is_empty() {
            let from = Rows { data: &b.data[k.start * b.stride..], ..b };
            let sums = product::<S, M, N>(s, (a.skip(k.start), i), (from, j), k.len());
            for r in 0..M {
                for v in 0..N {
                    sink.take(s, i + r, j + v * S::LANES, sums[r][v]);
                }
            }
        }
        i += M;
    }
    i
}
