//! The one matrix product of attention: small, row-major, its right side padded to whole vectors.

use super::Rows;
use crate::simd::{Simd, SimdOp};

/// The left side of a product.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// `a[i, k]` lies at `i * stride + k`.
    Plain(Rows<'a>),
    /// `a[i, k]` lies at `k * stride + i`.
    Transposed(Rows<'a>),
}

/// `c[m, n] = a[m, k] · b[k, n]`, or `+=`. `n` is a multiple of every vector.
pub(super) struct Product<'a> {
    pub a: Left<'a>,
    pub b: Rows<'a>,
    /// Rows of `c_stride`.
    pub c: &'a mut [f32],
    pub c_stride: usize,
    /// `[m, k, n]`
    pub size: [usize; 3],
    /// Whether to add to `c` instead of overwriting it.
    pub add: bool,
}

impl SimdOp for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        // accumulators take half of the registers or less; the rest holds operands
        match S::REGISTERS {
            32.. => self.columns::<S, 4>(s),
            16.. => self.columns::<S, 2>(s),
            _ => self.columns::<S, 1>(s),
        }
    }
}

impl Product<'_> {
    /// Strips of `N` vectors, then single ones.
    #[inline(always)]
    fn columns<S: Simd, const N: usize>(mut self, s: S) {
        let n = self.size[2];
        let mut j = 0;
        while j + N * S::LANES <= n {
            self.rows::<S, N>(s, j);
            j += N * S::LANES;
        }
        while j < n {
            self.rows::<S, 1>(s, j);
            j += S::LANES;
        }
    }

    /// Strips of four rows, then the rest.
    #[inline(always)]
    fn rows<S: Simd, const N: usize>(&mut self, s: S, j: usize) {
        let m = self.size[0];
        let mut i = 0;
        while i + 4 <= m {
            self.tile::<S, 4, N>(s, i, j);
            i += 4;
        }
        match m - i {
            1 => self.tile::<S, 1, N>(s, i, j),
            2 => self.tile::<S, 2, N>(s, i, j),
            3 => self.tile::<S, 3, N>(s, i, j),
            _ => {}
        }
    }

    /// `M` rows and `N` vectors of `c` at `(i, j)`, held in registers over the whole of `k`.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const N: usize>(&mut self, s: S, i: usize, j: usize) {
        let mut sums = [[s.splat(0.0); N]; M];
        let k = self.size[1];
        let b = self.b.data[j..].chunks(self.b.stride).take(k);
        match self.a {
            Left::Plain(a) => {
                let mut rows = [&a.data[..0]; M];
                for (r, row) in rows.iter_mut().enumerate() {
                    *row = &a.data[(i + r) * a.stride..][..k];
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
                for (a, b) in a.data[i..].chunks(a.stride).zip(b) {
                    multiply(s, a.first_chunk().expect("M rows of a"), b, &mut sums);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let c = &mut self.c[(i + r) * self.c_stride + j..][..N * S::LANES];
            for (v, &sum) in sums.iter().enumerate() {
                let c = &mut c[v * S::LANES..];
                let sum = if self.add { s.add(s.load(c), sum) } else { sum };
                s.store(sum, c);
            }
        }
    }
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
    for (v, row) in row.iter_mut().enumerate() {
        *row = s.load(&b[v * S::LANES..]);
    }
    for (sums, &x) in sums.iter_mut().zip(x) {
        let x = s.splat(x);
        for (sum, &b) in sums.iter_mut().zip(&row) {
            *sum = s.mul_add(x, b, *sum);
        }
    }
}

/// `out[r, j] = q_r · k_j` for keys that lie where the caller has them: what few queries pay instead of packing.
pub(super) struct Dots<'a> {
    /// One padded row per query.
    pub q: Rows<'a>,
    pub n_queries: usize,
    /// Starts at the head's part of the first key.
    pub k: Rows<'a>,
    pub n_keys: usize,
    pub head_dim: usize,
    /// Rows of `out_stride`; columns from `n_keys` on are left alone.
    pub out: &'a mut [f32],
    pub out_stride: usize,
}

impl SimdOp for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for j in 0..self.n_keys {
            let key = self.k.part(j, 0, self.head_dim);
            for r in 0..self.n_queries {
                let query = self.q.part(r, 0, self.head_dim);
                let mut sum = s.splat(0.0);
                for d in (0..self.head_dim).step_by(S::LANES) {
                    sum = s.mul_add(crate::slices::load(s, query, d), crate::slices::load(s, key, d), sum);
                }
                self.out[r * self.out_stride + j] = s.sum(sum);
            }
        }
    }
}
