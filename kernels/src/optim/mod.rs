//! One update step of each optimizer, on the parameter where it lies: vector by vector, in tasks, limited by memory.
//!
//! Scalars (bias corrections, decays) are computed in f64, as torch does in Python. Every operation is rounded, none is
//! fused, so that a step has the same bits with every instruction set, Adafactor's sums aside.

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::Isa;
use crate::simd::{Simd, SimdOp};
use crate::slices::{self, Step, run_all, run_map};

/// Settings of AdamW (Loshchilov & Hutter 2019), as `torch.optim.AdamW` means them.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

/// One AdamW step; `step` counts from 1. `m` and `v` are the moments (zeros before the first step), same length as
/// `param`.
///
/// ```text
/// p ← p (1 - lr wd);  m ← m + (g - m)(1 - β₁);  v ← β₂ v + (1 - β₂) g²
/// p ← p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε)
/// ```
///
/// Panics when the lengths differ or `step` is 0.
pub fn adamw(
    isa: Isa,
    settings: AdamW,
    step: u64,
    param: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let n = param.len();
    assert_eq!((grad.len(), m.len(), v.len()), (n, n, n), "grad, m and v");
    let f = AdamWStep::of(settings, step);
    run_map(isa, f, [grad], [param, m, v]);
}

#[derive(Clone, Copy)]
struct AdamWStep {
    keep: f32,
    beta1: f32,
    beta2: f32,
    step_size: f32,
    root_correction2: f32,
    eps: f32,
}

impl AdamWStep {
    /// Panics when `step` is 0.
    fn of(settings: AdamW, step: u64) -> AdamWStep {
        assert!(step > 0, "steps count from 1");
        let AdamW { lr, beta1, beta2, eps, weight_decay } = settings;
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
        let step_size = (f64::from(lr) / correction(beta1)) as f32;
        let root_correction2 = correction(beta2).sqrt() as f32;
        let keep = (1.0 - f64::from(lr) * f64::from(weight_decay)) as f32;
        AdamWStep { keep, beta1, beta2, step_size, root_correction2, eps }
    }
}

impl Step<1, 3> for AdamWStep {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [g]: [S::V; 1], [p, m, v]: [S::V; 3]) -> [S::V; 3] {
        let times = |x: S::V, factor: f32| s.mul(x, s.splat(factor));
        let m = s.add(m, times(s.sub(g, m), 1.0 - self.beta1));
        let v = s.add(times(v, self.beta2), s.mul(times(g, 1.0 - self.beta2), g));
        let root = s.add(s.div(s.sqrt(v), s.splat(self.root_correction2)), s.splat(self.eps));
        let p = s.sub(times(p, self.keep), s.div(times(m, self.step_size), root));
        [p, m, v]
    }
}

/// Settings of Adafactor (Shazeer & Stern 2018) without parameter scaling, as Lester et al. 2021 use it.
#[derive(Clone, Copy, Debug)]
pub struct Adafactor {
    /// Learning rate of this step.
    pub lr: f32,
    /// Exponent of the second-moment decay `1 - step^(-decay)`; 0.8 in both papers.
    pub decay: f32,
    /// Largest root mean square of an update; 1.0 in the paper.
    pub clip_threshold: f32,
    /// Added to the squared gradient; 1e-30 in the paper.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

/// The factored second moment of a `[rows, cols]` parameter; zeros before the first step.
#[derive(Debug)]
pub struct FactoredMoments<'a> {
    /// Mean squared gradient of each row, `[rows]`.
    pub row: &'a mut [f32],
    /// Mean squared gradient of each column, `[cols]`.
    pub col: &'a mut [f32],
}

/// One Adafactor step on a `[rows, cols]` parameter; `step` counts from 1.
///
/// ```text
/// ρ = 1 - step^(-decay);  R_i ← ρ R_i + (1 - ρ) mean_j(g_ij² + ε);  C_j ← ρ C_j + (1 - ρ) mean_i(g_ij² + ε)
/// u_ij = g_ij / √(R_i C_j / mean(R));  p ← p (1 - lr wd) - lr u / max(1, rms(u) / clip_threshold)
/// ```
///
/// The paper keeps sums where this keeps means; the factors cancel. Panics when the lengths do not fit together or
/// `step` is 0.
pub fn adafactor(
    isa: Isa,
    settings: Adafactor,
    step: u64,
    param: &mut [f32],
    grad: &[f32],
    moments: FactoredMoments,
) {
    let FactoredMoments { row, col } = moments;
    let n = param.len();
    assert_eq!((grad.len(), row.len() * col.len()), (n, n), "grad, and rows times columns");
    assert!(step > 0, "steps count from 1");
    if n == 0 {
        return;
    }
    let Adafactor { lr, clip_threshold, weight_decay, .. } = settings;
    let cols = col.len();
    update_factors(isa, settings, step, grad, row, col);
    let mean_row = row.iter().map(|&r| f64::from(r)).sum::<f64>() / row.len() as f64;
    let col_factor: Vec<f32> = col.iter().map(|&c| f64::from(c).powf(-0.5) as f32).collect();
    let row_factor: Vec<f32> = row.iter().map(|&r| (f64::from(r) / mean_row).powf(-0.5) as f32).collect();
    let at_once = slices::rows_per_task(cols);
    let blocks = || grad.chunks(at_once * cols).zip(row_factor.chunks(at_once));
    let mut squares = vec![0f64; blocks().count()];
    let tasks = blocks().zip(&mut squares);
    run_all(isa, tasks.map(|((grad, row), sum)| SquaredUpdate { grad, row, col: &col_factor, sum }));
    let rms = (squares.iter().sum::<f64>() / n as f64).sqrt();
    let step_size = (f64::from(lr) / (rms / f64::from(clip_threshold)).max(1.0)) as f32;
    let keep = (1.0 - f64::from(lr) * f64::from(weight_decay)) as f32;
    let tasks = blocks().zip(param.chunks_mut(at_once * cols));
    run_all(
        isa,
        tasks.map(|((grad, row), param)| Update { grad, row, col: &col_factor, step_size, keep, param }),
    );
}

/// `Σ u²` over some rows.
struct SquaredUpdate<'a> {
    grad: &'a [f32],
    row: &'a [f32],
    col: &'a [f32],
    sum: &'a mut f64,
}

impl SimdOp for SquaredUpdate<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (grad, &row) in self.grad.chunks_exact(self.col.len()).zip(self.row) {
            let [sum] = slices::sums(s, Squared(row), [grad, self.col], 0.0);
            *self.sum += f64::from(sum);
        }
    }
}

/// Adds `(g · row · col)²`.
#[derive(Clone, Copy)]
struct Squared(f32);

impl Step<2, 1> for Squared {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [g, col]: [S::V; 2], [sum]: [S::V; 1]) -> [S::V; 1] {
        let u = s.mul(s.mul(g, s.splat(self.0)), col);
        [s.add(sum, s.mul(u, u))]
    }
}

/// Moves some rows.
struct Update<'a> {
    grad: &'a [f32],
    row: &'a [f32],
    col: &'a [f32],
    step_size: f32,
    keep: f32,
    param: &'a mut [f32],
}

impl SimdOp for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let cols = self.col.len();
        let rows = self.grad.chunks_exact(cols).zip(self.row).zip(self.param.chunks_exact_mut(cols));
        for ((grad, &row), param) in rows {
            let f = Moved { row, step_size: self.step_size, keep: self.keep };
            slices::map(s, f, [grad, self.col], [param]);
        }
    }
}

#[derive(Clone, Copy)]
struct Moved {
    row: f32,
    step_size: f32,
    keep: f32,
}

impl Step<2, 1> for Moved {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [g, col]: [S::V; 2], [p]: [S::V; 1]) -> [S::V; 1] {
        let u = s.mul(s.mul(g, s.splat(self.row)), col);
        [s.sub(s.mul(p, s.splat(self.keep)), s.mul(u, s.splat(self.step_size)))]
    }
}

/// Moves the factored second moment towards the squares of `grad`.
fn update_factors(isa: Isa, settings: Adafactor, step: u64, grad: &[f32], row: &mut [f32], col: &mut [f32]) {
    let (rows, cols) = (row.len(), col.len());
    let rho = 1.0 - (step as f64).powf(-f64::from(settings.decay));
    let mix = |old: f32, new: f64| (rho * f64::from(old) + (1.0 - rho) * new) as f32;
    let at_once = slices::rows_per_task(cols);
    let mut row_sums = vec![0f32; rows];
    let mut col_sums = vec![0f32; rows.div_ceil(at_once) * cols];
    let tasks = grad.chunks(at_once * cols).zip(row_sums.chunks_mut(at_once)).zip(col_sums.chunks_mut(cols));
    let eps = settings.eps;
    run_all(isa, tasks.map(|((grad, row), col)| SumSquares { grad, eps, row, col }));
    for (r, sum) in row.iter_mut().zip(row_sums) {
        *r = mix(*r, f64::from(sum) / cols as f64);
    }
    for (j, c) in col.iter_mut().enumerate() {
        let sum: f64 = col_sums[j..].iter().step_by(cols).map(|&x| f64::from(x)).sum();
        *c = mix(*c, sum / rows as f64);
    }
}

/// Sums of `g² + ε` over the columns of each row, and over some rows of each column.
struct SumSquares<'a> {
    grad: &'a [f32],
    eps: f32,
    row: &'a mut [f32],
    col: &'a mut [f32],
}

impl SimdOp for SumSquares<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (grad, row) in self.grad.chunks_exact(self.col.len()).zip(self.row) {
            let [sum] = slices::sums(s, Square { eps: 0.0 }, [grad], 0.0);
            *row = sum + grad.len() as f32 * self.eps;
            slices::map(s, Square { eps: self.eps }, [grad], [&mut *self.col]);
        }
    }
}

/// Adds `g² + ε`.
#[derive(Clone, Copy)]
struct Square {
    eps: f32,
}

impl Step<1, 1> for Square {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [g]: [S::V; 1], [sum]: [S::V; 1]) -> [S::V; 1] {
        [s.add(sum, s.add(s.mul(g, g), s.splat(self.eps)))]
    }
}

/// Settings of stochastic gradient descent, as `torch.optim.SGD` means them (no dampening, no Nesterov).
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// Learning rate of this step.
    pub lr: f32,
    /// Momentum; zero for none.
    pub momentum: f32,
    /// L2 penalty added to the gradient.
    pub weight_decay: f32,
}

/// One SGD step; `velocity` is the momentum buffer (zeros before the first step), not touched without momentum.
///
/// ```text
/// g ← g + wd p;  velocity ← momentum velocity + g;  p ← p - lr velocity
/// ```
///
/// Panics when the lengths differ; without momentum `velocity` may be empty.
pub fn sgd(isa: Isa, settings: Sgd, param: &mut [f32], grad: &[f32], velocity: &mut [f32]) {
    let Sgd { lr, momentum, weight_decay } = settings;
    assert_eq!(grad.len(), param.len(), "grad");
    let f = SgdStep { lr, momentum, weight_decay };
    if momentum == 0.0 {
        return run_map(isa, f, [grad], [param]);
    }
    assert_eq!(velocity.len(), param.len(), "velocity");
    run_map(isa, f, [grad], [param, velocity]);
}

#[derive(Clone, Copy)]
struct SgdStep {
    lr: f32,
    momentum: f32,
    weight_decay: f32,
}

impl SgdStep {
    /// The gradient with the penalty.
    #[inline(always)]
    fn direction<S: Simd>(self, s: S, g: S::V, p: S::V) -> S::V {
        s.add(g, s.mul(p, s.splat(self.weight_decay)))
    }

    #[inline(always)]
    fn moved<S: Simd>(self, s: S, p: S::V, direction: S::V) -> S::V {
        s.sub(p, s.mul(direction, s.splat(self.lr)))
    }
}

impl Step<1, 1> for SgdStep {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [g]: [S::V; 1], [p]: [S::V; 1]) -> [S::V; 1] {
        [self.moved(s, p, self.direction(s, g, p))]
    }
}

impl Step<1, 2> for SgdStep {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [g]: [S::V; 1], [p, v]: [S::V; 2]) -> [S::V; 2] {
        let v = s.add(s.mul(v, s.splat(self.momentum)), self.direction(s, g, p));
        [self.moved(s, p, v), v]
    }
}
