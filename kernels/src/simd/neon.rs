//! AArch64 with NEON: eight lanes in a pair of registers of four, 16 pairs.
//!
//! A pair, because the CPU has 32 registers and can start several of their instructions in a cycle: tiles of eight
//! lanes give it enough independent work, and load fewer operands for each product than tiles of four.

use std::arch::aarch64::*;
use std::arch::asm;

use half::{bf16, f16};

use super::{Simd, SimdOp};

/// The token of the NEON tier. It can only be had from [`Neon::new`], which asks the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Neon {
    _private: (),
}

const LANES: usize = 8;
/// Lanes of one register: half of a vector.
const HALF: usize = 4;

impl Neon {
    /// The token, if this CPU has every instruction of the tier. So far every AArch64 CPU that runs an operating
    /// system has them.
    pub fn new() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon { _private: () })
    }

    /// Runs `op`, compiled for this instruction set.
    #[inline]
    pub fn run<O: SimdOp>(self, op: O) -> O::Output {
        #[target_feature(enable = "neon")]
        fn inner<O: SimdOp>(s: Neon, op: O) -> O::Output {
            op.eval(s)
        }
        // SAFETY: `self` proves that the CPU has the feature (see `new`).
        unsafe { inner(self, op) }
    }
}

/// Methods that are one intrinsic on each register of the pair.
macro_rules! intrinsics {
    ($(fn $name:ident($($arg:ident),+) = $intrinsic:path;)*) => {$(
        #[inline(always)]
        #[allow(clippy::multiple_unsafe_ops_per_block)] // one obligation for all: the CPU has the tier
        fn $name(self, $($arg: float32x4x2_t),+) -> float32x4x2_t {
            // SAFETY: `self` proves that the CPU has the instruction.
            unsafe { float32x4x2_t($intrinsic($($arg.0),+), $intrinsic($($arg.1),+)) }
        }
    )*};
}

impl Simd for Neon {
    type V = float32x4x2_t;
    const LANES: usize = LANES;
    const REGISTERS: usize = 16;

    #[inline(never)]
    fn call<O: SimdOp>(self, op: O) -> O::Output {
        self.run(op)
    }

    intrinsics! {
        fn add(a, b) = vaddq_f32;
        fn sub(a, b) = vsubq_f32;
        fn mul(a, b) = vmulq_f32;
        fn div(a, b) = vdivq_f32;
        fn max(a, b) = vmaxq_f32;
        fn min(a, b) = vminq_f32;
        fn abs(a) = vabsq_f32;
        fn sqrt(a) = vsqrtq_f32;
        fn round(a) = vrndnq_f32;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4x2_t {
        // SAFETY: `self` proves that the CPU has the instruction.
        let half = unsafe { vdupq_n_f32(x) };
        float32x4x2_t(half, half)
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn load(self, x: &[f32]) -> float32x4x2_t {
        let x: &[f32; LANES] = x.first_chunk().expect("at least LANES elements");
        // SAFETY: `self` proves the instruction; the array is two times HALF readable elements; alignment is not needed.
        unsafe { float32x4x2_t(vld1q_f32(x.as_ptr()), vld1q_f32(x.as_ptr().add(HALF))) }
    }
    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> float32x4x2_t {
        assert!(x.len() < LANES, "a partial vector has fewer than {LANES} elements, got {}", x.len());
        let (low, high) = x.split_at(x.len().min(HALF));
        float32x4x2_t(self.load_up_to_half(low), self.load_up_to_half(high))
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn load_f16(self, x: &[f16]) -> float32x4x2_t {
        let x: &[f16; LANES] = x.first_chunk().expect("at least LANES elements");
        // SAFETY: `self` proves the instructions; the array is 16 readable bytes; alignment is not needed.
        unsafe {
            let halves = vreinterpretq_f16_u16(vld1q_u16(x.as_ptr().cast()));
            float32x4x2_t(vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn load_bf16(self, x: &[bf16]) -> float32x4x2_t {
        let x: &[bf16; LANES] = x.first_chunk().expect("at least LANES elements");
        // SAFETY: `self` proves the instructions; the array is 16 readable bytes; alignment is not needed.
        unsafe {
            let halves = vld1q_u16(x.as_ptr().cast());
            let low = vshlq_n_u32::<16>(vmovl_u16(vget_low_u16(halves)));
            let high = vshlq_n_u32::<16>(vmovl_high_u16(halves));
            float32x4x2_t(vreinterpretq_f32_u32(low), vreinterpretq_f32_u32(high))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn widen_i8(self, bytes: &[u64]) -> float32x4x2_t {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let wide = vmovl_s8(vcreate_s8(bytes[0]));
            let (low, high) = (vmovl_s16(vget_low_s16(wide)), vmovl_high_s16(wide));
            float32x4x2_t(vcvtq_f32_s32(low), vcvtq_f32_s32(high))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn store(self, v: float32x4x2_t, out: &mut [f32]) {
        let out: &mut [f32; LANES] = out.first_chunk_mut().expect("at least LANES elements");
        // SAFETY: `self` proves the instruction; the array is two times HALF writable elements; alignment is not needed.
        unsafe {
            vst1q_f32(out.as_mut_ptr(), v.0);
            vst1q_f32(out.as_mut_ptr().add(HALF), v.1);
        }
    }
    #[inline(always)]
    fn store_partial(self, v: float32x4x2_t, out: &mut [f32]) {
        assert!(out.len() < LANES, "a partial vector has fewer than {LANES} elements, got {}", out.len());
        let (low, high) = out.split_at_mut(out.len().min(HALF));
        self.store_up_to_half(v.0, low);
        self.store_up_to_half(v.1, high);
    }

    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn mul_add(self, a: float32x4x2_t, b: float32x4x2_t, c: float32x4x2_t) -> float32x4x2_t {
        // the intrinsic takes the summand first
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { float32x4x2_t(vfmaq_f32(c.0, a.0, b.0), vfmaq_f32(c.1, a.1, b.1)) }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn copysign(self, a: float32x4x2_t, sign: float32x4x2_t) -> float32x4x2_t {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let sign_bit = vdupq_n_u32(1 << 31);
            float32x4x2_t(vbslq_f32(sign_bit, sign.0, a.0), vbslq_f32(sign_bit, sign.1, a.1))
        }
    }
    #[inline(always)]
    fn pow2(self, n: float32x4x2_t) -> float32x4x2_t {
        float32x4x2_t(self.pow2_half(n.0), self.pow2_half(n.1))
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn select_lt(
        self,
        a: float32x4x2_t,
        b: float32x4x2_t,
        yes: float32x4x2_t,
        no: float32x4x2_t,
    ) -> float32x4x2_t {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let less = (vcltq_f32(a.0, b.0), vcltq_f32(a.1, b.1));
            float32x4x2_t(vbslq_f32(less.0, yes.0, no.0), vbslq_f32(less.1, yes.1, no.1))
        }
    }
    #[inline(always)]
    fn round_bf16(self, v: float32x4x2_t) -> float32x4x2_t {
        float32x4x2_t(self.round_bf16_half(v.0), self.round_bf16_half(v.1))
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn sum(self, v: float32x4x2_t) -> f32 {
        // pair by pair and not `vaddvq_f32`, which leaves the order to the compiler
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let v = vaddq_f32(v.0, v.1);
            vpadds_f32(vadd_f32(vget_low_f32(v), vget_high_f32(v)))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn max_lane(self, v: float32x4x2_t) -> f32 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { vmaxvq_f32(vmaxq_f32(v.0, v.1)) }
    }
    #[inline(always)]
    fn prefetch<T>(self, x: &[T]) {
        // the intrinsic is not stable
        // SAFETY: every AArch64 CPU has the instruction; it changes nothing and never faults, whatever the address.
        unsafe {
            asm!("prfm pldl1keep, [{}]", in(reg) x.as_ptr(), options(readonly, nostack, preserves_flags));
        }
    }
    #[inline(always)]
    fn transpose(self, rows: &mut [float32x4x2_t]) {
        let rows: &mut [float32x4x2_t; LANES] = rows.first_chunk_mut().expect("at least LANES vectors");
        let [a, b, c, d, e, f, g, h] = *rows;
        // each quarter of the square by itself; the upper right and the lower left one change places
        let (upper_left, upper_right) =
            (self.transpose_half([a.0, b.0, c.0, d.0]), self.transpose_half([a.1, b.1, c.1, d.1]));
        let (lower_left, lower_right) =
            (self.transpose_half([e.0, f.0, g.0, h.0]), self.transpose_half([e.1, f.1, g.1, h.1]));
        for i in 0..HALF {
            rows[i] = float32x4x2_t(upper_left[i], lower_left[i]);
            rows[HALF + i] = float32x4x2_t(upper_right[i], lower_right[i]);
        }
    }
}

/// What the operations do to one register of the pair.
impl Neon {
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn round_bf16_half(self, v: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let bits = vreinterpretq_u32_f32(v);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
            // the carry could make an infinity of a NaN: its quiet bit is set instead
            let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
            let chosen = vbslq_u32(vceqq_f32(v, v), rounded, quiet);
            vreinterpretq_f32_u32(vandq_u32(chosen, vdupq_n_u32(0xffff_0000)))
        }
    }

    /// Up to `HALF` elements of `x`, the other lanes zero.
    #[inline(always)]
    fn load_up_to_half(self, x: &[f32]) -> float32x4_t {
        let lanes: [f32; HALF] = std::array::from_fn(|i| x.get(i).copied().unwrap_or(0.0));
        // SAFETY: `self` proves the instruction; the array is HALF readable elements.
        unsafe { vld1q_f32(lanes.as_ptr()) }
    }
    /// Writes the first `out.len()` lanes, at most `HALF`.
    #[inline(always)]
    fn store_up_to_half(self, v: float32x4_t, out: &mut [f32]) {
        let mut lanes = [0.0; HALF];
        // SAFETY: `self` proves the instruction; the array is HALF writable elements.
        unsafe { vst1q_f32(lanes.as_mut_ptr(), v) }
        for (out, lane) in out.iter_mut().zip(lanes) {
            *out = lane;
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn pow2_half(self, n: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let biased = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        }
    }
    /// Transposes a 4 by 4 matrix.
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn transpose_half(self, [a, b, c, d]: [float32x4_t; HALF]) -> [float32x4_t; HALF] {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let ab_even = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
            let ab_odd = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
            let cd_even = vreinterpretq_f64_f32(vtrn1q_f32(c, d));
            let cd_odd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
            [
                vreinterpretq_f32_f64(vtrn1q_f64(ab_even, cd_even)),
                vreinterpretq_f32_f64(vtrn1q_f64(ab_odd, cd_odd)),
                vreinterpretq_f32_f64(vtrn2q_f64(ab_even, cd_even)),
                vreinterpretq_f32_f64(vtrn2q_f64(ab_odd, cd_odd)),
            ]
        }
    }
}
