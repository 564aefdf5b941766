//! Any CPU: eight lanes of the `wide` crate at the instruction set the compiler was told to assume.
//!
//! It has no `unsafe`. The other tiers are checked against it and against plain scalars.

use half::{bf16, f16};
use wide::f32x8;

use super::{Simd, SimdOp};

/// The token of the portable tier: every CPU has it.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

const LANES: usize = 8;

/// Widens the bits of an f16: without branches, so that the compiler vectorises a loop over it, and without the call
/// that `half` makes, which would push the vectors around it out of their registers.
#[inline(always)]
pub(crate) fn widen_f16(h: u16) -> f32 {
    let shifted = u32::from(h & 0x7fff) << 13;
    // the exponent bias differs by 112; the product also normalises subnormals
    let magnitude = f32::from_bits(shifted) * f32::from_bits((127 + 112) << 23);
    let special = if magnitude >= 65536.0 { 0xff << 23 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (u32::from(h & 0x8000) << 16))
}

/// The nearest bf16, ties to even; without branches, as [`widen_f16`] is.
#[inline(always)]
pub(crate) fn round_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // the carry could make an infinity of a NaN: its quiet bit is set instead
    let chosen = if x.is_nan() { bits | 0x0040_0000 } else { rounded };
    f32::from_bits(chosen & 0xffff_0000)
}

#[inline(always)]
fn first(x: &[f32]) -> [f32; LANES] {
    *x.first_chunk().expect("at least LANES elements")
}

impl Simd for Portable {
    type V = f32x8;
    const LANES: usize = LANES;
    const REGISTERS: usize = if cfg!(target_arch = "aarch64") { 16 } else { 8 };

    #[inline(never)]
    fn call<O: SimdOp>(self, op: O) -> O::Output {
        op.eval(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> f32x8 {
        f32x8::splat(x)
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> f32x8 {
        f32x8::new(first(x))
    }
    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> f32x8 {
        let mut lanes = [0.0; LANES];
        lanes[..x.len()].copy_from_slice(x);
        f32x8::new(lanes)
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16]) -> f32x8 {
        let x: &[f16; LANES] = x.first_chunk().expect("at least LANES elements");
        f32x8::new(x.map(|h| widen_f16(h.to_bits())))
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16]) -> f32x8 {
        let x: &[bf16; LANES] = x.first_chunk().expect("at least LANES elements");
        f32x8::new(x.map(|h| f32::from_bits(u32::from(h.to_bits()) << 16)))
    }
    #[inline(always)]
    fn widen_i8(self, bytes: &[u64]) -> f32x8 {
        f32x8::new(bytes[0].to_le_bytes().map(|b| f32::from(b as i8)))
    }
    #[inline(always)]
    fn store(self, v: f32x8, out: &mut [f32]) {
        *out.first_chunk_mut().expect("at least LANES elements") = v.to_array();
    }
    #[inline(always)]
    fn store_partial(self, v: f32x8, out: &mut [f32]) {
        let n = out.len();
        out.copy_from_slice(&v.to_array()[..n]);
    }

    #[inline(always)]
    fn add(self, a: f32x8, b: f32x8) -> f32x8 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32x8, b: f32x8) -> f32x8 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32x8, b: f32x8) -> f32x8 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32x8, b: f32x8) -> f32x8 {
        a / b
    }
    #[inline(always)]
    fn mul_add(self, a: f32x8, b: f32x8, c: f32x8) -> f32x8 {
        a.mul_add(b, c)
    }
    #[inline(always)]
    fn max(self, a: f32x8, b: f32x8) -> f32x8 {
        a.fast_max(b)
    }
    #[inline(always)]
    fn min(self, a: f32x8, b: f32x8) -> f32x8 {
        a.fast_min(b)
    }
    #[inline(always)]
    fn abs(self, a: f32x8) -> f32x8 {
        a.abs()
    }
    #[inline(always)]
    fn copysign(self, a: f32x8, sign: f32x8) -> f32x8 {
        f32x8::splat(-0.0).bitselect(sign, a)
    }
    #[inline(always)]
    fn sqrt(self, a: f32x8) -> f32x8 {
        a.sqrt()
    }
    #[inline(always)]
    fn round(self, a: f32x8) -> f32x8 {
        // 2^23 has no fraction bits: adding it rounds to nearest even. From there on every f32 is an integer.
        let limit = f32x8::splat(8_388_608.0);
        let rounded = (a.abs() + limit) - limit;
        self.select_lt(a.abs(), limit, self.copysign(rounded, a), a)
    }
    #[inline(always)]
    fn pow2(self, n: f32x8) -> f32x8 {
        let exponents = n.fast_round_int().to_array();
        f32x8::new(exponents.map(|e| f32::from_bits((e.wrapping_add(127) as u32) << 23)))
    }
    #[inline(always)]
    fn select_lt(self, a: f32x8, b: f32x8, yes: f32x8, no: f32x8) -> f32x8 {
        a.simd_lt(b).bitselect(yes, no)
    }
    #[inline(always)]
    fn round_bf16(self, v: f32x8) -> f32x8 {
        f32x8::new(v.to_array().map(round_bf16))
    }
    #[inline(always)]
    fn sum(self, v: f32x8) -> f32 {
        let [a, b, c, d, e, f, g, h] = v.to_array();
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    #[inline(always)]
    fn max_lane(self, v: f32x8) -> f32 {
        let [a, b, c, d, e, f, g, h] = v.to_array();
        a.max(e).max(c.max(g)).max(b.max(f).max(d.max(h)))
    }
    #[inline(always)]
    fn transpose(self, rows: &mut [f32x8]) {
        let rows: &mut [f32x8; LANES] = rows.first_chunk_mut().expect("at least LANES vectors");
        *rows = f32x8::transpose(*rows);
    }
}
