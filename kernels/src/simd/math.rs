//! Elementary functions of vectors, built from the operations of [`Simd`] so that every instruction set has them.
//!
//! Error bounds are against `f64` and hold on every tier, fused multiply-add or not; the tests sweep them. A NaN
//! comes out as a NaN. The polynomial coefficients are interpolations at Chebyshev nodes computed in 40 digits.

use super::Simd;

/// `coefficients[0] + coefficients[1] x + …` by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut sum = s.splat(coefficients[N - 1]);
    for i in (0..N - 1).rev() {
        sum = s.mul_add(sum, x, s.splat(coefficients[i]));
    }
    sum
}

/// Above this `exp` is infinite anyway; up to here `2^n` stays within what two factors can express.
const EXP_HIGH: f32 = 89.0;
/// `ln(2^-126)`, the smallest normal number.
const EXP_LOW: f32 = -87.336_54;
/// ln 2 in two parts. The high one has 9 significant bits, so its product with an integer below 2^15 is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `e^x` within 2 ulp. Overflows to infinity; results below the smallest normal number are 0.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, so `e^x = 2^n e^r`; `e^r` is its Taylor polynomial of degree 7, whose
/// remainder there is 5e-9.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // comparisons with a NaN are false, so it passes both clamps
    let clamped = s.select_lt(s.splat(EXP_HIGH), x, s.splat(EXP_HIGH), x);
    let clamped = s.select_lt(clamped, s.splat(EXP_LOW), s.splat(EXP_LOW), clamped);
    let n = s.round(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    let r = s.mul_add(n, s.splat(-LN2_HIGH), clamped);
    let r = s.mul_add(n, s.splat(-LN2_LOW), r);
    let tail = polynomial(s, r, [1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0]);
    let e_r = s.add(s.mul_add(s.mul(r, r), tail, r), s.splat(1.0));
    // 2^128 is not an f32, so the factor is split in two
    let half_n = s.round(s.mul(n, s.splat(0.5)));
    let y = s.mul(s.mul(e_r, s.pow2(half_n)), s.pow2(s.sub(n, half_n)));
    s.select_lt(x, s.splat(EXP_LOW), s.splat(0.0), y)
}

/// `2^x` within 2 ulp for `x < 127.5`; from there on the result means nothing. Below `-126` it is 0.
///
/// `x = n + r` with `|r| <= 1/2`, and the subtraction is exact. Cheaper than [`exp`]: what attention has to exponentiate
/// is never large.
#[inline(always)]
pub fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    const P: [f32; 7] =
        [1.0, 0.693_147_2, 0.240_226_5, 0.055_503_27, 0.009_618_057, 0.001_340_042_8, 1.546_144_5e-4];
    let n = s.round(x);
    let y = s.mul(polynomial(s, s.sub(x, n), P), s.pow2(n));
    // a comparison with a NaN is false, and the NaN has come through the polynomial
    s.select_lt(x, s.splat(-126.0), s.splat(0.0), y)
}

/// The logistic function `1 / (1 + e^-x)` within 4 ulp where it is a normal number.
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// The hyperbolic tangent within 3 ulp.
///
/// Near zero `x + x³ P(x²)`, which keeps the relative precision; elsewhere `1 - 2 / (e^2|x| + 1)`.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    const P: [f32; 6] =
        [-0.333_333_33, 0.133_333_04, -0.053_959_26, 0.021_768_919, -0.008_343_946, 0.002_292_744_8];
    let one = s.splat(1.0);
    let magnitude = s.abs(x);
    let square = s.mul(x, x);
    let near = s.mul_add(s.mul(magnitude, square), polynomial(s, square, P), magnitude);
    let e_2x = exp(s, s.add(magnitude, magnitude));
    let far = s.sub(one, s.div(s.splat(2.0), s.add(e_2x, one)));
    s.copysign(s.select_lt(magnitude, s.splat(0.625), near, far), x)
}

/// The error function within 3 ulp.
///
/// Up to 1, `x + x P(x²)`; above, `1 - e^Q(x)` where `Q` approximates `ln erfc`. From 4 on it is 1 in f32.
#[inline(always)]
pub fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    const P: [f32; 7] = [
        0.128_379_17,
        -0.376_126_27,
        0.112_835_95,
        -0.026_854_212,
        0.005_189_087_4,
        -8.016_864e-4,
        7.875_875e-5,
    ];
    const Q: [f32; 9] = [
        3.201_380_4e-4,
        -1.130_233_4,
        -0.631_826_05,
        -0.110_080_08,
        0.026_421_136,
        -0.004_759_596,
        5.968_056e-4,
        -4.605_804e-5,
        1.637_151_4e-6,
    ];
    let magnitude = s.abs(x);
    let near = s.mul_add(magnitude, polynomial(s, s.mul(x, x), P), magnitude);
    let capped = s.select_lt(s.splat(4.0), magnitude, s.splat(4.0), magnitude);
    let far = s.sub(s.splat(1.0), exp(s, polynomial(s, capped, Q)));
    s.copysign(s.select_lt(magnitude, s.splat(1.0), near, far), x)
}

#[cfg(test)]
mod tests {
    use super::super::{Simd, SimdOp};
    use crate::Isa;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Function {
        Exp,
        Exp2,
        Sigmoid,
        Tanh,
        Erf,
    }
    use Function::*;

    struct Map<'a>(Function, &'a [f32], &'a mut [f32]);

    impl SimdOp for Map<'_> {
        type Output = ();
        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            let Map(function, x, y) = self;
            for (x, y) in x.chunks_exact(S::LANES).zip(y.chunks_exact_mut(S::LANES)) {
                let x = s.load(x);
                let v = match function {
                    Exp => super::exp(s, x),
                    Exp2 => super::exp2(s, x),
                    Sigmoid => super::sigmoid(s, x),
                    Tanh => super::tanh(s, x),
                    Erf => super::erf(s, x),
                };
                s.store(v, y);
            }
        }
    }

    fn map(isa: Isa, function: Function, x: &[f32]) -> Vec<f32> {
        let mut y = vec![f32::NAN; x.len()];
        isa.run(Map(function, x, &mut y));
        y
    }

    /// erf by the series `2/√π e^-x² Σ 2^k x^(2k+1) / (2k+1)!!`, whose terms are all positive.
    fn erf(x: f64) -> f64 {
        if x.abs() > 6.0 {
            return x.signum();
        }
        let (mut term, mut sum, mut k) = (x, x, 1.0);
        while term.abs() > 1e-18 * sum.abs() {
            term *= 2.0 * x * x / (2.0 * k + 1.0);
            sum += term;
            k += 1.0;
        }
        std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
    }

    fn exact(function: Function, x: f64) -> f64 {
        match function {
            Exp => x.exp(),
            Exp2 => x.exp2(),
            Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Tanh => x.tanh(),
            Erf => erf(x),
        }
    }

    /// Distance in units of the last place of the exact value.
    fn ulps(actual: f32, exact: f64) -> f64 {
        let nearest = (exact.abs() as f32).max(f32::MIN_POSITIVE);
        let ulp = f32::from_bits(nearest.to_bits() + 1) - nearest;
        (f64::from(actual) - exact).abs() / f64::from(ulp)
    }

    /// A dense sweep of `[low, high]`: even steps, and near zero every exponent.
    fn sweep(low: f32, high: f32) -> Vec<f32> {
        const STEPS: usize = 400_000;
        let even = (0..=STEPS).map(|i| low + (high - low) * (i as f32 / STEPS as f32));
        let tiny = (0..120 * 64).map(|i| f32::from_bits(0x0080_0000 + i * (0x0080_0000 / 64 + 1)));
        let tiny = tiny.flat_map(|x| [x, -x]).filter(|x| (low..=high).contains(x));
        let mut x: Vec<f32> = even.chain(tiny).filter(|x| (low..=high).contains(x)).collect();
        x.resize(x.len().next_multiple_of(16), 0.5);
        x
    }

    fn assert_within(function: Function, x: &[f32], bound: f64) {
        for isa in Isa::available() {
            let y = map(isa, function, x);
            let error = |i: &usize| ulps(y[*i], exact(function, f64::from(x[*i])));
            let worst = (0..x.len()).max_by(|i, j| error(i).total_cmp(&error(j))).unwrap();
            let (at, ulps) = (x[worst], error(&worst));
            println!("{function:?} {}: {ulps:.2} ulp at {at:e}", isa.name());
            assert!(ulps <= bound, "{function:?} {}: {ulps} ulp at {at:e}: {:e}", isa.name(), y[worst]);
        }
    }

    #[test]
    fn exp_is_within_2_ulp() {
        assert_within(Exp, &sweep(-87.336, 88.722), 2.0);
        assert_within(Exp, &sweep(-1.0, 1.0), 2.0);
    }

    #[test]
    fn exp2_is_within_2_ulp() {
        assert_within(Exp2, &sweep(-126.0, 127.49), 2.0);
        assert_within(Exp2, &sweep(-1.0, 1.0), 2.0);
        let inf = f32::INFINITY;
        let x = [f32::NAN, -inf, -1e30, -126.1, -0.0, 0.0].repeat(8);
        for isa in Isa::available() {
            let y = map(isa, Exp2, &x);
            assert!(y.iter().step_by(6).all(|y| y.is_nan()), "{}", isa.name());
            assert_eq!(y[1..6], [0.0, 0.0, 0.0, 1.0, 1.0], "{}", isa.name());
        }
    }

    #[test]
    fn sigmoid_is_within_4_ulp() {
        assert_within(Sigmoid, &sweep(-87.0, 87.0), 4.0);
        assert_within(Sigmoid, &sweep(-2.0, 2.0), 4.0);
    }

    #[test]
    fn tanh_is_within_3_ulp() {
        assert_within(Tanh, &sweep(-12.0, 12.0), 3.0);
        assert_within(Tanh, &sweep(-0.7, 0.7), 3.0);
    }

    #[test]
    fn erf_is_within_3_ulp() {
        assert_within(Erf, &sweep(-6.0, 6.0), 3.0);
        assert_within(Erf, &sweep(-1.1, 1.1), 3.0);
    }

    #[test]
    fn nan_and_infinity() {
        let inf = f32::INFINITY;
        let mut x = [f32::NAN; 16];
        x[..4].copy_from_slice(&[inf, -inf, 1e30, -1e30]);
        for isa in Isa::available() {
            for (function, at_high, at_low) in
                [(Exp, inf, 0.0), (Sigmoid, 1.0, 0.0), (Tanh, 1.0, -1.0), (Erf, 1.0, -1.0)]
            {
                let y = map(isa, function, &x);
                assert_eq!(y[..4], [at_high, at_low, at_high, at_low], "{function:?} {}", isa.name());
                assert!(y[4..].iter().all(|y| y.is_nan()), "{function:?} {}: {y:?}", isa.name());
            }
        }
    }

    #[test]
    fn exp_overflows_and_underflows() {
        let mut x = [0.0; 16];
        x[..5].copy_from_slice(&[88.722_83, 88.722_84, -87.336_54, -87.336_56, -200.0]);
        for isa in Isa::available() {
            let y = map(isa, Exp, &x);
            assert!(y[0].is_finite() && y[1] == f32::INFINITY, "{} {y:?}", isa.name());
            assert!(y[2] > 0.0, "{} {y:?}", isa.name());
            assert_eq!(y[3..6], [0.0, 0.0, 1.0], "{}", isa.name());
        }
    }
}
