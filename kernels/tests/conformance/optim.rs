//! Optimizer steps against values by hand and the formula of the paper.

use prompt_tuning_kernels::{
    Isa,
    optim::{self, Adafactor, AdamW, FactoredMoments, Sgd},
    testing::{Tolerance, close},
};

use crate::{
    device::{Device, on_every_device},
    normals, suite, to_f64,
};

/// `torch.optim.AdamW` by hand for one number and three gradients, `lr 0.1, betas (0.5, 0.75), eps 0, decay 0.5`:
///
/// | step | g | m | v | m̂ = m/(1-0.5ᵗ) | v̂ = v/(1-0.75ᵗ) | p |
/// |---|---|---|---|---|---|---|
/// | 1 | 2 | 1 | 1 | 2 | 4 | 1·0.95 - 0.1·2/2 = 0.85 |
/// | 2 | 0 | 0.5 | 0.75 | 2/3 | 12/7 | 0.85·0.95 - 0.1·(2/3)/√(12/7) |
/// | 3 | -4 | -1.75 | 4.5625 | -2 | 4.5625/0.578125 | … |
#[test]
fn adamw_by_hand() {
    let settings = AdamW { lr: 0.1, beta1: 0.5, beta2: 0.75, eps: 0.0, weight_decay: 0.5 };
    let second = 0.85 * 0.95 - 0.1 * (2.0 / 3.0) / (12.0 / 7.0f64).sqrt();
    let third = second * 0.95 + 0.1 * 2.0 / (4.5625 / 0.578125f64).sqrt();
    let (mut p, mut m, mut v) = ([1.0f32], [0.0f32], [0.0f32]);
    for (step, (grad, expected)) in [(2.0, 0.85), (0.0, second), (-4.0, third)].into_iter().enumerate() {
        optim::adamw(Isa::best(), settings, step as u64 + 1, &mut p, &[grad], &mut m, &mut v);
        close(&p, &[expected], Tolerance::both(1e-6)).unwrap();
    }
    close(&[m[0], v[0]], &[-1.75, 4.5625], Tolerance::both(1e-6)).unwrap();
}

#[test]
fn adamw_first_step_is_lr_whatever_the_gradient() {
    let settings = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let (mut p, mut m, mut v) = ([0.0f32; 2], [0.0f32; 2], [0.0f32; 2]);
    optim::adamw(Isa::best(), settings, 1, &mut p, &[1e-3, -1e3], &mut m, &mut v);
    close(&p, &[-0.01 / (1.0 + 1e-5), 0.01], Tolerance::both(1e-6)).unwrap();
}

#[test]
fn sgd_by_hand() {
    let settings = Sgd { lr: 0.5, momentum: 0.5, weight_decay: 0.5 };
    let (mut p, mut velocity) = ([2.0f32], [0.0f32]);
    // g = 1 + 0.5·2 = 2, velocity 2, p = 1; g = 1 + 0.5 = 1.5, velocity 2.5, p = -0.25
    for expected in [1.0, -0.25] {
        optim::sgd(Isa::best(), settings, &mut p, &[1.0], &mut velocity);
        close(&p, &[expected], Tolerance::both(1e-6)).unwrap();
    }
    optim::sgd(Isa::best(), Sgd { momentum: 0.0, ..settings }, &mut p, &[1.0], &mut []);
    close(&p, &[-0.25 - 0.5 * (1.0 - 0.125)], Tolerance::both(1e-6)).unwrap();
}

/// Algorithm 4 of Shazeer & Stern 2018 with full matrices in f64, as the paper writes it (sums, not means).
fn adafactor_step(
    settings: Adafactor,
    step: u64,
    p: &mut [f64],
    g: &[f64],
    (r, c): (&mut [f64], &mut [f64]),
) {
    let cols = c.len();
    let square = |i: usize, j: usize| g[i * cols + j].powi(2) + f64::from(settings.eps);
    let rho = 1.0 - (step as f64).powf(-f64::from(settings.decay));
    for (i, r) in r.iter_mut().enumerate() {
        *r = rho * *r + (1.0 - rho) * (0..cols).map(|j| square(i, j)).sum::<f64>();
    }
    for (j, c) in c.iter_mut().enumerate() {
        *c = rho * *c + (1.0 - rho) * (0..r.len()).map(|i| square(i, j)).sum::<f64>();
    }
    let total: f64 = r.iter().sum();
    let u: Vec<f64> = (0..g.len()).map(|i| g[i] / (r[i / cols] * c[i % cols] / total).sqrt()).collect();
    let rms = (u.iter().map(|u| u * u).sum::<f64>() / u.len() as f64).sqrt();
    let clip = (rms / f64::from(settings.clip_threshold)).max(1.0);
    for (p, u) in p.iter_mut().zip(u) {
        *p -= f64::from(settings.lr) * (f64::from(settings.weight_decay) * *p + u / clip);
    }
}

#[test]
fn adafactor_matches_the_paper() {
    for (rows, cols, scale) in
        [(1, 1, 1.0), (1, 7, 1.0), (5, 1, 1.0), (20, 33, 1e-3), (3, 4, 1e4), (700, 50, 1.0)]
    {
        let settings = Adafactor { lr: 0.3, decay: 0.8, clip_threshold: 1.0, eps: 1e-30, weight_decay: 1e-2 };
        let mut p = normals(1, rows * cols);
        let (mut row, mut col) = (vec![0.0; rows], vec![0.0; cols]);
        let (mut p64, mut row64, mut col64) = (to_f64(&p), vec![0.0; rows], vec![0.0; cols]);
        for step in 1..=5 {
            // growing gradients make updates above the threshold, shrinking ones below
            let size = scale * if step < 4 { step as f32 } else { 0.1 };
            let grad: Vec<f32> = normals(step + 10, rows * cols).iter().map(|g| size * g).collect();
            optim::adafactor(
                Isa::best(),
                settings,
                step,
                &mut p,
                &grad,
                FactoredMoments { row: &mut row, col: &mut col },
            );
            adafactor_step(settings, step, &mut p64, &to_f64(&grad), (&mut row64, &mut col64));
            close(&p, &p64, Tolerance::both(2e-6)).unwrap();
        }
    }
}

/// Enough numbers for several tasks and a rest: every one of them moves as it would alone.
#[test]
fn a_long_parameter_moves_number_by_number() {
    let n = 40_003;
    let settings = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 };
    let (start, grad) = (normals(1, n), normals(2, n));
    let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
    let mut sgd = start.clone();
    let of_sgd = Sgd { lr: 0.1, momentum: 0.0, weight_decay: 0.01 };
    for step in 1..=2 {
        optim::adamw(Isa::best(), settings, step, &mut p, &grad, &mut m, &mut v);
        optim::sgd(Isa::best(), of_sgd, &mut sgd, &grad, &mut []);
    }
    for i in (0..n).step_by(997).chain([n - 1]) {
        let (mut one, mut m1, mut v1, mut one_sgd) = ([start[i]], [0.0], [0.0], [start[i]]);
        for step in 1..=2 {
            optim::adamw(Isa::best(), settings, step, &mut one, &grad[i..=i], &mut m1, &mut v1);
            optim::sgd(Isa::best(), of_sgd, &mut one_sgd, &grad[i..=i], &mut []);
        }
        assert_eq!((p[i], m[i], v[i], sgd[i]), (one[0], m1[0], v1[0], one_sgd[0]), "number {i}");
    }
}

/// Every operation is rounded and none is fused, so AdamW and SGD have the same bits everywhere.
#[test]
fn every_device_takes_the_same_step() {
    let n = 700 * 61;
    let (start, grad) = (normals(1, n), normals(2, n));
    let squares: Vec<f32> = normals(3, n).iter().map(|x| x * x).collect();
    let adamw = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 };
    let momentum = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.01 };
    let steps = |device: Device| {
        let (mut p, mut m, mut v) = (start.clone(), normals(4, n), squares.clone());
        device.adamw(adamw, 3, &grad, [&mut p, &mut m, &mut v]);
        let (mut with, mut velocity, mut without) = (start.clone(), normals(5, n), start.clone());
        device.sgd(momentum, &grad, &mut with, &mut velocity);
        device.sgd(Sgd { momentum: 0.0, ..momentum }, &grad, &mut without, &mut []);
        [p, m, v, with, velocity, without]
    };
    let expected = steps(Device::Cpu(Isa::available()[0]));
    assert!(expected.iter().all(|x| *x != start), "a step changes something");
    on_every_device(&[()], |device, ()| match steps(device) == expected {
        true => Ok(()),
        false => Err("other bits than the portable kernels".to_string()),
    });
}

/// Adafactor's sums are as wide as a vector: instruction sets agree as two orders of one sum do.
#[test]
fn every_instruction_set_factors_alike() {
    let (rows, cols) = (700, 61);
    let (start, grad) = (normals(1, rows * cols), normals(2, rows * cols));
    let adafactor = Adafactor { lr: 0.3, decay: 0.8, clip_threshold: 1.0, eps: 1e-30, weight_decay: 1e-2 };
    let step = |isa: Isa| {
        let (mut factored, mut row, mut col) = (start.clone(), vec![0.5; rows], vec![0.5; cols]);
        let moments = FactoredMoments { row: &mut row, col: &mut col };
        optim::adafactor(isa, adafactor, 2, &mut factored, &grad, moments);
        [factored, row, col]
    };
    let expected = step(Isa::available()[0]);
    assert!(expected[0] != start, "a step changes something");
    suite(&[()], |isa, ()| {
        step(isa)
            .iter()
            .zip(&expected)
            .try_for_each(|(x, expected)| close(x, expected, Tolerance::both(1e-6)))
    });
}
