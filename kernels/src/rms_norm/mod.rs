//! Root-mean-square normalisation.
//!
//! ```text
//! forward   y_i = x_i r w_i,   r = (mean_j(x_j²) + eps)^(-1/2)
//! backward  d_x_i = r (d_y_i w_i - x_i r² mean_j(d_y_j w_j x_j))
//!           d_w_i = Σ_rows d_y_i x_i r                                    where it is trained
//! ```
//!
//! Derivation: `∂r/∂x_i = -r³ x_i / C`, so `d_x_i = r d_y_i w_i + Σ_j d_y_j w_j x_j ∂r/∂x_i`.
//!
//! Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization" (arXiv 1910.07467).

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::{
    Isa,
    simd::{Simd, SimdOp},
    slices::{Added, RowStep, Step, map, n_rows, rows_per_task, run_all, sum_rows, sums},
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
            let [squares] = sums(s, Squares, [x], 0.0);
            *rstd = 1.0 / (squares / c as f32 + self.eps).sqrt();
            map(s, Normalise { rstd: *rstd }, [x, weight], [y]);
        }
    }
}

#[derive(Clone, Copy)]
struct Squares;

impl Step<1, 1> for Squares {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x]: [S::V; 1], [sum]: [S::V; 1]) -> [S::V; 1] {
        [s.mul_add(x, x, sum)]
    }
}

/// `x`, `weight` to `y`
#[derive(Clone, Copy)]
struct Normalise {
    rstd: f32,
}

impl Step<2, 1> for Normalise {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x, weight]: [S::V; 2], _: [S::V; 1]) -> [S::V; 1] {
        [s.mul(s.mul(x, s.splat(self.rstd)), weight)]
    }
}

/// The gradient with respect to `x`.
///
/// Panics when the sizes do not fit together.
pub fn backward_input(isa: Isa, x: &[f32], weight: &[f32], rstd: &[f32], d_y: &[f32], d_x: &mut [f32]) {
    Backward { x, weight, rstd, d_y, d_x, accumulate: false }.run(isa);
}

/// [`backward_input`], added to what is in `d_x`: the gradient of a residual stream, which goes around the norm as
/// well, then needs no pass of its own over memory.
///
/// Panics when the sizes do not fit together.
pub fn accumulate_input(isa: Isa, x: &[f32], weight: &[f32], rstd: &[f32], d_y: &[f32], d_x: &mut [f32]) {
    Backward { x, weight, rstd, d_y, d_x, accumulate: true }.run(isa);
}

struct Backward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    rstd: &'a [f32],
    d_y: &'a [f32],
    d_x: &'a mut [f32],
    accumulate: bool,
}

impl Backward<'_> {
    fn run(self, isa: Isa) {
        let Backward { x, weight, rstd, d_y, d_x, accumulate } = self;
        let c = weight.len();
        let t = n_rows(x.len(), c);
        assert_eq!(
            (d_y.len(), d_x.len(), rstd.len()),
            (x.len(), x.len(), t),
            "d_y, d_x and one rstd per row"
        );
        if t == 0 {
            return;
        }
        let n = rows_per_task(c);
        let tasks = x.chunks(n * c).zip(rstd.chunks(n)).zip(d_y.chunks(n * c).zip(d_x.chunks_mut(n * c)));
        let task = |((x, rstd), (d_y, d_x))| Backward { x, weight, rstd, d_y, d_x, accumulate };
        run_all(isa, tasks.map(task));
    }
}

impl SimdOp for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let (weight, c) = (self.weight, self.weight.len());
        let rows = self.x.chunks_exact(c).zip(self.d_y.chunks_exact(c)).zip(self.d_x.chunks_exact_mut(c));
        for (((x, d_y), d_x), &rstd) in rows.zip(self.rstd) {
            let inputs = [x, weight, d_y];
            let [dot] = sums(s, Dot { rstd }, inputs, 0.0);
            let row = RowBackward { rstd, through_rstd: dot / c as f32 };
            if self.accumulate {
                map(s, Added(row), inputs, [d_x]);
            } else {
                map(s, row, inputs, [d_x]);
            }
        }
    }
}

/// `Σ d_y w x r` of `x`, `weight`, `d_y`
#[derive(Clone, Copy)]
struct Dot {
    rstd: f32,
}

impl Step<3, 1> for Dot {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x, weight, d_y]: [S::V; 3], [dot]: [S::V; 1]) -> [S::V; 1] {
        [s.mul_add(s.mul(d_y, weight), s.mul(x, s.splat(self.rstd)), dot)]
    }
}

/// `x`, `weight`, `d_y` to `d_x`
#[derive(Clone, Copy)]
struct RowBackward {
    rstd: f32,
    through_rstd: f32,
}

impl Step<3, 1> for RowBackward {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x, weight, d_y]: [S::V; 3], _: [S::V; 1]) -> [S::V; 1] {
        let rstd = s.splat(self.rstd);
        let through_rstd = s.mul(s.mul(x, rstd), s.splat(self.through_rstd));
        [s.mul(rstd, s.sub(s.mul(d_y, weight), through_rstd))]
    }
}

/// The gradient with respect to the weight, `[C]`, summed over the rows.
///
/// Panics when the sizes do not fit together.
pub fn backward_weight(isa: Isa, x: &[f32], rstd: &[f32], d_y: &[f32], d_weight: &mut [f32]) {
    let t = n_rows(x.len(), d_weight.len());
    assert_eq!((d_y.len(), rstd.len()), (x.len(), t), "d_y and one rstd per row");
    sum_rows(isa, WeightRows { x, rstd, d_y }, t, [d_weight]);
}

#[derive(Clone, Copy)]
struct WeightRows<'a> {
    x: &'a [f32],
    rstd: &'a [f32],
    d_y: &'a [f32],
}

impl RowStep<1> for WeightRows<'_> {
    #[inline(always)]
    fn add<S: Simd>(self, s: S, row: usize, sums: [&mut [f32]; 1]) {
        let c = sums[0].len();
        let [x, d_y] = [self.x, self.d_y].map(|x| &x[row * c..][..c]);
        map(s, WeightRow { rstd: self.rstd[row] }, [x, d_y], sums);
    }
}

/// `x`, `d_y`, added to the gradient of the weight
#[derive(Clone, Copy)]
struct WeightRow {
    rstd: f32,
}

impl Step<2, 1> for WeightRow {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x, d_y]: [S::V; 2], [d_weight]: [S::V; 1]) -> [S::V; 1] {
        [s.mul_add(d_y, s.mul(x, s.splat(self.rstd)), d_weight)]
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

    /// What one row adds to the gradient of the weight: in the forward pass this was `y[i] = x[i] * rstd * weight[i]`.
    pub fn backward_weight<R: Real>(x: &[R], rstd: R, d_y: &[R]) -> Vec<R> {
        x.iter().zip(d_y).map(|(&x, &d_y)| d_y * x * rstd).collect()
    }
}
