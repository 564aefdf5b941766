//! Elementary functions of vectors, built from the operations of [`Simd`] so that every instruction set has them.
//!
//! Error bounds are against `f64` and hold on every tier, fused multiply-add or not; the tests sweep them. A NaN
//! comes out as a NaN. The polynomial coefficients are interpolations at Chebyshev nodes computed in 40 digits.
//!
//! These functions decide whether an activation waits for memory or for arithmetic, so they count: one vector of
//! eight may take about 25 cycles when two cores share 16 GB/s.

use super::Simd;

/// `coefficients[0] + coefficients[1] x + …`, given `square = x²`: the even and the odd half run side by side.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, square: S::V, coefficients: [f32; N]) -> S::V {
    let mut sums = [s.splat(coefficients[N - 1]), s.splat(coefficients[N - 2])];
    for i in (0..N - 2).rev() {
        let sum = &mut sums[(N - 1 - i) % 2];
        *sum = s.mul_add(*sum, square, s.splat(coefficients[i]));
    }
    let [odd, even] = if N.is_multiple_of(2) { sums } else { [sums[1], sums[0]] };
    s.mul_add(odd, x, even)
}

/// `x`, but `limit` where it is larger. A NaN stays: no comparison with it is true.
#[inline(always)]
pub fn at_most<S: Simd>(s: S, x: S::V, limit: f32) -> S::V {
    s.select_lt(s.splat(limit), x, s.splat(limit), x)
}

/// `x`, but `limit` where it is smaller. A NaN stays.
#[inline(always)]
pub fn at_least<S: Simd>(s: S, x: S::V, limit: f32) -> S::V {
    s.select_lt(x, s.splat(limit), s.splat(limit), x)
}

/// ln 2 in two parts. The high one has 9 significant bits, so its product with an integer below 2^15 is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `1.5 · 2^23`: what is added to a number below 2^22 leaves no bits for a fraction, so the sum rounds to an integer.
const ROUND: f32 = 12_582_912.0;

/// `e^r - 1` for `x = n ln 2 + r`, `|r| <= ln 2 / 2`: there `r + r² P(r)` is within 1.1e-8 of it, relative to `e^r`.
#[inline(always)]
fn exp_m1_of_rest<S: Simd>(s: S, x: S::V, n: S::V) -> S::V {
    const P: [f32; 5] = [0.5, 0.166_665_76, 0.041_666_556, 0.008_363_203, 0.001_392_621_3];
    let r = s.mul_add(n, s.splat(-LN2_HIGH), x);
    let r = s.mul_add(n, s.splat(-LN2_LOW), r);
    let square = s.mul(r, r);
    s.mul_add(square, polynomial(s, r, square, P), r)
}

/// Above this `exp` is infinite anyway; up to here `n` is at most 128.
const EXP_HIGH: f32 = 89.0;
/// `ln(2^-125.5)`: from here on `2^(n-1)` is a normal number.
const EXP_LOW: f32 = -86.989_97;

/// `e^x` within 2 ulp. Overflows to infinity; results below `2^-125.5` are 0.
///
/// `x = n ln 2 + r`, so `e^x = 2^n e^r`, made as `2^(n-1) · 2 e^r` because `2^128` is not an f32.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // only `n` is capped: a NaN, and what must become infinite, goes on through the rest
    let n = s.mul_add(s.min(x, s.splat(EXP_HIGH)), s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let (n, n_less_1) = (s.sub(n, s.splat(ROUND)), s.sub(n, s.splat(ROUND + 1.0)));
    let two = s.splat(2.0);
    let twice_e_r = s.mul_add(exp_m1_of_rest(s, x, n), two, two);
    let y = s.mul(twice_e_r, s.pow2(n_less_1));
    s.select_lt(x, s.splat(EXP_LOW), s.splat(0.0), y)
}

/// How large the argument of [`exp_moderate`] may be.
pub const MODERATE: f32 = 86.0;

/// `e^x` within 2 ulp for `|x| <=` [`MODERATE`]; for other numbers anything.
#[inline(always)]
pub fn exp_moderate<S: Simd>(s: S, x: S::V) -> S::V {
    let n = s.mul_add(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(n, s.splat(ROUND));
    let e_r = s.add(exp_m1_of_rest(s, x, n), s.splat(1.0));
    s.mul(e_r, s.pow2(n))
}

/// `2^x` within 2 ulp for `-126 <= x < 127.5`; for other numbers anything, for a NaN a NaN.
///
/// `x = n + r` with `|r| <= 1/2`, and the subtraction is exact. Where the exponent is itself a rounded product, this saves what
/// [`exp_moderate`] does to be exact about ln 2.
#[inline(always)]
pub fn exp2_moderate<S: Simd>(s: S, x: S::V) -> S::V {
    const P: [f32; 6] =
        [std::f32::consts::LN_2, 0.240_226_5, 0.055_503_27, 0.009_618_057, 0.001_340_042_8, 1.546_144_5e-4];
    let n = s.sub(s.add(x, s.splat(ROUND)), s.splat(ROUND));
    let rest = s.sub(x, n);
    let y = s.mul_add(rest, polynomial(s, rest, s.mul(rest, rest), P), s.splat(1.0));
    s.mul(y, s.pow2(n))
}

/// `2^x` within 2 ulp for `x < 127.5`, 0 below `-126`: what attention needs, whose exponents are never large.
#[inline(always)]
pub fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    // a comparison with a NaN is false, and the NaN has come through the polynomial
    s.select_lt(x, s.splat(-126.0), s.splat(0.0), exp2_moderate(s, x))
}

/// The logistic function `σ(x) = 1 / (1 + e^-x)` and `1 - σ(x)`, given `e^-x`: nothing cancels in either tail.
///
/// Both are within 4 ulp for `|x| <=` [`MODERATE`] when `e^-x` comes from [`exp_moderate`].
#[inline(always)]
pub fn logistic<S: Simd>(s: S, exp_of_minus_x: S::V) -> (S::V, S::V) {
    let one = s.splat(1.0);
    let sigmoid = s.div(one, s.add(one, exp_of_minus_x));
    (sigmoid, s.mul(exp_of_minus_x, sigmoid))
}

/// How large the argument of [`normal`] may be: `e^(-x²/2)` is then still moderate.
pub const NORMAL_LIMIT: f32 = 13.0;

/// The normal distribution for `|x| <=` [`NORMAL_LIMIT`]: `Φ(x)` and the density `φ(x) = Φ'(x)`, both within
/// `5 + x²` ulp (the rounding of `x²` is an exponent).
///
/// The tail is `Φ(-|x|) = e^(-x²/2) t P(1 - t)` with `t = 1 / (1 + |x|/2)`, `P` of degree 10; on the other side it
/// is taken from 1. (Hastings 1955 has `P(t)`. Near zero `1 - t = |x|/2 t` is known to more digits than `t`.)
#[inline(always)]
pub fn normal<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    const P: [f32; 11] = [
        0.5,
        -0.297_883_36,
        -0.095_823_74,
        0.043_453_81,
        0.044_687_204,
        0.063_137_38,
        -0.131_516_37,
        0.223_710_92,
        -0.265_904_58,
        0.140_155_51,
        -0.024_528_999,
    ];
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let one = s.splat(1.0);
    let bell = exp2_moderate(s, s.mul(s.mul(x, s.splat(-0.5 * std::f32::consts::LOG2_E)), x));
    let half = s.mul(s.abs(x), s.splat(0.5));
    let t = s.div(one, s.add(half, one));
    let rest = s.mul(half, t);
    let tail = s.mul(s.mul(bell, t), polynomial(s, rest, s.mul(rest, rest), P));
    let cdf = s.select_lt(x, s.splat(0.0), tail, s.sub(one, tail));
    (cdf, s.mul(bell, s.splat(INV_SQRT_2PI)))
}

#[cfg(test)]
mod tests {
    use super::super::{Simd, SimdOp};
    use crate::Isa;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Function {
        Exp,
        ExpModerate,
        Exp2,
        Exp2Moderate,
        Sigmoid,
        OneMinusSigmoid,
        Cdf,
        Density,
    }
    use Function::*;

    #[inline(always)]
    fn sigmoid<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
        super::logistic(s, super::exp_moderate(s, s.sub(s.splat(0.0), x)))
    }

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
                    ExpModerate => super::exp_moderate(s, x),
                    Exp2Moderate => super::exp2_moderate(s, x),
                    Sigmoid => sigmoid(s, x).0,
                    OneMinusSigmoid => sigmoid(s, x).1,
                    Cdf => super::normal(s, x).0,
                    Density => super::normal(s, x).1,
                    Exp2 => super::exp2(s, x),
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

    fn density(x: f64) -> f64 {
        (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
    }

    /// `Φ(-x)` for `x >= 0` by Mills' ratio `Φ(-x) / φ(x)`: its series near zero, its continued fraction from 2 on.
    fn upper_tail(x: f64) -> f64 {
        if x < 2.0 {
            // Φ(x) - 1/2 = φ(x) Σ x^(2k+1) / (2k+1)!!, all terms positive
            let (mut term, mut sum) = (x, 0.0);
            for k in 1..60 {
                sum += term;
                term *= x * x / f64::from(2 * k + 1);
            }
            return 0.5 - density(x) * sum;
        }
        density(x) / (1..400).rev().fold(x, |rest, k| x + f64::from(k) / rest)
    }

    fn exact(function: Function, x: f64) -> f64 {
        match function {
            Exp | ExpModerate => x.exp(),
            Exp2 => x.exp2(),
            Exp2Moderate => x.exp2(),
            Sigmoid => 1.0 / (1.0 + (-x).exp()),
            OneMinusSigmoid => 1.0 / (1.0 + x.exp()),
            Cdf if x < 0.0 => upper_tail(-x),
            Cdf => 1.0 - upper_tail(x),
            Density => density(x),
        }
    }

    #[test]
    fn the_exact_tail_has_the_values_of_the_tables() {
        let tables = [
            (0.0, 0.5),
            (1.0, 0.158_655_253_931_457_05),
            (1.999_999_999, 0.022_750_131_948_179_2),
            (2.0, 0.022_750_131_948_179_2),
            (5.0, 2.866_515_718_791_933e-7),
        ];
        for (x, expected) in tables {
            let error: f64 = upper_tail(x) / expected - 1.0;
            assert!(error.abs() < 4e-9, "{x}: {error:e}");
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

    /// Every number of the sweep within `bound(x)` units, on every instruction set.
    fn assert_within(function: Function, x: &[f32], bound: impl Fn(f64) -> f64) {
        let expected: Vec<f64> = x.iter().map(|&x| exact(function, f64::from(x))).collect();
        for isa in Isa::available() {
            let y = map(isa, function, x);
            // how much of what is allowed
            let share = |i: &usize| ulps(y[*i], expected[*i]) / bound(f64::from(x[*i]));
            let worst = (0..x.len()).max_by(|i, j| share(i).total_cmp(&share(j))).unwrap();
            let (at, ulps, share) = (x[worst], ulps(y[worst], expected[worst]), share(&worst));
            println!("{function:?} {}: {ulps:.2} ulp at {at:e}", isa.name());
            assert!(share <= 1.0, "{function:?} {}: {ulps} ulp at {at:e}: {:e}", isa.name(), y[worst]);
        }
    }

    #[test]
    fn exp_is_within_2_ulp() {
        assert_within(Exp, &sweep(super::EXP_LOW, 88.722), |_| 2.0);
        assert_within(Exp, &sweep(-1.0, 1.0), |_| 2.0);
    }

    #[test]
    fn exp_moderate_is_within_2_ulp() {
        assert_within(ExpModerate, &sweep(-super::MODERATE, super::MODERATE), |_| 2.0);
        assert_within(ExpModerate, &sweep(-1.0, 1.0), |_| 2.0);
    }

    #[test]
    fn exp2_is_within_2_ulp() {
        assert_within(Exp2, &sweep(-126.0, 127.49), |_| 2.0);
        assert_within(Exp2, &sweep(-1.0, 1.0), |_| 2.0);
        let inf = f32::INFINITY;
        let x = [f32::NAN, -inf, -1e30, -126.1, -0.0, 0.0].repeat(8);
        for isa in Isa::available() {
            let y = map(isa, Exp2, &x);
            assert!(y.iter().step_by(6).all(|y| y.is_nan()), "{}", isa.name());
            assert_eq!(y[1..6], [0.0, 0.0, 0.0, 1.0, 1.0], "{}", isa.name());
        }
    }

    #[test]
    fn exp2_moderate_is_within_2_ulp() {
        assert_within(Exp2Moderate, &sweep(-126.0, 126.0), |_| 2.0);
        assert_within(Exp2Moderate, &sweep(-1.0, 1.0), |_| 2.0);
    }

    #[test]
    fn logistic_is_within_4_ulp() {
        for function in [Sigmoid, OneMinusSigmoid] {
            assert_within(function, &sweep(-super::MODERATE, super::MODERATE), |_| 4.0);
            assert_within(function, &sweep(-2.0, 2.0), |_| 4.0);
        }
    }

    #[test]
    fn normal_is_within_5_ulp_and_the_square() {
        for function in [Cdf, Density] {
            assert_within(function, &sweep(-super::NORMAL_LIMIT, super::NORMAL_LIMIT), |x| 5.0 + x * x);
            assert_within(function, &sweep(-2.0, 2.0), |x| 5.0 + x * x);
        }
    }

    #[test]
    fn nan_and_infinity() {
        let inf = f32::INFINITY;
        let mut x = [f32::NAN; 16];
        x[..4].copy_from_slice(&[inf, -inf, 1e30, -1e30]);
        for isa in Isa::available() {
            let y = map(isa, Exp, &x);
            assert_eq!(y[..4], [inf, 0.0, inf, 0.0], "{}", isa.name());
            for function in [Exp, ExpModerate, Exp2Moderate, Sigmoid, OneMinusSigmoid, Cdf, Density] {
                let y = map(isa, function, &x);
                assert!(y[4..].iter().all(|y| y.is_nan()), "{function:?} {}: {y:?}", isa.name());
            }
        }
    }

    #[test]
    fn exp_overflows_and_underflows() {
        let mut x = [0.0; 16];
        let below = f32::from_bits(super::EXP_LOW.to_bits() + 1);
        x[..6].copy_from_slice(&[88.722_83, 88.722_84, super::EXP_LOW, below, -200.0, 91.0]);
        for isa in Isa::available() {
            let y = map(isa, Exp, &x);
            assert!(y[0].is_finite() && y[1] == f32::INFINITY, "{} {y:?}", isa.name());
            assert!(y[2] > f32::MIN_POSITIVE, "{} {y:?}", isa.name());
            assert_eq!(y[3..7], [0.0, 0.0, f32::INFINITY, 1.0], "{}", isa.name());
        }
    }
}
