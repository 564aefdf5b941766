//! Operations per second, in loops that never leave the registers.

// Loops that run up to a constant are unrolled, and what they index stays in registers.
#![allow(clippy::needless_range_loop)]

use std::hint::black_box;

use kernels::Isa;
use kernels::simd::{Simd, SimdOp};

use super::Threads;
use crate::clock::seconds;

/// The instruction that limits a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// `a * b + c` in f32: two operations per lane.
    F32,
    /// `a.even * b.even + a.odd * b.odd + c` for pairs of bf16: four operations per lane.
    Bf16,
}

impl Arithmetic {
    /// As tables write it.
    pub fn name(self) -> &'static str {
        match self {
            Arithmetic::F32 => "f32",
            Arithmetic::Bf16 => "bf16",
        }
    }
}

/// Operations per second of `arithmetic` with the instructions of `isa`; `None` where it has no such instruction.
/// Takes about 5 ms.
pub fn operations_per_second(isa: Isa, arithmetic: Arithmetic, threads: Threads) -> Option<f64> {
    if arithmetic == Arithmetic::Bf16 && !isa.run(HasDotBf16) {
        return None;
    }
    let run = || match arithmetic {
        Arithmetic::F32 => isa.run(Chains(MultiplyAdd)),
        Arithmetic::Bf16 => isa.run(Chains(DotBf16)),
    };
    let operations = std::sync::atomic::AtomicUsize::new(0);
    let seconds = seconds(|| {
        threads.run(|_| {
            operations.fetch_add(run(), std::sync::atomic::Ordering::Relaxed);
        });
    });
    Some(operations.into_inner() as f64 / seconds)
}

const STEPS: usize = 1_000_000;
/// Chains of the instruction set with the most registers.
const MAX_CHAINS: usize = 24;

/// Whether the instruction set has dot products of bf16.
struct HasDotBf16;

impl SimdOp for HasDotBf16 {
    type Output = bool;
    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> bool {
        S::DOT_BF16
    }
}

/// An instruction whose throughput is measured.
trait Instruction {
    /// Operations for each lane.
    const OPERATIONS: usize;
    fn next<S: Simd>(s: S, factor: S::V, other: S::V, sum: S::V) -> S::V;
}

struct MultiplyAdd;

impl Instruction for MultiplyAdd {
    const OPERATIONS: usize = 2;
    #[inline(always)]
    fn next<S: Simd>(s: S, factor: S::V, summand: S::V, sum: S::V) -> S::V {
        s.mul_add(sum, factor, summand)
    }
}

struct DotBf16;

impl Instruction for DotBf16 {
    const OPERATIONS: usize = 4;
    #[inline(always)]
    fn next<S: Simd>(s: S, factor: S::V, other: S::V, sum: S::V) -> S::V {
        s.dot_bf16(factor, other, sum)
    }
}

/// Returns the number of operations done.
struct Chains<I>(I);

impl<I: Instruction> SimdOp for Chains<I> {
    type Output = usize;

    /// Independent chains hide the latency of an instruction: cores need 8 to 16 of them. Three quarters of the
    /// registers are enough on each, and leave room for the factor and the summand. Every chain starts at a number of
    /// its own that the compiler cannot know: equal chains would be computed once.
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> usize {
        let chains = S::REGISTERS * 3 / 4;
        let (factor, other) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
        let mut sums = [factor; MAX_CHAINS];
        for i in 0..chains {
            sums[i] = s.splat(black_box(i as f32 / 7.0));
        }
        for _ in 0..STEPS {
            for i in 0..chains {
                sums[i] = I::next(s, factor, other, sums[i]);
            }
        }
        for i in 0..chains {
            black_box(s.sum(sums[i]));
        }
        I::OPERATIONS * chains * STEPS * S::LANES
    }
}
