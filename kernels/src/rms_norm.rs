//! Root-mean-square normalisation.
//!
//! ```text
//! forward   y_i = x_i r w_i,   r = (mean_j(x_j²) + eps)^(-1/2)
//! backward  d_x_i = r (d_y_i w_i - x_i r² mean_j(d_y_j w_j x_j))
//! ```
//!
//! Derivation: `∂r/∂x_i = -r³ x_i / C`, so `d_x_i = r d_y_i w_i + Σ_j d_y_j w_j x_j ∂r/∂x_i`. `w` is frozen.
//!
//! Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization" (arXiv 1910.07467).

use crate::{
    Isa,
    simd::{Simd, SimdOp},
    slices::{load, n_rows, rows_per_task, run_all, store},
};

/// `y[T,C] = x * rstd * weight`, `rstd = (mean(x²) + eps)^(-1/2)` per row of `C = weight.len()`; keeps `rstd[T]`.
///
/// Panics when the sizes do not fit together.
pub fn forward(isa: Isa, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], rstd: &mut [f32]) {
    let c = weight.len();
    let t = n_rows(x.len(), c);
    assert_eq!((y.len(), rstd.len()), (x.len(), t), "y and one rstd per row");
    if t == 0 {
        return;
    }
    let n = rows_per_task(c);
    let tasks = x.chunks(n * c).zip(y.chunks_mut(n * c)).zip(rstd.chunks_mut(n));
    run_all(isa, tasks.map(|((x, y), rstd)| Forward { x, weight, eps, y, rstd }));
}

struct Forward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
    rstd: &'a mut [f32],
}

impl SimdOp for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let (weight, c) = (self.weight, self.weight.len());
        let rows = self.x.chunks_exact(c).zip(self.y.chunks_exact_mut(c));
        for ((x, y), rstd) in rows.zip(self.rstd) {
            let mut squares = s.splat(0.0);
            for i in (0..c).step_by(S::LANES) {
                let x = load(s, x, i);
                squares = s.mul_add(x, x, squares);
            }
            *rstd = 1.0 / (s.sum(squares) / c as f32 + self.eps).sqrt();
            for i in (0..c).step_by(S::LANES) {
                let normed = s.mul(load(s, x, i), s.splat(*rstd));
                store(s, s.mul(normed, load(s, weight, i)), y, i);
            }
        }
    }
}

/// The gradient with respect to `x`; `weight` is frozen.
///
/// Panics when the sizes do not fit together.
pub fn backward_input(isa: Isa, x: &[f32], weight: &[f32], rstd: &[f32], d_y: &[f32], d_x: &mut [f32]) {
    let c = weight.len();
    let t = n_rows(x.len(), c);
    assert_eq!((d_y.len(), d_x.len(), rstd.len()), (x.len(), x.len(), t), "d_y, d_x and one rstd per row");
    if t == 0 {
        return;
    }
    let n = rows_per_task(c);
    let tasks = x.chunks(n * c).zip(rstd.chunks(n)).zip(d_y.chunks(n * c).zip(d_x.chunks_mut(n * c)));
    run_all(isa, tasks.map(|((x, rstd), (d_y, d_x))| Backward { x, weight, rstd, d_y, d_x }));
}

struct Backward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    rstd: &'a [f32],
    d_y: &'a [f32],
    d_x: &'a mut [f32],
}

impl SimdOp for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let (weight, c) = (self.weight, self.weight.len());
        let rows = self.x.chunks_exact(c).zip(self.d_y.chunks_exact(c)).zip(self.d_x.chunks_exact_mut(c));
        for (((x, d_y), d_x), &rstd) in rows.zip(self.rstd) {
            let mut dot = s.splat(0.0);
            for i in (0..c).step_by(S::LANES) {
                let normed = s.mul(load(s, x, i), s.splat(rstd));
                dot = s.mul_add(s.mul(load(s, d_y, i), load(s, weight, i)), normed, dot);
            }
            let dot = s.splat(s.sum(dot) / c as f32);
            for i in (0..c).step_by(S::LANES) {
                let normed = s.mul(load(s, x, i), s.splat(rstd));
                let d_normed = s.mul(load(s, d_y, i), load(s, weight, i));
                store(s, s.mul(s.splat(rstd), s.sub(d_normed, s.mul(normed, dot))), d_x, i);
            }
        }
    }
}

/// The specification: plain loops over one row.
pub mod reference {
    use crate::real::Real;

    /// One row of the forward pass: `(y, rstd)`.
    pub fn forward<R: Real>(x: &[R], weight: &[R], eps: R) -> (Vec<R>, R) {
        let c = R::from_f64(x.len() as f64);
        let mut mean_square = R::from_f64(0.0);
        for &x in x {
            mean_square += x * x / c;
        }
        let rstd = R::from_f64(1.0) / (mean_square + eps).sqrt();
        (x.iter().zip(weight).map(|(&x, &w)| x * rstd * w).collect(), rstd)
    }

    /// One row of the backward pass: `d_x`.
    pub fn backward_input<R: Real>(x: &[R], weight: &[R], rstd: R, d_y: &[R]) -> Vec<R> {
        let c = R::from_f64(x.len() as f64);
        // in the forward pass this was rstd = 1 / sqrt(mean_square + eps), a sum over the row,
        // so each x[i] also acts through it
        let mut through_rstd = R::from_f64(0.0);
        for i in 0..x.len() {
            through_rstd += d_y[i] * weight[i] * x[i] / c;
        }
        // in the forward pass this was y[i] = x[i] * rstd * weight[i]
        (0..x.len()).map(|i| rstd * (d_y[i] * weight[i] - x[i] * rstd * rstd * through_rstd)).collect()
    }
}
