//! Activations of the MLP, plain and gated.
//!
//! ```text
//! GeluTanh  a(x) = x/2 (1 + t),  t = tanh u,  u = √(2/π) (x + 0.044715 x³)
//!           a'(x) = (1 + t)/2 + x/2 (1 - t²) √(2/π) (1 + 3·0.044715 x²)        since tanh' = 1 - tanh²
//!           computed with (1 + t)/2 = σ(2u) and (1 - t²)/4 = σ(2u) (1 - σ(2u)), where nothing cancels
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

use crate::{
    Isa,
    simd::{Simd, SimdOp, math},
    slices::{TASK, load, run_all, store},
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

/// `y = act(x)`
///
/// Panics when the lengths differ.
pub fn forward(isa: Isa, act: Activation, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "x and y");
    let tasks = x.chunks(TASK).zip(y.chunks_mut(TASK));
    run_all(isa, tasks.map(|(x, y)| Forward { act, x, y }));
}

/// `d_x = d_y * act'(x)`
///
/// Panics when the lengths differ.
pub fn backward(isa: Isa, act: Activation, x: &[f32], d_y: &[f32], d_x: &mut [f32]) {
    assert_eq!((d_y.len(), d_x.len()), (x.len(), x.len()), "d_y and d_x");
    let tasks = x.chunks(TASK).zip(d_y.chunks(TASK)).zip(d_x.chunks_mut(TASK));
    run_all(isa, tasks.map(|((x, d_y), d_x)| Backward { act, x, d_y, d_x }));
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

impl<'a> Gated<'a> {
    fn chunks(self) -> impl Iterator<Item = Gated<'a>> {
        assert_eq!(self.gate.len(), self.up.len(), "gate and up");
        let pairs = self.gate.chunks(TASK).zip(self.up.chunks(TASK));
        pairs.map(move |(gate, up)| Gated { act: self.act, gate, up })
    }
}

/// `y = act(gate) * up`
///
/// Panics when the lengths differ.
pub fn gated_forward(isa: Isa, inputs: Gated, y: &mut [f32]) {
    assert_eq!(inputs.gate.len(), y.len(), "gate and y");
    run_all(isa, inputs.chunks().zip(y.chunks_mut(TASK)).map(|(inputs, y)| GatedForward { inputs, y }));
}

/// `d_gate = d_y * up * act'(gate)`, `d_up = d_y * act(gate)`
///
/// Panics when the lengths differ.
pub fn gated_backward(isa: Isa, inputs: Gated, d_y: &[f32], d_gate: &mut [f32], d_up: &mut [f32]) {
    let n = inputs.gate.len();
    assert_eq!((d_y.len(), d_gate.len(), d_up.len()), (n, n, n), "d_y, d_gate and d_up");
    let grads = d_gate.chunks_mut(TASK).zip(d_up.chunks_mut(TASK));
    let tasks = inputs.chunks().zip(d_y.chunks(TASK)).zip(grads);
    run_all(isa, tasks.map(|((inputs, d_y), (d_gate, d_up))| GatedBackward { inputs, d_y, d_gate, d_up }));
}

/// A function and its derivative at a vector. One type each, so that the choice is made outside of the loops.
trait Function: Copy {
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

/// `√(2/π)`
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
/// The cubic coefficient of the tanh formula.
const CUBIC: f32 = 0.044715;
/// `1/√(2π)`
const INV_SQRT_2PI: f32 = 0.398_942_3;

impl Function for GeluTanh {
    #[inline(always)]
    fn at<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
        const TWICE: f32 = 2.0 * SQRT_2_OVER_PI;
        let (one, square) = (s.splat(1.0), s.mul(x, x));
        let twice_inner = s.mul(s.mul(s.splat(TWICE), x), s.mul_add(s.splat(CUBIC), square, one));
        let d_twice_inner = s.mul(s.splat(TWICE), s.mul_add(s.splat(3.0 * CUBIC), square, one));
        let (cdf, d_cdf) = logistic(s, twice_inner);
        (s.mul(x, cdf), s.mul_add(s.mul(x, d_cdf), d_twice_inner, cdf))
    }
}

impl Function for GeluErf {
    #[inline(always)]
    fn at<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
        let half = s.splat(0.5);
        let erf = math::erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
        let cdf = s.mul_add(half, erf, half);
        let density = math::exp(s, s.mul(s.splat(-0.5), s.mul(x, x)));
        let d_cdf = s.mul(s.splat(INV_SQRT_2PI), density);
        (s.mul(x, cdf), s.mul_add(x, d_cdf, cdf))
    }
}

impl Function for Silu {
    #[inline(always)]
    fn at<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
        let (sigmoid, d_sigmoid) = logistic(s, x);
        (s.mul(x, sigmoid), s.mul_add(x, d_sigmoid, sigmoid))
    }
}

/// `σ(x)` and `σ'(x) = σ(x) (1 - σ(x))`, both with full relative precision in both tails.
///
/// With `e = e^-|x|` the larger of `σ` and `1 - σ` is `1/(1 + e)`, the smaller `e/(1 + e)`.
#[inline(always)]
fn logistic<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let (zero, one) = (s.splat(0.0), s.splat(1.0));
    let e = math::exp(s, s.sub(zero, s.abs(x)));
    let larger = s.div(one, s.add(one, e));
    let smaller = s.mul(e, larger);
    (s.select_lt(x, zero, smaller, larger), s.mul(smaller, larger))
}

impl Function for Relu {
    #[inline(always)]
    fn at<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
        let zero = s.splat(0.0);
        // a NaN is not less than zero: it stays
        (s.select_lt(x, zero, zero, x), s.select_lt(zero, x, s.splat(1.0), zero))
    }
}

/// Calls `$loops(s, $op, F)` with the type of the activation.
macro_rules! dispatch {
    ($act:expr, $loops:ident($s:expr, $op:expr)) => {
        match $act {
            Activation::GeluTanh => $loops($s, $op, GeluTanh),
            Activation::GeluErf => $loops($s, $op, GeluErf),
            Activation::Silu => $loops($s, $op, Silu),
            Activation::Relu => $loops($s, $op, Relu),
        }
    };
}

/// An op whose loop is `$loops`.
macro_rules! simd_op {
    ($op:ident, $act:ident $(. $field:ident)?, $loops:ident) => {
        impl SimdOp for $op<'_> {
            type Output = ();
            #[inline(always)]
            fn eval<S: Simd>(self, s: S) {
                dispatch!(self.$act $(. $field)?, $loops(s, self))
            }
        }
    };
}

struct Forward<'a> {
    act: Activation,
    x: &'a [f32],
    y: &'a mut [f32],
}
simd_op!(Forward, act, forward_loop);

#[inline(always)]
fn forward_loop<S: Simd, F: Function>(s: S, op: Forward, _: F) {
    for i in (0..op.x.len()).step_by(S::LANES) {
        let (a, _) = F::at(s, load(s, op.x, i));
        store(s, a, op.y, i);
    }
}

struct Backward<'a> {
    act: Activation,
    x: &'a [f32],
    d_y: &'a [f32],
    d_x: &'a mut [f32],
}
simd_op!(Backward, act, backward_loop);

#[inline(always)]
fn backward_loop<S: Simd, F: Function>(s: S, op: Backward, _: F) {
    for i in (0..op.x.len()).step_by(S::LANES) {
        let (_, slope) = F::at(s, load(s, op.x, i));
        store(s, s.mul(load(s, op.d_y, i), slope), op.d_x, i);
    }
}

struct GatedForward<'a> {
    inputs: Gated<'a>,
    y: &'a mut [f32],
}
simd_op!(GatedForward, inputs.act, gated_forward_loop);

#[inline(always)]
fn gated_forward_loop<S: Simd, F: Function>(s: S, op: GatedForward, _: F) {
    let Gated { gate, up, .. } = op.inputs;
    for i in (0..gate.len()).step_by(S::LANES) {
        let (a, _) = F::at(s, load(s, gate, i));
        store(s, s.mul(a, load(s, up, i)), op.y, i);
    }
}

struct GatedBackward<'a> {
    inputs: Gated<'a>,
    d_y: &'a [f32],
    d_gate: &'a mut [f32],
    d_up: &'a mut [f32],
}
simd_op!(GatedBackward, inputs.act, gated_backward_loop);

#[inline(always)]
fn gated_backward_loop<S: Simd, F: Function>(s: S, op: GatedBackward, _: F) {
    let Gated { gate, up, .. } = op.inputs;
    for i in (0..gate.len()).step_by(S::LANES) {
        let (a, slope) = F::at(s, load(s, gate, i));
        let d_y = load(s, op.d_y, i);
        store(s, s.mul(s.mul(d_y, load(s, up, i)), slope), op.d_gate, i);
        store(s, s.mul(d_y, a), op.d_up, i);
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
