//! Activations, plain and gated: around every vector size, in the tails and at infinity-sized inputs.

use prompt_tuning_kernels::{
    activation::{self, Activation, reference},
    testing::{Tolerance, close},
};

use crate::{
    close_or_zero,
    device::{Device, on_every_device},
    lengths, named, normals, suite, to_f64,
};

pub(crate) const ALL: [Activation; 4] =
    [Activation::GeluTanh, Activation::GeluErf, Activation::Silu, Activation::Relu];

/// Each factor and result carries a few units of 6e-8; near `x = -5` the factor `1 + erf` cancels to that, times x.
const TOL: Tolerance = Tolerance { absolute: 2e-6, relative: 2e-6 };

#[test]
fn hand_computed() {
    // tables of the normal distribution: Φ(1) = 0.8413447461, φ(1) = 0.2419707245; σ(1) = 0.7310585786
    let expected =
        [(0.841_191_99, 1.082_964_1), (0.841_344_75, 1.083_315_5), (0.731_058_58, 0.927_670_51), (1.0, 1.0)];
    let cases: Vec<_> = ALL.into_iter().zip(expected).collect();
    on_every_device(&cases, |device, &(act, (y, slope))| {
        close(&device.activation(act, &[1.0]), &[y], Tolerance::both(1e-6))?;
        close(&device.activation_backward(act, &[1.0], &[2.0]), &[2.0 * slope], Tolerance::both(1e-6))
    });
}

#[test]
fn plain_and_gated_match_the_reference() {
    let cases: Vec<_> =
        ALL.into_iter().flat_map(|act| lengths().into_iter().map(move |n| (act, n))).collect();
    on_every_device(&cases, |device, &(act, n)| {
        let x: Vec<f32> = normals(1, n).iter().map(|x| 2.0 * x).collect();
        let (up, d_y) = (normals(2, n), normals(3, n));
        check(device, act, &x, &up, &d_y)
    });
}

#[test]
fn large_magnitudes_match_the_reference() {
    let x = [
        0.7, 1e4, -1e4, 1e10, -1e10, 30.0, -30.0, 1e-20, -1e-20, 0.0, -0.0, 87.0, -87.0, 89.5, -89.5, -6.0,
        6.0,
    ];
    on_every_device(&ALL, |device, &act| check(device, act, &x, &normals(2, x.len()), &normals(3, x.len())));
}

#[test]
fn a_nan_stays_a_nan() {
    let are = |x: &[f32], expected: &[bool]| {
        let nans: Vec<bool> = x.iter().map(|x| x.is_nan()).collect();
        if nans == expected { Ok(()) } else { Err(format!("{x:?}")) }
    };
    on_every_device(&ALL, |device, &act| {
        are(&device.activation(act, &[f32::NAN, 1.0, f32::NAN]), &[true, false, true])
    });
    let smooth = [Activation::GeluTanh, Activation::GeluErf, Activation::Silu];
    on_every_device(&smooth, |device, &act| {
        are(&device.activation_backward(act, &[f32::NAN, 1.0], &[1.0; 2]), &[true, false])
    });
}

#[test]
fn the_largest_numbers_saturate() {
    on_every_device(&ALL, |device, &act| {
        let y = device.activation(act, &[f32::MAX, f32::MIN]);
        let d_x = device.activation_backward(act, &[f32::MAX, f32::MIN], &[1.0; 2]);
        let right = y[0] == f32::MAX && y[1].abs() < 1e-30 && d_x[0] == 1.0 && d_x[1].abs() < 1e-30;
        if right { Ok(()) } else { Err(format!("{y:?} {d_x:?}")) }
    });
}

/// How many units of the last place the value may be off at `x`. The rounding of the exponent `2u`, `x²/2` or `x` is
/// a relative error of the tail: it grows with the exponent, but only where the tail is what is left of `x`. (`2u` has five
/// roundings of half a unit, constants included, and a unit of the tail may be half as large as one of the exponent: 5 at
/// worst, 3 as they do not all go one way.)
fn bound(act: Activation, x: f64) -> f64 {
    let exponent = match act {
        Activation::GeluTanh => 1.6 * (x + 0.044715 * x.powi(3)),
        Activation::GeluErf => 0.5 * x * x * x.signum(),
        Activation::Silu | Activation::Relu => 0.0,
    };
    5.0 + 3.0 * (-exponent).max(0.0)
}

/// `act(x)` where the reference, which takes the tail from 1, has lost its digits: `Φ(x) = φ(x) · Mills' ratio`.
fn exact(act: Activation, x: f64) -> f64 {
    match act {
        Activation::GeluErf if x < -2.0 => {
            let mills = (1..400).rev().fold(-x, |rest, k| -x + f64::from(k) / rest);
            x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt() / mills
        }
        Activation::GeluTanh => {
            let twice_inner = (8.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            x / (1.0 + (-twice_inner).exp())
        }
        _ => reference::forward(act, x),
    }
}

#[test]
fn values_are_within_their_ulp_bounds() {
    let x: Vec<f32> = (0..400_000).map(|i| -9.5 + 19.0 * (i as f32 / 4e5)).collect();
    suite(&ALL, |isa, &act| {
        let mut y = vec![f32::NAN; x.len()];
        activation::forward(isa, act, &x, &mut y);
        let share = |i: &usize| {
            let (x, exact) = (f64::from(x[*i]), exact(act, f64::from(x[*i])));
            let nearest = (exact.abs() as f32).max(f32::MIN_POSITIVE);
            let ulp = f32::from_bits(nearest.to_bits() + 1) - nearest;
            (f64::from(y[*i]) - exact).abs() / f64::from(ulp) / bound(act, x)
        };
        let worst = (0..x.len()).max_by(|i, j| share(i).total_cmp(&share(j))).unwrap_or(0);
        match share(&worst) <= 1.0 {
            true => Ok(()),
            false => Err(format!("{} times the bound at {:e}: {:e}", share(&worst), x[worst], y[worst])),
        }
    });
}

fn check(device: Device, act: Activation, x: &[f32], up: &[f32], d_y: &[f32]) -> Result<(), String> {
    let n = x.len();
    let (y, d_x) = (device.activation(act, x), device.activation_backward(act, x, d_y));
    let gated = device.gated(act, x, up);
    let [d_gate, d_up] = device.gated_backward(act, x, up, d_y);

    let (x, up, d_y) = (to_f64(x), to_f64(up), to_f64(d_y));
    let each = |f: &dyn Fn(usize) -> f64| (0..n).map(f).collect::<Vec<f64>>();
    let expected = each(&|i| reference::forward(act, x[i]));
    named("y", close_or_zero(&y, &expected, TOL))?;
    named("d_x", close_or_zero(&d_x, &each(&|i| reference::backward(act, x[i], d_y[i])), TOL))?;
    named("gated", close_or_zero(&gated, &each(&|i| expected[i] * up[i]), TOL))?;
    let (e_gate, e_up): (Vec<f64>, Vec<f64>) =
        (0..n).map(|i| reference::gated_backward(act, x[i], up[i], d_y[i])).unzip();
    named("d_gate", close_or_zero(&d_gate, &e_gate, TOL))?;
    named("d_up", close_or_zero(&d_up, &e_up, TOL))
}
