//! What a packed number is, and what one step of the microkernel does with two of them.
//!
//! A panel is made of *words* of 32 bits. With f32 arithmetic a word is one number. With bf16 dot products it is two
//! neighbours in `k`, and one instruction multiplies both: twice the work for the same registers, loads and loops.

use super::Precision;
use crate::simd::Simd;

/// A way to multiply.
pub(super) trait Arithmetic: Send + Sync + 'static {
    /// How many numbers of `k` a word holds.
    const DEPTH: usize;
    /// Words of the next [`Arithmetic::DEPTH`] rows of `k`; the second row is ignored where one is enough.
    fn word<S: Simd>(s: S, first: S::V, second: S::V) -> S::V;
    /// `sum + a · b` lane by lane, for words.
    fn step<S: Simd>(s: S, a: S::V, b: S::V, sum: S::V) -> S::V;
}

/// A piece of work that can be compiled for any way to multiply.
pub(super) trait ArithmeticOp {
    /// What the work returns.
    type Output;
    /// Does the work. Implementations are `#[inline(always)]`.
    fn eval<S: Simd, A: Arithmetic>(self, s: S) -> Self::Output;
}

impl Precision {
    /// Does the work in the way that the instruction set has for this precision.
    #[inline(always)]
    pub(super) fn run<S: Simd, O: ArithmeticOp>(self, s: S, work: O) -> O::Output {
        match self {
            Precision::F32 => work.eval::<S, Exact>(s),
            Precision::Bf16 if S::DOT_BF16 => work.eval::<S, Pairs>(s),
            Precision::Bf16 => work.eval::<S, Rounded>(s),
        }
    }
}

/// f32 as it is.
pub(super) struct Exact;

impl Arithmetic for Exact {
    const DEPTH: usize = 1;
    #[inline(always)]
    fn word<S: Simd>(_: S, first: S::V, _: S::V) -> S::V {
        first
    }
    #[inline(always)]
    fn step<S: Simd>(s: S, a: S::V, b: S::V, sum: S::V) -> S::V {
        s.mul_add(a, b, sum)
    }
}

/// Rounded to bf16, multiplied as f32: what a CPU without bf16 dot products can do.
pub(super) struct Rounded;

impl Arithmetic for Rounded {
    const DEPTH: usize = 1;
    #[inline(always)]
    fn word<S: Simd>(s: S, first: S::V, _: S::V) -> S::V {
        s.round_bf16(first)
    }
    #[inline(always)]
    fn step<S: Simd>(s: S, a: S::V, b: S::V, sum: S::V) -> S::V {
        s.mul_add(a, b, sum)
    }
}

/// Pairs of bf16.
pub(super) struct Pairs;

impl Arithmetic for Pairs {
    const DEPTH: usize = 2;
    #[inline(always)]
    fn word<S: Simd>(s: S, first: S::V, second: S::V) -> S::V {
        s.pair_bf16(s.round_bf16(first), s.round_bf16(second))
    }
    #[inline(always)]
    fn step<S: Simd>(s: S, a: S::V, b: S::V, sum: S::V) -> S::V {
        s.dot_bf16(a, b, sum)
    }
}
