//! The vocabulary of vector operations: the *only* ones the kernels need.
//!
//! A kernel is a struct holding its arguments whose [`SimdOp::eval`] is written once, generic over [`Simd`].
//! [`crate::Isa::run`] instantiates it inside a function compiled for the instruction set. Everything between that
//! function and the intrinsics must be `#[inline(always)]`: a call that is not inlined is compiled for the baseline
//! CPU and passes its vectors through memory. So split work over threads *outside* `run`, never inside.
//!
//! The `wide` crate chooses its instructions when it is compiled, so it can only be the portable tier.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod math;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod portable;

use half::{bf16, f16};

/// A piece of work that can be compiled for any instruction set.
pub trait SimdOp {
    /// What the work returns.
    type Output;
    /// Does the work. Implementations are `#[inline(always)]`.
    fn eval<S: Simd>(self, s: S) -> Self::Output;
}

/// The largest [`Simd::LANES`] there is: the size of a buffer that any vector fits.
pub const MAX_LANES: usize = 16;

/// One instruction set: a zero-sized token whose existence proves that the CPU has it.
pub trait Simd: Copy + Send + Sync + 'static {
    /// A vector of [`Simd::LANES`] `f32`.
    type V: Copy;
    /// Number of `f32` in a vector.
    const LANES: usize;
    /// How many `V` the registers hold (8, 16 or 32): what a kernel may keep live.
    const REGISTERS: usize;

    /// Runs `op` in a function of its own, compiled for this instruction set: for code that is too large to be copied into
    /// every place that needs it.
    fn call<O: SimdOp>(self, op: O) -> O::Output;

    /// Every lane `x`.
    fn splat(self, x: f32) -> Self::V;
    /// The first `LANES` elements of `x`. Panics when there are fewer.
    fn load(self, x: &[f32]) -> Self::V;
    /// Fewer than `LANES` elements, the other lanes zero.
    fn load_partial(self, x: &[f32]) -> Self::V;
    /// The first `LANES` elements of `x`, widened.
    fn load_f16(self, x: &[f16]) -> Self::V;
    /// The first `LANES` elements of `x`, widened.
    fn load_bf16(self, x: &[bf16]) -> Self::V;
    /// The first `LANES` signed bytes of `bytes` (eight in a word, the lowest first), widened. Panics when there are fewer.
    fn widen_i8(self, bytes: &[u64]) -> Self::V;
    /// Every lane the f16 with these bits, widened.
    #[inline(always)]
    fn splat_f16(self, bits: u16) -> Self::V {
        self.splat(portable::widen_f16(bits))
    }
    /// Writes all lanes to the first `LANES` elements of `out`. Panics when there are fewer.
    fn store(self, v: Self::V, out: &mut [f32]);
    /// Writes the first `out.len()` lanes; `out` has fewer than `LANES` elements.
    fn store_partial(self, v: Self::V, out: &mut [f32]);

    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, fused where the CPU can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger of each pair of lanes. A NaN in either gives an unspecified one of the two.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of each pair of lanes. A NaN in either gives an unspecified one of the two.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The absolute value.
    fn abs(self, a: Self::V) -> Self::V;
    /// The magnitude of `a` with the sign of `sign`.
    fn copysign(self, a: Self::V, sign: Self::V) -> Self::V;
    /// The square root.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// The nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `2^n` for integral `-126 <= n <= 127`.
    fn pow2(self, n: Self::V) -> Self::V;
    /// `a < b ? yes : no` per lane.
    fn select_lt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// The sum of all lanes, in a fixed order.
    fn sum(self, v: Self::V) -> f32;
    /// The largest lane.
    fn max_lane(self, v: Self::V) -> f32;
    /// Each lane rounded to the nearest bf16, ties to even. A NaN stays one.
    fn round_bf16(self, v: Self::V) -> Self::V;
    /// Whether [`Simd::dot_bf16`] is an instruction.
    const DOT_BF16: bool = false;
    /// Two bf16 in the bits of every lane: `even` in the lower half, `odd` in the upper, both already rounded.
    #[inline(always)]
    fn pair_bf16(self, even: Self::V, odd: Self::V) -> Self::V {
        self.by_lane([even, odd, odd], |[even, odd, _]| {
            f32::from_bits(even.to_bits() >> 16 | odd.to_bits() & 0xffff_0000)
        })
    }
    /// `sum + a.even * b.even + a.odd * b.odd` for lanes that [`Simd::pair_bf16`] made.
    #[inline(always)]
    fn dot_bf16(self, a: Self::V, b: Self::V, sum: Self::V) -> Self::V {
        let even = |x: f32| f32::from_bits(x.to_bits() << 16);
        let odd = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
        self.by_lane([a, b, sum], |[a, b, sum]| sum + odd(a) * odd(b) + even(a) * even(b))
    }
    /// `f` lane by lane: slow, for what has no instruction.
    #[inline(always)]
    fn by_lane(self, vectors: [Self::V; 3], f: impl Fn([f32; 3]) -> f32) -> Self::V {
        let lanes = vectors.map(|v| {
            let mut lanes = [0.0; MAX_LANES];
            self.store(v, &mut lanes);
            lanes
        });
        let mut out = [0.0; MAX_LANES];
        for i in 0..Self::LANES {
            out[i] = f([lanes[0][i], lanes[1][i], lanes[2][i]]);
        }
        self.load(&out)
    }
    /// Asks for the cache line of the first element ahead of its use. Only a hint.
    #[inline(always)]
    fn prefetch<T>(self, x: &[T]) {
        let _ = x;
    }
    /// The same, but not into the nearest cache: what is there is needed first.
    #[inline(always)]
    fn prefetch_far<T>(self, x: &[T]) {
        let _ = x;
    }
    /// Transposes the first `LANES` vectors of `rows` as a square matrix. Panics when there are fewer.
    fn transpose(self, rows: &mut [Self::V]);
}

#[cfg(test)]
mod tests;
