//! x86-64 with AVX2, FMA and F16C: eight lanes, 16 registers.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Simd, SimdOp};

/// The token of the AVX2 tier. It can only be had from [`Avx2::new`], which asks the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Avx2 {
    _private: (),
}

const LANES: usize = 8;

/// A window of this table that starts at `LANES - n` is the mask of the first `n` lanes.
static MASKS: [i32; 2 * LANES] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

impl Avx2 {
    /// The token, if this CPU (and the operating system) has every instruction of the tier.
    pub fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has.then_some(Avx2 { _private: () })
    }

    /// Runs `op`, compiled for this instruction set.
    #[inline]
    pub fn run<O: SimdOp>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inner<O: SimdOp>(s: Avx2, op: O) -> O::Output {
            op.eval(s)
        }
        // SAFETY: `self` proves that the CPU has the features (see `new`).
        unsafe { inner(self, op) }
    }

    /// The mask of the first `n` lanes.
    #[inline(always)]
    fn first_lanes(self, n: usize) -> __m256i {
        assert!(n < LANES, "a partial vector has fewer than {LANES} elements, got {n}");
        let window: &[i32; LANES] = MASKS[LANES - n..].first_chunk().expect("n < LANES");
        // SAFETY: `self` proves the instruction; the array is 32 readable bytes; the load is unaligned.
        unsafe { _mm256_loadu_si256(window.as_ptr().cast()) }
    }
}

/// Methods that are one intrinsic on registers.
macro_rules! intrinsics {
    ($(fn $name:ident($($arg:ident),+) = $intrinsic:path;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: __m256),+) -> __m256 {
            // SAFETY: `self` proves that the CPU has the instruction.
            unsafe { $intrinsic($($arg),+) }
        }
    )*};
}

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = LANES;
    const REGISTERS: usize = 16;

    #[inline(never)]
    fn call<O: SimdOp>(self, op: O) -> O::Output {
        self.run(op)
    }

    intrinsics! {
        fn add(a, b) = _mm256_add_ps;
        fn sub(a, b) = _mm256_sub_ps;
        fn mul(a, b) = _mm256_mul_ps;
        fn div(a, b) = _mm256_div_ps;
        fn mul_add(a, b, c) = _mm256_fmadd_ps;
        fn max(a, b) = _mm256_max_ps;
        fn min(a, b) = _mm256_min_ps;
        fn sqrt(a) = _mm256_sqrt_ps;
        fn round(a) = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `self` proves that the CPU has the instruction.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> __m256 {
        let x: &[f32; LANES] = x.first_chunk().expect("at least LANES elements");
        // SAFETY: `self` proves the instruction; the array is LANES readable elements; the load is unaligned.
        unsafe { _mm256_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> __m256 {
        let mask = self.first_lanes(x.len());
        // SAFETY: `self` proves the instruction; the mask covers x.len() elements and the others are not touched.
        unsafe { _mm256_maskload_ps(x.as_ptr(), mask) }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)] // one obligation for all: the CPU has the tier
    fn load_f16(self, x: &[f16]) -> __m256 {
        let x: &[f16; LANES] = x.first_chunk().expect("at least LANES elements");
        // SAFETY: `self` proves the instructions; the array is 16 readable bytes; the load is unaligned.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())) }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn load_bf16(self, x: &[bf16]) -> __m256 {
        let x: &[bf16; LANES] = x.first_chunk().expect("at least LANES elements");
        // SAFETY: `self` proves the instructions; the array is 16 readable bytes; the load is unaligned.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn widen_i8(self, bytes: &[u64]) -> __m256 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(bytes[0] as i64))) }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn splat_f16(self, bits: u16) -> __m256 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { _mm256_cvtph_ps(_mm_set1_epi16(bits as i16)) }
    }
    #[inline(always)]
    fn store(self, v: __m256, out: &mut [f32]) {
        let out: &mut [f32; LANES] = out.first_chunk_mut().expect("at least LANES elements");
        // SAFETY: `self` proves the instruction; the array is LANES writable elements; the store is unaligned.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_partial(self, v: __m256, out: &mut [f32]) {
        let mask = self.first_lanes(out.len());
        // SAFETY: `self` proves the instruction; the mask covers out.len() elements and the others are not touched.
        unsafe { _mm256_maskstore_ps(out.as_mut_ptr(), mask, v) }
    }

    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn abs(self, a: __m256) -> __m256 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn copysign(self, a: __m256, sign: __m256) -> __m256 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let sign_bit = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(sign_bit, a), _mm256_and_ps(sign_bit, sign))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn pow2(self, n: __m256) -> __m256 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn select_lt(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe { _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn round_bf16(self, v: __m256) -> __m256 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let bits = _mm256_castps_si256(v);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            // the carry could make an infinity of a NaN: its quiet bit is set instead
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
            let chosen = _mm256_blendv_epi8(rounded, quiet, is_nan);
            _mm256_castsi256_ps(_mm256_and_si256(chosen, _mm256_set1_epi32(0xffff_0000_u32 as i32)))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn sum(self, v: __m256) -> f32 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn max_lane(self, v: __m256) -> f32 {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
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
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn transpose(self, rows: &mut [__m256]) {
        let rows: &mut [__m256; LANES] = rows.first_chunk_mut().expect("at least LANES vectors");
        let mut t = *rows;
        for g in [0, 4] {
            // now half `h` of `t[g + c]` holds column `4 h + c` of rows `g .. g + 4`
            [t[g], t[g + 1], t[g + 2], t[g + 3]] = self.transpose_halves(t[g], t[g + 1], t[g + 2], t[g + 3]);
        }
        for c in 0..4 {
            // SAFETY: `self` proves that the CPU has the instructions.
            unsafe {
                rows[c] = _mm256_permute2f128_ps::<0x20>(t[c], t[4 + c]);
                rows[4 + c] = _mm256_permute2f128_ps::<0x31>(t[c], t[4 + c]);
            }
        }
    }
}

impl Avx2 {
    /// Transposes the 4 by 4 matrix in each half (128 bits) of the four vectors.
    #[inline(always)]
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    fn transpose_halves(self, a: __m256, b: __m256, c: __m256, d: __m256) -> [__m256; 4] {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            let ab_low = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
            let ab_high = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
            let cd_low = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
            let cd_high = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
            [
                _mm256_castpd_ps(_mm256_unpacklo_pd(ab_low, cd_low)),
                _mm256_castpd_ps(_mm256_unpackhi_pd(ab_low, cd_low)),
                _mm256_castpd_ps(_mm256_unpacklo_pd(ab_high, cd_high)),
                _mm256_castpd_ps(_mm256_unpackhi_pd(ab_high, cd_high)),
            ]
        }
    }
}
