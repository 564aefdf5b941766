//! Layer and RMS normalisation, also where the mean is much larger than the spread.

use prompt_tuning_kernels::{
    layer_norm, rms_norm,
    testing::{Tolerance, close},
};

use crate::{
    close_or_zero,
    device::{
        norms::{Parameters, Statistics},
        on_every_device,
    },
    named, normals, to_f64,
};

/// Rows, columns, and what the rows are made of: `offset + spread * normal`.
#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    cols: usize,
    offset: f32,
    spread: f32,
}

fn cases() -> Vec<Case> {
    let case = |rows, cols| Case { rows, cols, offset: 0.3, spread: 1.0 };
    let widths = (1..=20).chain([31, 32, 33, 47, 48, 49, 63, 64, 65]);
    let mut cases: Vec<Case> = widths.map(|cols| case(3, cols)).collect();
    cases.extend((0..=20).map(|rows| case(rows, 24)));
    cases.extend([case(45, 768), case(850, 768), case(33, 2048), case(2, 20_000)]);
    cases.extend([
        Case { rows: 5, cols: 100, offset: 0.0, spread: 1e4 },
        Case { rows: 5, cols: 100, offset: 0.0, spread: 1e-6 },
    ]);
    cases.push(Case { rows: 5, cols: 100, offset: 1000.0, spread: 1.0 });
    cases
}

struct Data {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    d_y: Vec<f32>,
}

impl Case {
    fn data(&self) -> Data {
        let n = self.rows * self.cols;
        let x = normals(1, n).iter().map(|x| self.offset + self.spread * x).collect();
        let weight = normals(2, self.cols).iter().map(|w| 1.0 + 0.3 * w).collect();
        Data { x, weight, bias: normals(3, self.cols), d_y: normals(4, n) }
    }

    /// A sum over C numbers rounds at most log2(C) + C/lanes times and half of that cancels; `x - mean` carries the
    /// rounding of the mean, which weighs `offset / spread`.
    fn tolerance(&self) -> f64 {
        3e-6 * (1.0 + f64::from((self.offset / self.spread).abs()) / 10.0)
    }
}

impl Case {
    /// For a sum over the rows of numbers of size one: each addition rounds a sum that is hardly larger than sqrt(rows).
    fn of_sum(&self, tol: Tolerance) -> Tolerance {
        Tolerance { absolute: tol.absolute * (self.rows as f64).sqrt().max(1.0), ..tol }
    }
}

fn add_to(sum: &mut [f64], x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
}

const EPS: f32 = 1e-5;

/// A gradient that was there before: the bias again and again.
fn bias_rows(bias: &[f32], n: usize) -> Vec<f32> {
    bias.iter().copied().cycle().take(n).collect()
}

/// Whether `sum` has the very bits of `a + b`: adding in the kernel must not change what adding afterwards gives.
fn is_sum(sum: &[f32], a: &[f32], b: &[f32]) -> Result<(), String> {
    let differs = |i: &usize| sum[*i].to_bits() != (a[*i] + b[*i]).to_bits();
    match (0..b.len()).find(differs) {
        Some(i) => Err(format!("[{i}] {:e}, expected {:e}", sum[i], a[i] + b[i])),
        None => Ok(()),
    }
}

#[test]
fn hand_computed() {
    on_every_device(&[()], |device, ()| {
        // mean 2, variance 1: normed -1, 1
        let x = [1.0, 3.0, 3.0, 1.0];
        let parameters = Parameters { weight: &[2.0, 4.0], bias: &[0.5, 0.0], eps: 0.0 };
        let (y, statistics) = device.layer_norm(&x, parameters);
        close(&y, &[-1.5, 4.0, 2.5, -4.0], Tolerance::both(1e-7))?;
        let Statistics { mean, rstd } = &statistics;
        close(&[&mean[..], rstd].concat(), &[2.0, 2.0, 1.0, 1.0], Tolerance::both(1e-7))?;
        // with two columns the output does not depend on the input
        let d_x = device.layer_norm_backward((&x, &statistics), parameters.weight, &[1.0, 2.0, 3.0, 4.0]);
        close_or_zero(&d_x, &[0.0; 4], Tolerance::both(1e-6))?;

        // mean square (1 + 49) / 2 = 25: rstd 0.2
        let parameters = Parameters { weight: &[2.0, 1.0], bias: &[], eps: 0.0 };
        let (y, rstd) = device.rms_norm(&[1.0, 7.0], parameters);
        close(&y, &[0.4, 1.4], Tolerance::both(1e-6))?;
        close(&rstd, &[0.2], Tolerance::both(1e-6))?;
        // d_x = 0.2 (d_y w - x 0.04 mean(d_y w x)), d_y w = (2, 0): mean 1
        let d_x = device.rms_norm_backward((&[1.0, 7.0], &rstd), parameters.weight, &[1.0, 0.0]);
        close(&d_x, &[0.392, -0.056], Tolerance::both(1e-6))
    });
}

#[test]
fn layer_norm_matches_the_reference() {
    on_every_device(&cases(), |device, case| {
        let Data { x, weight, bias, d_y } = case.data();
        let (y, statistics) = device.layer_norm(&x, Parameters { weight: &weight, bias: &bias, eps: EPS });
        let d_x = device.layer_norm_backward((&x, &statistics), &weight, &d_y);
        let before = bias_rows(&bias, x.len());
        let mut sum = before.clone();
        device.layer_norm_accumulate((&x, &statistics), &weight, &d_y, &mut sum);
        named("accumulated", is_sum(&sum, &before, &d_x))?;
        let [d_w, d_b] = device.layer_norm_affine((&x, &statistics), &d_y, case.cols);

        let [x, weight, bias, d_y] = [&x, &weight, &bias, &d_y].map(|x| to_f64(x));
        let (mut e_y, mut e_mean, mut e_rstd, mut e_d_x) = (vec![], vec![], vec![], vec![]);
        let (mut e_d_w, mut e_d_b) = (vec![0.0; case.cols], vec![0.0; case.cols]);
        for (x, d_y) in x.chunks(case.cols).zip(d_y.chunks(case.cols)) {
            let (y, mean, rstd) = layer_norm::reference::forward(x, &weight, &bias, EPS.into());
            e_d_x.extend(layer_norm::reference::backward_input(x, &weight, mean, rstd, d_y));
            let (d_w, d_b) = layer_norm::reference::backward_affine(x, mean, rstd, d_y);
            add_to(&mut e_d_w, &d_w);
            add_to(&mut e_d_b, &d_b);
            e_y.extend(y);
            e_mean.push(mean);
            e_rstd.push(rstd);
        }
        let tol = Tolerance::both(case.tolerance());
        named("d_weight", close_or_zero(&d_w, &e_d_w, case.of_sum(tol)))?;
        named("d_bias", close_or_zero(&d_b, &e_d_b, case.of_sum(tol)))?;
        named("y", close_or_zero(&y, &e_y, tol))?;
        let largest = f64::from(case.offset.abs() + case.spread);
        let of_mean = Tolerance { absolute: tol.absolute * largest, ..tol };
        named("mean", close_or_zero(&statistics.mean, &e_mean, of_mean))?;
        named("rstd", close(&statistics.rstd, &e_rstd, tol))?;
        // a gradient is as large as rstd; one column or two leave only rounding
        let largest = e_rstd.iter().fold(0.0, |a: f64, &b| a.max(b));
        named(
            "d_x",
            close_or_zero(&d_x, &e_d_x, Tolerance { absolute: 10.0 * tol.absolute * largest, ..tol }),
        )
    });
}

#[test]
fn rms_norm_matches_the_reference() {
    on_every_device(&cases(), |device, case| {
        let Data { x, weight, bias, d_y } = case.data();
        let (y, rstd) = device.rms_norm(&x, Parameters { weight: &weight, bias: &bias, eps: EPS });
        let d_x = device.rms_norm_backward((&x, &rstd), &weight, &d_y);
        let before = bias_rows(&bias, x.len());
        let mut sum = before.clone();
        device.rms_norm_accumulate((&x, &rstd), &weight, &d_y, &mut sum);
        named("accumulated", is_sum(&sum, &before, &d_x))?;
        let d_w = device.rms_norm_weight((&x, &rstd), &d_y, case.cols);

        let [x, weight, d_y] = [&x, &weight, &d_y].map(|x| to_f64(x));
        let (mut e_y, mut e_rstd, mut e_d_x) = (vec![], vec![], vec![]);
        let mut e_d_w = vec![0.0; case.cols];
        for (x, d_y) in x.chunks(case.cols).zip(d_y.chunks(case.cols)) {
            let (y, rstd) = rms_norm::reference::forward(x, &weight, EPS.into());
            e_d_x.extend(rms_norm::reference::backward_input(x, &weight, rstd, d_y));
            add_to(&mut e_d_w, &rms_norm::reference::backward_weight(x, rstd, d_y));
            e_y.extend(y);
            e_rstd.push(rstd);
        }
        let tol = Tolerance::both(3e-6);
        named("d_weight", close_or_zero(&d_w, &e_d_w, case.of_sum(tol)))?;
        named("y", close_or_zero(&y, &e_y, tol))?;
        named("rstd", close(&rstd, &e_rstd, tol))?;
        let largest = e_rstd.iter().fold(0.0, |a: f64, &b| a.max(b));
        named("d_x", close_or_zero(&d_x, &e_d_x, Tolerance { absolute: tol.absolute * largest, ..tol }))
    });
}
