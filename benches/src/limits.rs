//! What this machine can do at most: multiply-adds per second, and bytes per second from memory.

use std::hint::black_box;

use kernels::Isa;
use kernels::simd::{Simd, SimdOp};
use rayon::prelude::*;

use crate::best_of;

/// Enough independent chains to hide the latency of a multiply-add (4 cycles, 2 a cycle), few enough for 16 registers.
const CHAINS: usize = 12;
const STEPS: usize = 2_000_000;

struct Fma;

impl SimdOp for Fma {
    type Output = f32;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> f32 {
        let x = s.splat(black_box(0.999));
        let mut sums = [x; CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = s.mul_add(*sum, x, x);
            }
        }
        black_box(sums.into_iter().map(|sum| s.sum(sum)).sum())
    }
}

struct Lanes;

impl SimdOp for Lanes {
    type Output = usize;
    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> usize {
        S::LANES
    }
}

/// GFLOP/s of f32 multiply-adds that never leave the registers, on all threads of the pool.
pub fn fma_peak(isa: Isa) -> f64 {
    let threads = rayon::current_num_threads();
    let seconds = best_of(5, || {
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
            isa.run(Fma);
        });
    });
    (2 * CHAINS * STEPS * isa.run(Lanes) * threads) as f64 / seconds / 1e9
}

/// GB/s of reading memory far larger than the caches, on all threads of the pool.
pub fn read_bandwidth() -> f64 {
    let data = vec![1.0f32; 64 << 20];
    let seconds = best_of(5, || {
        let sum: f32 = data.par_chunks(1 << 20).map(sum_of).sum();
        black_box(sum);
    });
    (data.len() * 4) as f64 / seconds / 1e9
}

fn sum_of(part: &[f32]) -> f32 {
    // several sums, so that the additions do not wait for each other
    let mut sums = [0.0; 64];
    for block in part.as_chunks::<64>().0 {
        sums.iter_mut().zip(block).for_each(|(sum, x)| *sum += x);
    }
    sums.iter().sum()
}
