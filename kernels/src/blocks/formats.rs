//! The eight formats: where scale, offset and bits of a sixteen lie.
//!
//! Bits are moved eight bytes at a time in 64-bit words, which every CPU can, and whose units are idle beside those of
//! vectors.

#![allow(non_camel_case_types)]

use super::{Format, Sixteen};
use crate::simd::Simd;

/// The same byte eight times.
const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Bytes `at .. at + 16` as two words.
#[inline(always)]
fn words(block: &[u8], at: usize) -> [u64; 2] {
    let bytes: &[u8; 16] = block[at..].first_chunk().expect("sixteen bytes");
    let (low, high) = bytes.split_at(8);
    [low, high].map(|b| u64::from_le_bytes(*b.first_chunk().expect("eight bytes")))
}

/// The lower or upper half of each byte.
#[inline(always)]
fn nibbles(words: [u64; 2], upper: bool) -> [u64; 2] {
    words.map(|w| if upper { w >> 4 } else { w } & each(0x0f))
}

/// `a - zero` byte by byte, as signed bytes; both below 64.
#[inline(always)]
fn minus(words: [u64; 2], zero: u8) -> [u64; 2] {
    // the top bit keeps a byte from borrowing of the next one
    words.map(|w| ((w | each(0x80)) - each(zero)) ^ each(0x80))
}

#[inline(always)]
fn or(a: [u64; 2], b: [u64; 2]) -> [u64; 2] {
    [a[0] | b[0], a[1] | b[1]]
}

/// 16 in each byte whose bit is set: bit `i` of `bits` is byte `i`.
#[inline(always)]
fn fifth_bits(bits: u8) -> u64 {
    let own = each(1).wrapping_mul(u64::from(bits)) & 0x8040_2010_0804_0201;
    // 0x7f carries any bit into the top of its byte
    (own + each(0x7f)) >> 3 & each(0x10)
}

/// The f16 at byte `at`, in all lanes.
#[inline(always)]
fn half<S: Simd>(s: S, block: &[u8], at: usize) -> S::V {
    s.splat_f16(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Two f16 at byte `at`, as numbers.
#[inline(always)]
fn halves(block: &[u8], at: usize) -> [f32; 2] {
    [0, 2].map(|i| crate::simd::portable::widen_f16(u16::from_le_bytes([block[at + i], block[at + i + 1]])))
}

/// `factors · q` for sixteen signed bytes.
#[inline(always)]
fn products<S: Simd>(s: S, q: [u64; 2], factors: [f32; 16]) -> [f32; 16] {
    let mut out = [0.0; 16];
    for h in 0..16 / S::LANES {
        let q = s.widen_i8(&q[h * S::LANES / 8..]);
        s.store(s.mul(s.load(&factors[h * S::LANES..]), q), &mut out[h * S::LANES..]);
    }
    out
}

/// What all formats implement alike.
macro_rules! block {
    ($numbers:literal in $bytes:literal bytes) => {
        const NUMBERS: usize = $numbers;
        type Block = [u8; $bytes];
        #[inline(always)]
        fn blocks(bytes: &[u8]) -> &[Self::Block] {
            bytes.as_chunks().0
        }
    };
}

/// `d: f16, q: [i8; 32]`
#[derive(Clone, Copy)]
pub(crate) struct Q8_0;

impl Format for Q8_0 {
    block!(32 in 34 bytes);
    type Head<S: Simd> = S::V;
    #[inline(always)]
    fn head<S: Simd>(s: S, block: &[u8; 34]) -> S::V {
        half(s, block, 0)
    }
    #[inline(always)]
    fn sixteen<S: Simd>(_: S, scale: &S::V, block: &[u8; 34], g: usize) -> Sixteen<S::V> {
        Sixteen { q: words(block, 2 + 16 * g), scale: *scale, offset: None }
    }
}

/// `d: f16, q: [u4; 32] - 8`; the first sixteen are the lower halves of the bytes.
#[derive(Clone, Copy)]
pub(crate) struct Q4_0;

impl Format for Q4_0 {
    block!(32 in 18 bytes);
    type Head<S: Simd> = S::V;
    #[inline(always)]
    fn head<S: Simd>(s: S, block: &[u8; 18]) -> S::V {
        half(s, block, 0)
    }
    #[inline(always)]
    fn sixteen<S: Simd>(_: S, scale: &S::V, block: &[u8; 18], g: usize) -> Sixteen<S::V> {
        Sixteen { q: minus(nibbles(words(block, 2), g == 1), 8), scale: *scale, offset: None }
    }
}

/// `d: f16, m: f16, q: [u4; 32]`, ordered as in [`Q4_0`].
#[derive(Clone, Copy)]
pub(crate) struct Q4_1;

impl Format for Q4_1 {
    block!(32 in 20 bytes);
    type Head<S: Simd> = [S::V; 2];
    #[inline(always)]
    fn head<S: Simd>(s: S, block: &[u8; 20]) -> [S::V; 2] {
        [half(s, block, 0), half(s, block, 2)]
    }
    #[inline(always)]
    fn sixteen<S: Simd>(_: S, [scale, offset]: &[S::V; 2], block: &[u8; 20], g: usize) -> Sixteen<S::V> {
        Sixteen { q: nibbles(words(block, 4), g == 1), scale: *scale, offset: Some(*offset) }
    }
}

/// `d: f16, bit 4: [u1; 32], bits 0 to 3: [u4; 32]`, minus 16, ordered as in [`Q4_0`].
#[derive(Clone, Copy)]
pub(crate) struct Q5_0;

impl Format for Q5_0 {
    block!(32 in 22 bytes);
    type Head<S: Simd> = S::V;
    #[inline(always)]
    fn head<S: Simd>(s: S, block: &[u8; 22]) -> S::V {
        half(s, block, 0)
    }
    #[inline(always)]
    fn sixteen<S: Simd>(_: S, scale: &S::V, block: &[u8; 22], g: usize) -> Sixteen<S::V> {
        let high = [block[2 + 2 * g], block[3 + 2 * g]].map(fifth_bits);
        Sixteen { q: minus(or(nibbles(words(block, 6), g == 1), high), 16), scale: *scale, offset: None }
    }
}

/// `d: f16, m: f16, bit 4: [u1; 32], bits 0 to 3: [u4; 32]`, ordered as in [`Q4_0`].
#[derive(Clone, Copy)]
pub(crate) struct Q5_1;

impl Format for Q5_1 {
    block!(32 in 24 bytes);
    type Head<S: Simd> = [S::V; 2];
    #[inline(always)]
    fn head<S: Simd>(s: S, block: &[u8; 24]) -> [S::V; 2] {
        [half(s, block, 0), half(s, block, 2)]
    }
    #[inline(always)]
    fn sixteen<S: Simd>(_: S, [scale, offset]: &[S::V; 2], block: &[u8; 24], g: usize) -> Sixteen<S::V> {
        let high = [block[4 + 2 * g], block[5 + 2 * g]].map(fifth_bits);
        Sixteen { q: or(nibbles(words(block, 8), g == 1), high), scale: *scale, offset: Some(*offset) }
    }
}

/// Scales, then negative minima, of the eight 32 of a [`Q4_K`] or [`Q5_K`] block: `d: f16, dmin: f16`, then eight 6-bit
/// factors of each in twelve bytes. Those of the last four have their upper two bits in the bytes of the first four.
#[inline(always)]
fn scales_and_minima<S: Simd>(s: S, block: &[u8]) -> [f32; 16] {
    let [d, d_min] = halves(block, 0);
    let word = |at: usize| u32::from_le_bytes(*block[at..].first_chunk().expect("four bytes"));
    let (a, b, c) = (word(4), word(8), word(12));
    let upper = |x: u32| (x >> 6 & 0x0303_0303) << 4;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let scales = join(a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | upper(a));
    let minima = join(b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | upper(b));
    let mut factors = [d; 16];
    factors[8..].fill(-d_min);
    products(s, [scales, minima], factors)
}

/// Scale and offset of sixteen `g` of those.
#[inline(always)]
fn scale_and_offset<S: Simd>(s: S, head: &[f32; 16], g: usize) -> (S::V, Option<S::V>) {
    (s.splat(head[g / 2]), Some(s.splat(head[8 + g / 2])))
}

/// `d, dmin, 12 bytes of factors, q: [u4; 256]`; each 32 bytes are 32 numbers in their lower halves, then 32 more.
#[derive(Clone, Copy)]
pub(crate) struct Q4_K;

impl Format for Q4_K {
    block!(256 in 144 bytes);
    type Head<S: Simd> = [f32; 16];
    #[inline(always)]
    fn head<S: Simd>(s: S, block: &[u8; 144]) -> [f32; 16] {
        scales_and_minima(s, block)
    }
    #[inline(always)]
    fn sixteen<S: Simd>(s: S, head: &[f32; 16], block: &[u8; 144], g: usize) -> Sixteen<S::V> {
        let (scale, offset) = scale_and_offset(s, head, g);
        Sixteen { q: nibbles(words(block, 16 + g / 4 * 32 + g % 2 * 16), g / 2 % 2 == 1), scale, offset }
    }
}

/// `d, dmin, 12 bytes of factors, bit 4: 32 bytes, bits 0 to 3: [u4; 256]`, ordered as in [`Q4_K`]; bit `i` of the 32
/// bytes belongs to the `i`-th 32 numbers.
#[derive(Clone, Copy)]
pub(crate) struct Q5_K;

impl Format for Q5_K {
    block!(256 in 176 bytes);
    type Head<S: Simd> = [f32; 16];
    #[inline(always)]
    fn head<S: Simd>(s: S, block: &[u8; 176]) -> [f32; 16] {
        scales_and_minima(s, block)
    }
    #[inline(always)]
    fn sixteen<S: Simd>(s: S, head: &[f32; 16], block: &[u8; 176], g: usize) -> Sixteen<S::V> {
        let (scale, offset) = scale_and_offset(s, head, g);
        let high = words(block, 16 + g % 2 * 16).map(|w| (w >> (g / 2) & each(1)) << 4);
        let low = nibbles(words(block, 48 + g / 4 * 32 + g % 2 * 16), g / 2 % 2 == 1);
        Sixteen { q: or(low, high), scale, offset }
    }
}

/// `bits 0 to 3: [u4; 256], bits 4 and 5: [u2; 256], factors: [i8; 16], d: f16`, minus 32. Of each 128 numbers, the lower
/// halves of 64 bytes are the first 64, and the pairs of bits of 32 bytes go to the four 32.
#[derive(Clone, Copy)]
pub(crate) struct Q6_K;

impl Format for Q6_K {
    block!(256 in 210 bytes);
    type Head<S: Simd> = [f32; 16];
    #[inline(always)]
    fn head<S: Simd>(s: S, block: &[u8; 210]) -> [f32; 16] {
        let d = crate::simd::portable::widen_f16(u16::from_le_bytes([block[208], block[209]]));
        products(s, words(block, 192), [d; 16])
    }
    #[inline(always)]
    fn sixteen<S: Simd>(s: S, head: &[f32; 16], block: &[u8; 210], g: usize) -> Sixteen<S::V> {
        let (of_128, quarter, of_32) = (g / 8, g / 2 % 4, g % 2);
        let low = nibbles(words(block, of_128 * 64 + quarter % 2 * 32 + of_32 * 16), quarter >= 2);
        let high = words(block, 128 + of_128 * 32 + of_32 * 16);
        let high = high.map(|w| (w >> (2 * quarter) & each(3)) << 4);
        Sixteen { q: minus(or(low, high), 32), scale: s.splat(head[g]), offset: None }
    }
}
