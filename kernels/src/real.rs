//! The number type of the reference loops: `f32`, or `f64` for finite differences.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// What a reference kernel needs of a number.
pub trait Real:
    Copy
    + PartialOrd
    + std::fmt::Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// The nearest number to `x`.
    fn from_f64(x: f64) -> Self;
    /// The same number as f64.
    fn to_f64(self) -> f64;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Exponential.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// The error function `2/√π ∫₀ˣ e^(-t²) dt`, within a few units of the last place.
    fn erf(self) -> Self;
    /// Cosine.
    fn cos(self) -> Self;
    /// Sine.
    fn sin(self) -> Self;
}

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            fn ln(self) -> Self {
                <$t>::ln(self)
            }
            fn tanh(self) -> Self {
                <$t>::tanh(self)
            }
            fn erf(self) -> Self {
                erf(self.to_f64()) as $t
            }
            fn cos(self) -> Self {
                <$t>::cos(self)
            }
            fn sin(self) -> Self {
                <$t>::sin(self)
            }
        }
    };
}
real!(f32);
real!(f64);

/// `erf` in f64, which the standard library lacks.
///
/// The series `2/√π e^(-x²) Σ_k 2^k x^(2k+1) / (2k+1)!!` has only terms of one sign, so nothing cancels.
fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x.abs() > 6.0 {
        return x.signum(); // 1 - erf(6) is 2e-17, less than half a unit
    }
    let (mut term, mut sum, mut k) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * k + 1.0);
        sum += term;
        k += 1.0;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::Real;
    use crate::testing::{Tolerance, close};

    #[test]
    fn erf_has_the_values_of_the_tables() {
        let x = [-0.5f64, 0.1, 0.5, 1.0, 2.0, 3.5, 7.0];
        let expected = [
            -0.520_499_877_813_046_5,
            0.112_462_916_018_284_9,
            0.520_499_877_813_046_5,
            0.842_700_792_949_714_9,
            0.995_322_265_018_952_7,
            0.999_999_256_901_627_7,
            1.0,
        ];
        close(&x.map(Real::erf), &expected, Tolerance::both(1e-15)).unwrap();
        assert_eq!(Real::erf(0.0f64), 0.0);
        assert!(Real::erf(f64::NAN).is_nan());
    }
}
