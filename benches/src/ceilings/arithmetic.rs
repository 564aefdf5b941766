//! Operations per second, in loops that never leave the registers.

// Loops that run up to a constant are unrolled, and what they index stays in registers.
#![allow(clippy::needless_range_loop)]

use std::hint::black_box;

use kernels::Isa;
use kernels::simd::{Simd, SimdOp};

use super::Threads;
use crate::clock::seconds;

/// The instruction that limits a kernel.
///
/// Another one (a dot product of bf16 pairs) is a variant here, a loop like `MultiplyAdds` below, and `None` on the
/// tiers that lack it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// `a * b + c` in f32: two operations per lane.
    F32,
}

impl Arithmetic {
    /// As tables write it.
    pub fn name(self) -> &'static str {
        match self {
            Arithmetic::F32 => "f32",
        }
    }
}

/// Operations per second of `arithmetic` with the instructions of `isa`; `None` where it has no such instruction.
/// Takes about 5 ms.
pub fn operations_per_second(isa: Isa, arithmetic: Arithmetic, threads: Threads) -> Option<f64> {
    let run = || match arithmetic {
        Arithmetic::F32 => isa.run(MultiplyAdds),
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

/// Returns the number of operations done.
struct MultiplyAdds;

impl SimdOp for MultiplyAdds {
    type Output = usize;

    /// Independent chains hide the latency of a multiply-add: cores need 8 to 16 of them. Three quarters of the
    /// registers are enough on each, and leave room for the factor and the summand. Every chain starts at a number of
    /// its own that the compiler cannot know: equal chains would be computed once.
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> usize {
        let chains = S::REGISTERS * 3 / 4;
        let (factor, summand) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
        let mut sums = [factor; MAX_CHAINS];
        for i in 0..chains {
            sums[i] = s.splat(black_box(i as f32 / 7.0));
        }
        for _ in 0..STEPS {
            for i in 0..chains {
                sums[i] = s.mul_add(sums[i], factor, summand);
            }
        }
        for i in 0..chains {
            black_box(s.sum(sums[i]));
        }
        2 * chains * STEPS * S::LANES
    }
}
