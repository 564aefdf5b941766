//! Layer normalisation.
//!
//! ```text
//! forward   x̂_i = (x_i - mean) r,   r = (var + eps)^(-1/2),   y_i = x̂_i w_i + b_i
//! backward  d_x̂_i = d_y_i w_i
//!           d_x_i = r (d_x̂_i - mean_j(d_x̂_j) - x̂_i mean_j(d_x̂_j x̂_j))
//!           d_w_i = Σ_rows d_y_i x̂_i,   d_b_i = Σ_rows d_y_i                where they are trained
//! ```
//!
//! Derivation: `∂x̂_j/∂x_i = r (δ_ij - 1/C - x̂_i x̂_j / C)`, where `-1/C` comes from the mean and `-x̂_i x̂_j / C` from
//! `r`; summing `d_x̂_j` over it gives the two means.
//!
//! Source: Ba, Kiros & Hinton 2016, "Layer Normalization" (arXiv 1607.06450). The variance is the biased one.

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::{
    Isa,
    simd::{Simd, SimdOp},
    slices::{Added, RowStep, Step, map, n_rows, rows_per_task, run_all, sum_rows, sums},
};

/// The parameters of the layer.
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
            let normalise = Normalise { mean: *mean, rstd: *rstd };
            map(s, normalise, [x, weight, bias], [y]);
        }
    }
}

/// Mean and reciprocal standard deviation, in two passes: the sum of squares alone would cancel. The row is in the
/// nearest cache after the first.
#[inline(always)]
fn statistics<S: Simd>(s: S, x: &[f32], eps: f32) -> (f32, f32) {
    let c = x.len() as f32;
    let [sum] = sums(s, Total, [x], 0.0);
    let mean = sum / c;
    let [squares] = sums(s, SquareFrom(mean), [x], mean);
    (mean, 1.0 / (squares / c + eps).sqrt())
}

#[derive(Clone, Copy)]
struct Total;

impl Step<1, 1> for Total {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x]: [S::V; 1], [sum]: [S::V; 1]) -> [S::V; 1] {
        [s.add(sum, x)]
    }
}

/// The square of the distance from a number.
#[derive(Clone, Copy)]
struct SquareFrom(f32);

impl Step<1, 1> for SquareFrom {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x]: [S::V; 1], [sum]: [S::V; 1]) -> [S::V; 1] {
        let centered = s.sub(x, s.splat(self.0));
        [s.mul_add(centered, centered, sum)]
    }
}

/// `x`, `weight`, `bias` to `y`
#[derive(Clone, Copy)]
struct Normalise {
    mean: f32,
    rstd: f32,
}

impl Step<3, 1> for Normalise {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x, weight, bias]: [S::V; 3], _: [S::V; 1]) -> [S::V; 1] {
        let normed = s.mul(s.sub(x, s.splat(self.mean)), s.splat(self.rstd));
        [s.mul_add(normed, weight, bias)]
    }
}

/// The gradient with respect to `x`.
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
    Backward { x, weight, mean, rstd, d_y, d_x, accumulate: false }.run(isa);
}

/// [`backward_input`], added to what is in `d_x`: the gradient of a residual stream, which goes around the norm as
/// well, then needs no pass of its own over memory.
///
/// Panics when the sizes do not fit together.
pub fn accumulate_input(
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    mean: &[f32],
    rstd: &[f32],
    d_y: &[f32],
    d_x: &mut [f32],
) {
    Backward { x, weight, mean, rstd, d_y, d_x, accumulate: true }.run(isa);
}

struct Backward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    mean: &'a [f32],
    rstd: &'a [f32],
    d_y: &'a [f32],
    d_x: &'a mut [f32],
    accumulate: bool,
}

impl Backward<'_> {
    fn run(self, isa: Isa) {
        let Backward { x, weight, mean, rstd, d_y, d_x, accumulate } = self;
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
        run_all(
            isa,
            tasks.map(|(((x, (mean, rstd)), d_y), d_x)| Backward {
                x,
                weight,
                mean,
                rstd,
                d_y,
                d_x,
                accumulate,
            }),
        );
    }
}

impl SimdOp for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let (weight, c) = (self.weight, self.weight.len());
        let rows = self.x.chunks_exact(c).zip(self.d_y.chunks_exact(c)).zip(self.d_x.chunks_exact_mut(c));
        for (((x, d_y), d_x), (&mean, &rstd)) in rows.zip(self.mean.iter().zip(self.rstd)) {
            let inputs = [x, weight, d_y];
            // numbers past the end have d_normed = 0 and add nothing to either sum
            let [sum, dot] = sums(s, Means { mean, rstd }, inputs, 0.0);
            let row = RowBackward { mean, rstd, through_mean: sum / c as f32, through_rstd: dot / c as f32 };
            if self.accumulate {
                map(s, Added(row), inputs, [d_x]);
            } else {
                map(s, row, inputs, [d_x]);
            }
        }
    }
}

/// `Σ d_x̂` and `Σ d_x̂ x̂` of `x`, `weight`, `d_y`
#[derive(Clone, Copy)]
struct Means {
    mean: f32,
    rstd: f32,
}

impl Step<3, 2> for Means {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x, weight, d_y]: [S::V; 3], [sum, dot]: [S::V; 2]) -> [S::V; 2] {
        let normed = s.mul(s.sub(x, s.splat(self.mean)), s.splat(self.rstd));
        let d_normed = s.mul(d_y, weight);
        [s.add(sum, d_normed), s.mul_add(d_normed, normed, dot)]
    }
}

/// `x`, `weight`, `d_y` to `d_x`
#[derive(Clone, Copy)]
struct RowBackward {
    mean: f32,
    rstd: f32,
    through_mean: f32,
    through_rstd: f32,
}

impl Step<3, 1> for RowBackward {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x, weight, d_y]: [S::V; 3], _: [S::V; 1]) -> [S::V; 1] {
        let rstd = s.splat(self.rstd);
        let normed = s.mul(s.sub(x, s.splat(self.mean)), rstd);
        let centered = s.sub(s.mul(d_y, weight), s.splat(self.through_mean));
        [s.mul(rstd, s.sub(centered, s.mul(normed, s.splat(self.through_rstd))))]
    }
}

/// The gradients with respect to weight and bias, `[C]` each, summed over the rows.
///
/// Panics when the sizes do not fit together.
pub fn backward_affine(
    isa: Isa,
    x: &[f32],
    mean: &[f32],
    rstd: &[f32],
    d_y: &[f32],
    [d_weight, d_bias]: [&mut [f32]; 2],
) {
    let t = n_rows(x.len(), d_weight.len());
    assert_eq!((d_y.len(), d_bias.len()), (x.len(), d_weight.len()), "d_y and d_bias");
    assert_eq!((mean.len(), rstd.len()), (t, t), "one mean and rstd per row");
    sum_rows(isa, AffineRows { x, mean, rstd, d_y }, t, [d_weight, d_bias]);
}

#[derive(Clone, Copy)]
struct AffineRows<'a> {
    x: &'a [f32],
    mean: &'a [f32],
    rstd: &'a [f32],
    d_y: &'a [f32],
}

impl RowStep<2> for AffineRows<'_> {
    #[inline(always)]
    fn add<S: Simd>(self, s: S, row: usize, sums: [&mut [f32]; 2]) {
        let c = sums[0].len();
        let [x, d_y] = [self.x, self.d_y].map(|x| &x[row * c..][..c]);
        map(s, AffineRow { mean: self.mean[row], rstd: self.rstd[row] }, [x, d_y], sums);
    }
}

/// `x`, `d_y`, added to the gradients of weight and bias
#[derive(Clone, Copy)]
struct AffineRow {
    mean: f32,
    rstd: f32,
}

impl Step<2, 2> for AffineRow {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x, d_y]: [S::V; 2], [d_weight, d_bias]: [S::V; 2]) -> [S::V; 2] {
        let normed = s.mul(s.sub(x, s.splat(self.mean)), s.splat(self.rstd));
        [s.mul_add(d_y, normed, d_weight), s.add(d_bias, d_y)]
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

    /// What one row adds to the gradients of weight and bias: in the forward pass this was
    /// `y[i] = (x[i] - mean) * rstd * weight[i] + bias[i]`.
    pub fn backward_affine<R: Real>(x: &[R], mean: R, rstd: R, d_y: &[R]) -> (Vec<R>, Vec<R>) {
        let d_weight = x.iter().zip(d_y).map(|(&x, &d_y)| d_y * (x - mean) * rstd).collect();
        (d_weight, d_y.to_vec())
    }
}
