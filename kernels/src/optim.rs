//! One update step of each optimizer, on the parameter where it lies.
//!
//! A prompt has a few thousand numbers, so these are plain loops. Full fine-tuning has many more, but there a step
//! costs little beside the gradients. Scalars (bias corrections, decays) are computed in f64, as torch does in Python.

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
pub fn adamw(settings: AdamW, step: u64, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
    let n = param.len();
    assert_eq!((grad.len(), m.len(), v.len()), (n, n, n), "grad, m and v");
    assert!(step > 0, "steps count from 1");
    let AdamW { lr, beta1, beta2, eps, weight_decay } = settings;
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
    let step_size = (f64::from(lr) / correction(beta1)) as f32;
    let root_correction2 = correction(beta2).sqrt() as f32;
    let keep = (1.0 - f64::from(lr) * f64::from(weight_decay)) as f32;
    for (((p, &g), m), v) in param.iter_mut().zip(grad).zip(m).zip(v) {
        *p *= keep;
        *m += (g - *m) * (1.0 - beta1);
        *v = *v * beta2 + (1.0 - beta2) * g * g;
        *p -= step_size * *m / (v.sqrt() / root_correction2 + eps);
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
pub fn adafactor(settings: Adafactor, step: u64, param: &mut [f32], grad: &[f32], moments: FactoredMoments) {
    let FactoredMoments { row, col } = moments;
    let n = param.len();
    assert_eq!((grad.len(), row.len() * col.len()), (n, n), "grad, and rows times columns");
    assert!(step > 0, "steps count from 1");
    if n == 0 {
        return;
    }
    let Adafactor { lr, clip_threshold, weight_decay, .. } = settings;
    let cols = col.len();
    update_factors(settings, step, grad, row, col);
    let mean_row = row.iter().map(|&r| f64::from(r)).sum::<f64>() / row.len() as f64;
    let col_factor: Vec<f64> = col.iter().map(|&c| f64::from(c).powf(-0.5)).collect();
    let row_factor: Vec<f64> = row.iter().map(|&r| (f64::from(r) / mean_row).powf(-0.5)).collect();
    let update = |i: usize, g: f32| f64::from(g) * row_factor[i / cols] * col_factor[i % cols];
    let squares: f64 = grad.iter().enumerate().map(|(i, &g)| update(i, g).powi(2)).sum();
    let rms = (squares / n as f64).sqrt();
    let step_size = f64::from(lr) / (rms / f64::from(clip_threshold)).max(1.0);
    let keep = (1.0 - f64::from(lr) * f64::from(weight_decay)) as f32;
    for (i, (p, &g)) in param.iter_mut().zip(grad).enumerate() {
        *p = *p * keep - (step_size * update(i, g)) as f32;
    }
}

/// Moves the factored second moment towards the squares of `grad`.
fn update_factors(settings: Adafactor, step: u64, grad: &[f32], row: &mut [f32], col: &mut [f32]) {
    let (rows, cols) = (row.len(), col.len());
    let rho = 1.0 - (step as f64).powf(-f64::from(settings.decay));
    let mix = |old: f32, new: f64| (rho * f64::from(old) + (1.0 - rho) * new) as f32;
    let mut col_sums = vec![0f64; cols];
    for (r, g) in row.iter_mut().zip(grad.chunks_exact(cols)) {
        let mut row_sum = 0.0;
        for (&g, col_sum) in g.iter().zip(&mut col_sums) {
            let square = f64::from(g) * f64::from(g) + f64::from(settings.eps);
            row_sum += square;
            *col_sum += square;
        }
        *r = mix(*r, row_sum / cols as f64);
    }
    for (c, sum) in col.iter_mut().zip(col_sums) {
        *c = mix(*c, sum / rows as f64);
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
pub fn sgd(settings: Sgd, param: &mut [f32], grad: &[f32], velocity: &mut [f32]) {
    let Sgd { lr, momentum, weight_decay } = settings;
    assert_eq!(grad.len(), param.len(), "grad");
    if momentum == 0.0 {
        for (p, &g) in param.iter_mut().zip(grad) {
            *p -= lr * (g + weight_decay * *p);
        }
        return;
    }
    assert_eq!(velocity.len(), param.len(), "velocity");
    for ((p, &g), v) in param.iter_mut().zip(grad).zip(velocity) {
        *v = momentum * *v + (g + weight_decay * *p);
        *p -= lr * *v;
    }
}
