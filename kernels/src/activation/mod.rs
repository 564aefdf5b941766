//! Activations of the MLP, plain and gated.
//!
//! ```text
//! GeluTanh  a(x) = x/2 (1 + t),  t = tanh u,  u = √(2/π) (x + 0.044715 x³)
//!           a'(x) = (1 + t)/2 + x/2 (1 - t²) √(2/π) (1 + 3·0.044715 x²)        since tanh' = 1 - tanh²
//!           computed with (1 + t)/2 = σ and (1 - t²)/4 = σ (1 - σ) at 2u, where nothing cancels
//! GeluErf   a(x) = x Φ(x),  Φ(x) = (1 + erf(x/√2))/2
//!           a'(x) = Φ(x) + x φ(x),  φ(x) = e^(-x²/2) / √(2π)                   since Φ' = φ
//! Silu      a(x) = x σ(x),  σ(x) = 1/(1 + e^-x)
//!           a'(x) = σ + x σ (1 - σ)                                              since σ' = σ (1 - σ)
//! Relu      a(x) = max(x, 0),  a'(x) = 1 where x > 0, else 0
//! gated     y = a(gate) up:  d_gate = d_y up a'(gate),  d_up = d_y a(gate)
//! ```
//!
//! Sources: Hendrycks & Gimpel 2016, "Gaussian Error Linear Units" (arXiv 1606.08415); Shazeer 2020, "GLU Variants
//! Improve Transformer" (arXiv 2002.05202).

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::{
    Isa,
    simd::{Simd, math},
    slices::{Step, run_map},
};

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GELU by the tanh formula (`gelu_new`, `gelu_pytorch_tanh`): GPT-2.
    GeluTanh,
    /// GELU by the error function (`gelu`): BERT.
    GeluErf,
    /// `x * sigmoid(x)`: Llama.
    Silu,
    /// `max(x, 0)`
    Relu,
}

/// Calls `$run` with the function of `$act` as `$f`. One type each, so that the choice is made outside of the loops.
macro_rules! dispatch {
    ($act:expr, |$f:ident| $run:expr) => {
        match $act {
            Activation::GeluTanh => {
                let $f = GeluTanh;
                $run
            }
            Activation::GeluErf => {
                let $f = GeluErf;
                $run
            }
            Activation::Silu => {
                let $f = Silu;
                $run
            }
            Activation::Relu => {
                let $f = Relu;
                $run
            }
        }
    };
}

/// `y = act(x)`
///
/// Panics when the lengths differ.
pub fn forward(isa: Isa, act: Activation, x: &[f32], y: &mut [f32]) {
    dispatch!(act, |f| run_map(isa, Plain(f), [x], [y]));
}

/// `d_x = d_y * act'(x)`
///
/// Panics when the lengths differ.
pub fn backward(isa: Isa, act: Activation, x: &[f32], d_y: &[f32], d_x: &mut [f32]) {
    dispatch!(act, |f| run_map(isa, PlainBackward(f), [x, d_y], [d_x]));
}

/// The inputs of a gated activation; `gate` and `up` have one length.
#[derive(Clone, Copy, Debug)]
pub struct Gated<'a> {
    /// The function.
    pub act: Activation,
    /// What goes through the function.
    pub gate: &'a [f32],
    /// What it is multiplied with.
    pub up: &'a [f32],
}

/// `y = act(gate) * up`
///
/// Panics when the lengths differ.
pub fn gated_forward(isa: Isa, inputs: Gated, y: &mut [f32]) {
    let Gated { act, gate, up } = inputs;
    dispatch!(act, |f| run_map(isa, GatedForward(f), [gate, up], [y]));
}

/// `d_gate = d_y * up * act'(gate)`, `d_up = d_y * act(gate)`
///
/// Panics when the lengths differ.
pub fn gated_backward(isa: Isa, inputs: Gated, d_y: &[f32], d_gate: &mut [f32], d_up: &mut [f32]) {
    let Gated { act, gate, up } = inputs;
    dispatch!(act, |f| run_map(isa, GatedBackward(f), [gate, up, d_y], [d_gate, d_up]));
}

/// `x` to `act(x)`
#[derive(Clone, Copy)]
struct Plain<F>(F);

impl<F: Function> Step<1, 1> for Plain<F> {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x]: [S::V; 1], _: [S::V; 1]) -> [S::V; 1] {
        let (a, _) = F::at(s, x);
        [a]
    }
}

/// `x`, `d_y` to `d_x`
#[derive(Clone, Copy)]
struct PlainBackward<F>(F);

impl<F: Function> Step<2, 1> for PlainBackward<F> {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x, d_y]: [S::V; 2], _: [S::V; 1]) -> [S::V; 1] {
        let (_, slope) = F::at(s, x);
        [s.mul(d_y, slope)]
    }
}

/// `gate`, `up` to `act(gate) * up`
#[derive(Clone, Copy)]
struct GatedForward<F>(F);

impl<F: Function> Step<2, 1> for GatedForward<F> {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [gate, up]: [S::V; 2], _: [S::V; 1]) -> [S::V; 1] {
        let (a, _) = F::at(s, gate);
        [s.mul(a, up)]
    }
}

/// `gate`, `up`, `d_y` to `d_gate`, `d_up`
#[derive(Clone, Copy)]
struct GatedBackward<F>(F);

impl<F: Function> Step<3, 2> for GatedBackward<F> {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [gate, up, d_y]: [S::V; 3], _: [S::V; 2]) -> [S::V; 2] {
        let (a, slope) = F::at(s, gate);
        [s.mul(s.mul(d_y, up), slope), s.mul(d_y, a)]
    }
}

/// A function and its derivative at a vector.
///
/// Far out the smooth ones are `x` or 0 in f32, so their arguments are cut to where the exponentials are moderate:
/// below the limit `x` itself is replaced, above it only what enters the exponential.
trait Function: Copy + Send + Sync {
    /// `(a(x), a'(x))`; what the caller drops is not computed.
    fn at<S: Simd>(s: S, x: S::V) -> (S::V, S::V);
}

#[derive(Clone, Copy)]
struct GeluTanh;
#[derive(Clone, Copy)]
struct GeluErf;
#[derive(Clone, Copy)]
struct Silu;
#[derive(Clone, Copy)]
struct Relu;

/// `2 √(2/π)`: the linear coefficient of `2u` in the tanh formula.
const LINEAR: f32 = 1.595_769_2;
/// Its cubic coefficient.
const CUBED: f32 = 0.044715 * LINEAR;

impl Function for GeluTanh {
    #[inline(always)]
    fn at<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
        // 2u(9.9) = 85
        let x = math::at_least(s, x, -9.9);
        let cut = math::at_most(s, x, 9.9);
        let square = s.mul(cut, cut);
        // 2u = x (LINEAR + CUBED x²), and its derivative is LINEAR + 3 CUBED x²
        let minus_twice_inner = s.mul(cut, s.mul_add(s.splat(-CUBED), square, s.splat(-LINEAR)));
        let (cdf, rest) = math::logistic(s, math::exp_moderate(s, minus_twice_inner));
        let d_twice_inner = s.mul_add(s.splat(3.0 * CUBED), square, s.splat(LINEAR));
        (s.mul(x, cdf), slope(s, cut, cdf, s.mul(rest, d_twice_inner)))
    }
}

impl Function for GeluErf {
    #[inline(always)]
    fn at<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
        let x = math::at_least(s, x, -math::NORMAL_LIMIT);
        let cut = math::at_most(s, x, math::NORMAL_LIMIT);
        let (cdf, density) = math::normal(s, cut);
        (s.mul(x, cdf), s.mul_add(cut, density, cdf))
    }
}

impl Function for Silu {
    #[inline(always)]
    fn at<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
        let x = math::at_least(s, x, -math::MODERATE);
        let cut = math::at_most(s, x, math::MODERATE);
        let (sigmoid, rest) = math::logistic(s, math::exp_moderate(s, s.sub(s.splat(0.0), cut)));
        (s.mul(x, sigmoid), slope(s, cut, sigmoid, rest))
    }
}

/// `σ + x σ d`, the derivative of `x σ` where `σ' = σ d`.
#[inline(always)]
fn slope<S: Simd>(s: S, x: S::V, sigmoid: S::V, d: S::V) -> S::V {
    s.mul_add(s.mul(x, sigmoid), d, sigmoid)
}

impl Function for Relu {
    #[inline(always)]
    fn at<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
        let zero = s.splat(0.0);
        (math::at_least(s, x, 0.0), s.select_lt(zero, x, s.splat(1.0), zero))
    }
}

/// The specification, for one number.
pub mod reference {
    use super::Activation;
    use crate::real::Real;

    /// `act(x)`
    pub fn forward<R: Real>(act: Activation, x: R) -> R {
        let (half, one) = (R::from_f64(0.5), R::from_f64(1.0));
        match act {
            Activation::GeluTanh => half * x * (one + inner(x).tanh()),
            Activation::GeluErf => half * x * (one + (x * R::from_f64(0.5f64.sqrt())).erf()),
            Activation::Silu => x * sigmoid(x),
            Activation::Relu if x < R::from_f64(0.0) => R::from_f64(0.0),
            Activation::Relu => x,
        }
    }

    /// `d_y * act'(x)`
    pub fn backward<R: Real>(act: Activation, x: R, d_y: R) -> R {
        let (half, one) = (R::from_f64(0.5), R::from_f64(1.0));
        match act {
            Activation::GeluTanh => {
                // in the forward pass this was half * x * (one + tanh(inner(x)))
                let t = inner(x).tanh();
                let d_inner = root_2_over_pi::<R>() * (one + R::from_f64(3.0 * 0.044715) * x * x);
                d_y * (half * (one + t) + half * x * (one - t * t) * d_inner)
            }
            Activation::GeluErf => {
                // in the forward pass this was half * x * (one + erf(x / sqrt 2)); erf'(z) = 2 / sqrt(pi) e^(-z²)
                let cdf = half * (one + (x * R::from_f64(0.5f64.sqrt())).erf());
                let density = R::from_f64((0.5 * std::f64::consts::FRAC_1_PI).sqrt()) * (-half * x * x).exp();
                d_y * (cdf + x * density)
            }
            Activation::Silu => {
                // in the forward pass this was x * sigmoid(x)
                let sigmoid = sigmoid(x);
                d_y * sigmoid * (one + x * (one - sigmoid))
            }
            // in the forward pass this was x where x > 0, else 0
            Activation::Relu if x > R::from_f64(0.0) => d_y,
            Activation::Relu => R::from_f64(0.0),
        }
    }

    /// `(d_gate, d_up)` of `act(gate) * up`
    pub fn gated_backward<R: Real>(act: Activation, gate: R, up: R, d_y: R) -> (R, R) {
        // in the forward pass this was y = forward(act, gate) * up
        (backward(act, gate, d_y * up), d_y * forward(act, gate))
    }

    fn root_2_over_pi<R: Real>() -> R {
        R::from_f64((2.0 * std::f64::consts::FRAC_1_PI).sqrt())
    }

    fn inner<R: Real>(x: R) -> R {
        root_2_over_pi::<R>() * (x + R::from_f64(0.044715) * x * x * x)
    }

    fn sigmoid<R: Real>(x: R) -> R {
        let one = R::from_f64(1.0);
        one / (one + (-x).exp())
    }
}
