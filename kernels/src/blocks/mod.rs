//! Block formats: weights of a few bits each that share a scale, as GGUF files hold them.
//!
//! A block is a fixed number of bytes for 32 or 256 neighbours of a row. Whatever the format, sixteen neighbours have one
//! scale and lie in sixteen bytes with one shift, so all of them are read alike, sixteen at a time:
//!
//! ```text
//! number = scale · q + offset      q a small integer, scale and offset of the sixteen
//! ```
//!
//! Bytes need no alignment, so a block is used where it lies in the file. Widening is exact: the same bits as ggml's
//! `dequantize_row_*` gives, one rounding for the product and one for the sum.
//!
//! Source of the layouts: `ggml-common.h` and `ggml-quants.c` of ggml, `gguf.quants` of its Python package.

pub(crate) mod formats;

use crate::simd::portable::Portable;
use crate::simd::{Simd, SimdOp};

/// How many bits, and which numbers a block shares. The names are ggml's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum BlockFormat {
    /// 8 bits, a scale for 32.
    Q8_0,
    /// 4 bits, a scale for 32.
    Q4_0,
    /// 4 bits, scale and minimum for 32.
    Q4_1,
    /// 5 bits, a scale for 32.
    Q5_0,
    /// 5 bits, scale and minimum for 32.
    Q5_1,
    /// 4 bits, 6-bit scales and minima for each 32 of 256.
    Q4_K,
    /// 5 bits, 6-bit scales and minima for each 32 of 256.
    Q5_K,
    /// 6 bits, 8-bit scales for each 16 of 256.
    Q6_K,
}

impl BlockFormat {
    /// All of them.
    pub const ALL: [BlockFormat; 8] = [
        BlockFormat::Q8_0,
        BlockFormat::Q4_0,
        BlockFormat::Q4_1,
        BlockFormat::Q5_0,
        BlockFormat::Q5_1,
        BlockFormat::Q4_K,
        BlockFormat::Q5_K,
        BlockFormat::Q6_K,
    ];

    /// ggml's name.
    pub fn name(self) -> &'static str {
        match self {
            BlockFormat::Q8_0 => "Q8_0",
            BlockFormat::Q4_0 => "Q4_0",
            BlockFormat::Q4_1 => "Q4_1",
            BlockFormat::Q5_0 => "Q5_0",
            BlockFormat::Q5_1 => "Q5_1",
            BlockFormat::Q4_K => "Q4_K",
            BlockFormat::Q5_K => "Q5_K",
            BlockFormat::Q6_K => "Q6_K",
        }
    }

    /// Numbers in a block.
    pub fn numbers(self) -> usize {
        self.run(Numbers)
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        self.run(Bytes)
    }

    /// Does the work for this format.
    #[inline(always)]
    pub(crate) fn run<O: FormatOp>(self, op: O) -> O::Output {
        match self {
            BlockFormat::Q8_0 => op.eval::<formats::Q8_0>(),
            BlockFormat::Q4_0 => op.eval::<formats::Q4_0>(),
            BlockFormat::Q4_1 => op.eval::<formats::Q4_1>(),
            BlockFormat::Q5_0 => op.eval::<formats::Q5_0>(),
            BlockFormat::Q5_1 => op.eval::<formats::Q5_1>(),
            BlockFormat::Q4_K => op.eval::<formats::Q4_K>(),
            BlockFormat::Q5_K => op.eval::<formats::Q5_K>(),
            BlockFormat::Q6_K => op.eval::<formats::Q6_K>(),
        }
    }
}

/// Whole blocks of one format.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    format: BlockFormat,
    bytes: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// The blocks in `bytes`. Panics when these are no whole blocks.
    pub fn new(format: BlockFormat, bytes: &'a [u8]) -> Blocks<'a> {
        assert!(
            bytes.len().is_multiple_of(format.bytes()),
            "{} bytes are no whole {format:?} blocks",
            bytes.len()
        );
        Blocks { format, bytes }
    }

    /// Their format.
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Their bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// How many numbers they hold.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.format.bytes() * self.format.numbers()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes the numbers `from .. from + out.len()`, widened. Panics when these are no whole blocks inside.
    pub fn widen(self, from: usize, out: &mut [f32]) {
        let numbers = self.format.numbers();
        assert!(
            from.is_multiple_of(numbers) && out.len().is_multiple_of(numbers),
            "whole {:?} blocks",
            self.format
        );
        Portable.call(Widen { blocks: self, from, out });
    }
}

/// Widens the numbers from a multiple of sixteen, a multiple of sixteen of them.
pub(crate) struct Widen<'a, 'o> {
    pub(crate) blocks: Blocks<'a>,
    pub(crate) from: usize,
    pub(crate) out: &'o mut [f32],
}

impl SimdOp for Widen<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        self.blocks.format.run(WidenWith(s, self));
    }
}

struct WidenWith<'a, 'o, S>(S, Widen<'a, 'o>);

impl<S: Simd> FormatOp for WidenWith<'_, '_, S> {
    type Output = ();
    #[inline(always)]
    fn eval<F: Format>(self) {
        let WidenWith(s, Widen { blocks, from, out }) = self;
        widen::<S, F>(s, F::blocks(blocks.bytes), from, out);
    }
}

/// Writes the numbers `from .. from + out.len()` of `b`, widened: whole sixteens.
#[inline(always)]
fn widen<S: Simd, F: Format>(s: S, b: &[F::Block], from: usize, out: &mut [f32]) {
    let (mut block, mut first) = (from / F::NUMBERS, from % F::NUMBERS / 16);
    let mut rest = out;
    while !rest.is_empty() {
        let count = (F::NUMBERS / 16 - first).min(rest.len() / 16);
        let (now, after) = rest.split_at_mut(count * 16);
        let head = F::head(s, &b[block]);
        for (g, out) in now.chunks_exact_mut(16).enumerate() {
            let numbers = F::sixteen(s, &head, &b[block], first + g).widen(s);
            for (number, out) in numbers.into_iter().zip(out.chunks_exact_mut(S::LANES)) {
                s.store(number, out);
            }
        }
        (rest, block, first) = (after, block + 1, 0);
    }
}

/// A block format as the kernels read it.
pub(crate) trait Format: Copy + Send + Sync + 'static {
    /// Numbers in a block.
    const NUMBERS: usize;
    /// The bytes of a block.
    type Block: Copy + Send + Sync + 'static;
    /// What its sixteens share, unpacked.
    type Head<S: Simd>: Copy;
    /// The whole blocks in `bytes`.
    fn blocks(bytes: &[u8]) -> &[Self::Block];
    /// Unpacks what the sixteens of a block share.
    fn head<S: Simd>(s: S, block: &Self::Block) -> Self::Head<S>;
    /// The numbers `16 g .. 16 g + 16` of a block.
    fn sixteen<S: Simd>(s: S, head: &Self::Head<S>, block: &Self::Block, g: usize) -> Sixteen<S::V>;
}

/// Sixteen neighbours: `scale · q + offset`.
#[derive(Clone, Copy)]
pub(crate) struct Sixteen<V> {
    /// Signed bytes, the first in the lowest byte of the first word.
    q: [u64; 2],
    scale: V,
    offset: Option<V>,
}

impl<V: Copy> Sixteen<V> {
    /// The numbers, in the first `16 / LANES` vectors.
    #[inline(always)]
    pub(crate) fn widen<S: Simd<V = V>>(self, s: S) -> [V; 2] {
        let mut numbers = [self.scale; 2];
        for (h, number) in numbers.iter_mut().enumerate().take(16 / S::LANES) {
            let q = s.widen_i8(&self.q[h * S::LANES / 8..]);
            let product = s.mul(self.scale, q);
            *number = match self.offset {
                Some(offset) => s.add(product, offset),
                None => product,
            };
        }
        numbers
    }
}

/// A piece of work that can be compiled for any format.
pub(crate) trait FormatOp {
    /// What the work returns.
    type Output;
    /// Does the work. Implementations are `#[inline(always)]`.
    fn eval<F: Format>(self) -> Self::Output;
}

struct Numbers;

impl FormatOp for Numbers {
    type Output = usize;
    fn eval<F: Format>(self) -> usize {
        F::NUMBERS
    }
}

struct Bytes;

impl FormatOp for Bytes {
    type Output = usize;
    fn eval<F: Format>(self) -> usize {
        size_of::<F::Block>()
    }
}
