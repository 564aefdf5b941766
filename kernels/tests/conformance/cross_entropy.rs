//! Log-sum-exp and the gradient of the loss: rows scored never, once and several times.

use prompt_tuning_kernels::{
    cross_entropy::{Target, reference},
    testing::{Rng, Tolerance, close},
};

use crate::{close_or_zero, device::on_every_device, named, normals, to_f64};

#[test]
fn hand_computed() {
    on_every_device(&[()], |device, ()| {
        // probabilities 1/4 and 3/4 in both rows; row 1 is not scored, row 2 twice
        let logits: Vec<f32> = [0.0, 3f32.ln()].repeat(3);
        let lse = device.log_sum_exp(&logits, 2);
        close(&lse, &[4f64.ln(); 3], Tolerance::both(1e-6))?;
        let target = |row, token, weight| Target { row, token, weight };
        let targets = [target(0, 0, 2.0), target(2, 1, 1.0), target(2, 0, -0.5)];
        let d = device.cross_entropy_backward((&logits, 2), &lse, &targets);
        close(&d, &[-1.5, 1.5, 0.0, 0.0, 0.625, -0.625], Tolerance::both(1e-6))
    });
}

#[test]
fn matches_the_reference() {
    let mut cases: Vec<(usize, usize, f32)> = (1..=20).map(|v| (3, v, 1.0)).collect();
    cases.extend([
        (5, 31, 1.0),
        (5, 32, 1.0),
        (5, 33, 1.0),
        (0, 7, 1.0),
        (40, 1000, 4.0),
        (3, 50_257, 3.0),
        (4, 33, 100.0),
    ]);
    on_every_device(&cases, |device, &(rows, vocab, spread)| {
        let logits: Vec<f32> = normals(1, rows * vocab).iter().map(|x| spread * x).collect();
        let mut rng = Rng(5);
        // row 1 is never scored, the others several times
        let scored = (0..rows as u32).filter(|&r| r != 1).flat_map(|r| [r, r, r]);
        let targets: Vec<Target> = scored
            .map(|row| Target { row, token: rng.below(vocab) as u32, weight: rng.normal() as f32 })
            .collect();
        let lse = device.log_sum_exp(&logits, vocab);
        let d = device.cross_entropy_backward((&logits, vocab), &lse, &targets);

        let (mut e_lse, mut e_d) = (vec![], vec![]);
        for (row, z) in to_f64(&logits).chunks(vocab).enumerate() {
            let here = targets.iter().filter(|t| t.row as usize == row);
            let here: Vec<(usize, f64)> = here.map(|t| (t.token as usize, f64::from(t.weight))).collect();
            e_lse.push(reference::log_sum_exp(z));
            e_d.extend(reference::backward(z, e_lse[row], &here));
        }
        named("lse", close(&lse, &e_lse, Tolerance::both(2e-6)))?;
        // the rounding of lse, up to 400, is an exponent
        let tol = Tolerance::both(2e-6 * (1.0 + f64::from(spread)));
        if vocab == 1 {
            close_or_zero(&d, &vec![0.0; rows], tol)
        } else {
            named("d_logits", close(&d, &e_d, tol))
        }
    });
}

#[test]
fn infinite_logits() {
    let (low, inf) = (f32::NEG_INFINITY, f32::INFINITY);
    on_every_device(&[()], |device, ()| {
        let lse = device.log_sum_exp(&[low, low, low, 1.0, 1e30, -1e30, f32::NAN, 1.0], 2);
        if lse[0] == low && lse[1] == 1.0 && lse[2] == 1e30 && lse[3].is_nan() {
            Ok(())
        } else {
            Err(format!("{lse:?}"))
        }
    });
    // a NaN among numbers that count for nothing, and a maximum that comes late or far above the rest
    let mut z = vec![low; 5000];
    z[4000] = f32::NAN;
    z.extend(vec![low; 5000]);
    z.extend((0..5000).map(|i| if i == 4321 { 1e30 } else { -1e30 }));
    on_every_device(&[()], |device, ()| {
        let lse = device.log_sum_exp(&z, 5000);
        if lse[0].is_nan() && lse[1] == low && lse[2] == 1e30 { Ok(()) } else { Err(format!("{lse:?}")) }
    });
    on_every_device(&[[inf, 0.0], [0.0, inf], [inf, inf]], |device, z| {
        // within one thread of the GPU and between two
        let apart: Vec<f32> = [&[z[0]][..], &[low; 99], &z[1..]].concat();
        let lse = [device.log_sum_exp(z, 2), device.log_sum_exp(&apart, apart.len())].concat();
        if lse.iter().all(|x| x.is_nan()) { Ok(()) } else { Err(format!("{lse:?}")) }
    });
    assert_eq!(reference::log_sum_exp(&[low, low]), low);
    assert!(reference::log_sum_exp(&[inf, 0.0]).is_nan());
}
