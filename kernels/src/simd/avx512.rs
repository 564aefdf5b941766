//! x86-64 with AVX-512 F, BW, DQ and VL: sixteen lanes, 32 registers, masks for partial vectors. One more tier has the
//! dot products of AVX-512-BF16 besides.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Simd, SimdOp};

/// The token of the AVX-512 tiers, with the instructions of AVX-512-BF16 or without. It can only be had from
/// [`Avx512::new`], which asks the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Avx512<const BF16: bool> {
    _private: (),
}

const LANES: usize = 16;

impl<const BF16: bool> Avx512<BF16> {
    /// The token, if this CPU (and the operating system) has every instruction of the tier.
    pub fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && (!BF16 || is_x86_feature_detected!("avx512bf16"));
        has.then_some(Avx512 { _private: () })
    }

    /// Runs `op`, compiled for this instruction set.
    #[inline]
    pub fn run<O: SimdOp>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn without<S: Simd, O: SimdOp>(s: S, op: O) -> O::Output {
            op.eval(s)
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
        fn with<S: Simd, O: SimdOp>(s: S, op: O) -> O::Output {
            op.eval(s)
        }
        if BF16 {
            // SAFETY: `self` proves that the CPU has the features (see `new`).
            unsafe { with(self, op) }
        } else {
            // SAFETY: as above.
            unsafe { without(self, op) }
        }
    }
}

/// The mask of the first `n` lanes.
#[inline(always)]
fn first_lanes(n: usize) -> __mmask16 {
    assert!(n < LANES, "a partial vector has fewer than {LANES} elements, got {n}");
    (1 << n) - 1
}

/// Methods that are one intrinsic on registers.
macro_rules! intrinsics {
    ($(fn $name:ident($($arg:ident),+) = $intrinsic:path;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: __m512),+) -> __m512 {
            // SAFETY: `self` proves that the CPU has the instruction.
            unsafe { $intrinsic($($arg),+) }
        }
    )*};
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    type V = __m512;
    const LANES: usize = LANES;
    const REGISTERS: usize = 32;
    const DOT_BF16: bool = BF16;

    #[inline(never)]
    fn call<O: SimdOp>(self, op: O) -> O::Output {
        self.run(op)
    }

    intrinsics! {
        fn add(a, b) = _mm512_add_ps;
        fn sub(a, b) = _mm512_sub_ps;
        fn mul(a, b) = _mm512_mul_ps;
        fn div(a, b) = _mm512_div_ps;
        fn mul_add(a, b, c) = _mm512_fmadd_ps;
        fn max(a, b) = _mm512_max_ps;
        fn min(a, b) = _mm512_min_ps;
        fn abs(a) = _mm512_abs_ps;
        fn sqrt(a) = _mm512_sqrt_ps;
        fn round(a) = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> __m512 {
        let x: &[f32; LANES] = x.first_chunk().expect("at least LANES elements");
        // SAFETY: `self` proves the instruction; the array is LANES readable elements; the load is unaligned.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> __m512 {
        // SAFETY: `self` proves the instruction; the mask covers x.len() elements and the others are not touched.
        unsafe { _mm512_maskz_loadu_ps(first_lanes(x.len()), x.as_ptr()) }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)] // one obligation for all: the CPU has the tier
    fn load_f16(self, x: &[f16]) -> __m512 {
        let x: &[f16; LANES] = x.first_chunk().expect("at least LANES elements");
        // SAFETY: `self` proves the instructions; the array is 32 readable bytes; the load is unaligned.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn load_bf16(self, x: &[bf16]) -> __m512 {
        let x: &[bf16; LANES] = x.first_chunk().expect("at least LANES elements");
        // SAFETY: `self` proves the instructions; the array is 32 readable bytes; the load is unaligned.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn widen_i8(self, bytes: &[u64]) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_set_epi64x(bytes[1] as i64, bytes[0] as i64))) }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn splat_f16(self, bits: u16) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(bits as i16)) }
    }
    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32]) {
        let out: &mut [f32; LANES] = out.first_chunk_mut().expect("at least LANES elements");
        // SAFETY: `self` proves the instruction; the array is LANES writable elements; the store is unaligned.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_partial(self, v: __m512, out: &mut [f32]) {
        // SAFETY: `self` proves the instruction; the mask covers out.len() elements and the others are not touched.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), first_lanes(out.len()), v) }
    }

    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn copysign(self, a: __m512, sign: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let sign_bit = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(sign_bit, a), _mm512_and_ps(sign_bit, sign))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn pow2(self, n: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn select_lt(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes) }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn round_bf16(self, v: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            // the carry could make an infinity of a NaN: its quiet bit is set instead
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
            let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let chosen = _mm512_mask_blend_epi32(is_nan, rounded, quiet);
            _mm512_castsi512_ps(_mm512_and_si512(chosen, _mm512_set1_epi32(0xffff_0000_u32 as i32)))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn pair_bf16(self, even: __m512, odd: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(even));
            _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_castps_si512(odd)))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn dot_bf16(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        if !BF16 {
            let even = |x| self.lower_halves(x);
            let odd = |x| self.upper_halves(x);
            return self.mul_add(even(a), even(b), self.mul_add(odd(a), odd(b), sum));
        }
        // SAFETY: `self` proves the instruction; a vector is a vector, whatever its lanes hold.
        unsafe {
            let [a, b] = [a, b].map(|x| std::mem::transmute::<__m512, __m512bh>(x));
            _mm512_dpbf16_ps(sum, a, b)
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn sum(self, v: __m512) -> f32 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn max_lane(self, v: __m512) -> f32 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let v = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    fn prefetch<T>(self, x: &[T]) {
        // SAFETY: every x86-64 CPU has the instruction; it never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn prefetch_far<T>(self, x: &[T]) {
        // SAFETY: every x86-64 CPU has the instruction; it never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn transpose(self, rows: &mut [__m512]) {
        let rows: &mut [__m512; LANES] = rows.first_chunk_mut().expect("at least LANES vectors");
        let mut t = *rows;
        for g in [0, 4, 8, 12] {
            // now quarter `q` of `t[g + c]` holds column `4 q + c` of rows `g .. g + 4`
            [t[g], t[g + 1], t[g + 2], t[g + 3]] =
                self.transpose_quarters(t[g], t[g + 1], t[g + 2], t[g + 3]);
        }
        for c in 0..4 {
            [rows[c], rows[4 + c], rows[8 + c], rows[12 + c]] =
                self.regroup_quarters(t[c], t[4 + c], t[8 + c], t[12 + c]);
        }
    }
}

impl<const BF16: bool> Avx512<BF16> {
    /// The bf16 in the lower half of each lane, widened.
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn lower_halves(self, v: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(v))) }
    }

    /// The bf16 in the upper half of each lane, widened.
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn upper_halves(self, v: __m512) -> __m512 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { _mm512_and_ps(v, _mm512_castsi512_ps(_mm512_set1_epi32(0xffff_0000_u32 as i32))) }
    }

    /// Transposes the 4 by 4 matrix in each quarter (128 bits) of the four vectors.
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn transpose_quarters(self, a: __m512, b: __m512, c: __m512, d: __m512) -> [__m512; 4] {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let ab_low = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
            let ab_high = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
            let cd_low = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
            let cd_high = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
            [
                _mm512_castpd_ps(_mm512_unpacklo_pd(ab_low, cd_low)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(ab_low, cd_low)),
                _mm512_castpd_ps(_mm512_unpacklo_pd(ab_high, cd_high)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(ab_high, cd_high)),
            ]
        }
    }

    /// Transposes a 4 by 4 matrix whose elements are quarters (128 bits).
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn regroup_quarters(self, a: __m512, b: __m512, c: __m512, d: __m512) -> [__m512; 4] {
        const EVEN: i32 = 0b10_00_10_00;
        const ODD: i32 = 0b11_01_11_01;
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let ab_even = _mm512_shuffle_f32x4::<EVEN>(a, b);
            let ab_odd = _mm512_shuffle_f32x4::<ODD>(a, b);
            let cd_even = _mm512_shuffle_f32x4::<EVEN>(c, d);
            let cd_odd = _mm512_shuffle_f32x4::<ODD>(c, d);
            [
                _mm512_shuffle_f32x4::<EVEN>(ab_even, cd_even),
                _mm512_shuffle_f32x4::<EVEN>(ab_odd, cd_odd),
                _mm512_shuffle_f32x4::<ODD>(ab_even, cd_even),
                _mm512_shuffle_f32x4::<ODD>(ab_odd, cd_odd),
            ]
        }
    }
}
