//! Layer normalisation.
//!
//! ```text
//! forward   x̂_i = (x_i - mean) r,   r = (var + eps)^(-1/2),   y_i = x̂_i w_i + b_i
//! backward  d_x̂_i = d_y_i w_i
//!           d_x_i = r (d_x̂_i - mean_j(d_x̂_j) - x̂_i mean_j(d_x̂_j x̂_j))
//! ```
//!
//! Derivation: `∂x̂_j/∂x_i = r (δ_ij - 1/C - x̂_i x̂_j / C)`, where `-1/C` comes from the mean and `-x̂_i x̂_j / C` from
//! `r`; summing `d_x̂_j` over it gives the two means. The parameters are frozen, so they have no gradient.
//!
//! Source: Ba, Kiros & Hinton 2016, "Layer Normalization" (arXiv 1607.06450). The variance is the biased one.

use crate::{
    Isa,
    simd::{Simd, SimdOp},
    slices::{load, n_rows, rows_per_task, run_all, store},
};

/// The frozen parameters of the layer.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// Factor of each column, `[C]`.
    pub weight: &'a [f32],
    /// Summand of each column, `[C]`.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// `y[T,C] = (x - mean) * rstd * weight + bias` per row of `C = weight.len()`; keeps `mean[T]` and `rstd[T]`.
///
/// Panics when the sizes do not fit together.
pub fn forward(isa: Isa, x: &[f32], affine: Affine, y: &mut [f32], mean: &mut [f32], rstd: &mut [f32]) {
    let c = affine.weight.len();
    let t = n_rows(x.len(), c);
    assert_eq!((affine.bias.len(), y.len()), (c, x.len()), "bias and y");
    assert_eq!((mean.len(), rstd.len()), (t, t), "one mean and rstd per row");
    if t == 0 {
        return;
    }
    let n = rows_per_task(c);
    let inputs = x.chunks(n * c).zip(y.chunks_mut(n * c));
    let tasks = inputs.zip(mean.chunks_mut(n)).zip(rstd.chunks_mut(n));
    run_all(isa, tasks.map(|(((x, y), mean), rstd)| Forward { x, affine, y, mean, rstd }));
}

struct Forward<'a> {
    x: &'a [f32],
    affine: Affine<'a>,
    y: &'a mut [f32],
    mean: &'a mut [f32],
    rstd: &'a mut [f32],
}

impl SimdOp for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Affine { weight, bias, eps } = self.affine;
        let c = weight.len();
        let rows = self.x.chunks_exact(c).zip(self.y.chunks_exact_mut(c));
        for ((x, y), (mean, rstd)) in rows.zip(self.mean.iter_mut().zip(self.rstd)) {
            (*mean, *rstd) = statistics(s, x, eps);
            let (m, r) = (s.splat(*mean), s.splat(*rstd));
            for i in (0..c).step_by(S::LANES) {
                let normed = s.mul(s.sub(load(s, x, i), m), r);
                store(s, s.mul_add(normed, load(s, weight, i), load(s, bias, i)), y, i);
            }
        }
    }
}

/// Mean and reciprocal standard deviation, in two passes: the sum of squares alone would cancel.
#[inline(always)]
fn statistics<S: Simd>(s: S, x: &[f32], eps: f32) -> (f32, f32) {
    let c = x.len() as f32;
    let mut sum = s.splat(0.0);
    for i in (0..x.len()).step_by(S::LANES) {
        sum = s.add(sum, load(s, x, i));
    }
    let mean = s.sum(sum) / c;
    let whole = x.len() - x.len() % S::LANES;
    let mut squares = s.splat(0.0);
    for i in (0..whole).step_by(S::LANES) {
        let centered = s.sub(s.load(&x[i..]), s.splat(mean));
        squares = s.mul_add(centered, centered, squares);
    }
    // one by one: the padding lanes of a partial vector are zero, not `mean`
    let tail: f32 = x[whole..].iter().map(|x| (x - mean) * (x - mean)).sum();
    (mean, 1.0 / ((s.sum(squares) + tail) / c + eps).sqrt())
}

/// The gradient with respect to `x`; `weight` and `bias` are frozen.
///
/// Panics when the sizes do not fit together.
pub fn backward_input(
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    mean: &[f32],
    rstd: &[f32],
    d_y: &[f32],
    d_x: &mut [f32],
) {
    let c = weight.len();
    let t = n_rows(x.len(), c);
    assert_eq!((d_y.len(), d_x.len()), (x.len(), x.len()), "d_y and d_x");
    assert_eq!((mean.len(), rstd.len()), (t, t), "one mean and rstd per row");
    if t == 0 {
        return;
    }
    let n = rows_per_task(c);
    let inputs = x.chunks(n * c).zip(mean.chunks(n).zip(rstd.chunks(n)));
    let tasks = inputs.zip(d_y.chunks(n * c)).zip(d_x.chunks_mut(n * c));
    run_all(isa, tasks.map(|(((x, (mean, rstd)), d_y), d_x)| Backward { x, weight, mean, rstd, d_y, d_x }));
}

struct Backward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    mean: &'a [f32],
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
        for (((x, d_y), d_x), (&mean, &rstd)) in rows.zip(self.mean.iter().zip(self.rstd)) {
            let (m, r) = (s.splat(mean), s.splat(rstd));
            let (mut sum, mut dot) = (s.splat(0.0), s.splat(0.0));
            for i in (0..c).step_by(S::LANES) {
                // padding lanes have d_normed = 0 and add nothing to either sum
                let d_normed = s.mul(load(s, d_y, i), load(s, weight, i));
                let normed = s.mul(s.sub(load(s, x, i), m), r);
                sum = s.add(sum, d_normed);
                dot = s.mul_add(d_normed, normed, dot);
            }
            let (sum, dot) = (s.splat(s.sum(sum) / c as f32), s.splat(s.sum(dot) / c as f32));
            for i in (0..c).step_by(S::LANES) {
                let d_normed = s.mul(load(s, d_y, i), load(s, weight, i));
                let normed = s.mul(s.sub(load(s, x, i), m), r);
                let centered = s.sub(s.sub(d_normed, sum), s.mul(normed, dot));
                store(s, s.mul(r, centered), d_x, i);
            }
        }
    }
}

/// The specification: plain loops over one row.
pub mod reference {
    use crate::real::Real;

    /// One row of the forward pass: `(y, mean, rstd)`.
    pub fn forward<R: Real>(x: &[R], weight: &[R], bias: &[R], eps: R) -> (Vec<R>, R, R) {
        let c = R::from_f64(x.len() as f64);
        let mut mean = R::from_f64(0.0);
        for &x in x {
            mean += x / c;
        }
        let mut variance = R::from_f64(0.0);
        for &x in x {
            variance += (x - mean) * (x - mean) / c;
        }
        let rstd = R::from_f64(1.0) / (variance + eps).sqrt();
        let y = (0..x.len()).map(|i| (x[i] - mean) * rstd * weight[i] + bias[i]).collect();
        (y, mean, rstd)
    }

    /// One row of the backward pass: `d_x`.
    pub fn backward_input<R: Real>(x: &[R], weight: &[R], mean: R, rstd: R, d_y: &[R]) -> Vec<R> {
        let c = R::from_f64(x.len() as f64);
        // in the forward pass this was y[i] = (x[i] - mean) * rstd * weight[i] + bias[i],
        // so the gradient of the normalised number is d_y[i] * weight[i]
        let d_normed: Vec<R> = d_y.iter().zip(weight).map(|(&d_y, &w)| d_y * w).collect();
        let normed: Vec<R> = x.iter().map(|&x| (x - mean) * rstd).collect();
        // mean and rstd were sums over the row, so each x[i] also acts through them
        let (mut through_mean, mut through_rstd) = (R::from_f64(0.0), R::from_f64(0.0));
        for i in 0..x.len() {
            through_mean += d_normed[i] / c;
            through_rstd += d_normed[i] * normed[i] / c;
        }
        (0..x.len()).map(|i| rstd * (d_normed[i] - through_mean - normed[i] * through_rstd)).collect()
    }
}
