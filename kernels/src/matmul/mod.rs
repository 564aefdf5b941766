//! Matrix products of f32 activations with weights of any dtype, where they lie.
//!
//! Forward and backward are the same product `C[m, n] = A[m, k] · B[k, n]`: `A` is the activations, and `B` is the
//! weight, read either along its rows or across them (`Order`). Nothing transposes or widens a weight as a whole.
//!
//! | module | what it is |
//! |---|---|
//! | [`mod@reference`] | the specification |
//! | `blocked` | many rows: cache blocks, packed panels; within it `loop_1`, a tile of `C` in registers |
//! | `few_rows` | up to 8 rows: limited by memory, so every weight is read once, unpacked |
//! | `arithmetic` | f32, or bf16 with f32 sums |
//! | `panels`, `pack` | how `A` and `k` are divided; panels of `A` and of `B`, widened to f32 or rounded to bf16 |
//! | `tiles` | which part of `C` is one task |
//!
//! **What a result depends on.** Each number of `C` is a sum over `k` whose order depends on `k`, on the instruction
//! set and on whether there are more than 8 rows, and on nothing else: not on the other rows, on the number of
//! threads, or on where in a tile it lies.

// Loops that run up to a constant are unrolled, and what they index stays in registers.
#![allow(clippy::needless_range_loop)]

mod arithmetic;
mod blocked;
#[cfg(feature = "cuda")]
pub mod cuda;
mod few_blocks;
mod few_rows;
mod loop_1;
mod pack;
mod panels;
pub mod reference;
mod tiles;

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::Isa;
use crate::blocks::Blocks;
use crate::simd::{Simd, portable::widen_f16};

/// The numbers of a weight as they lie in memory.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// bfloat16: the upper half of an f32.
    Bf16(&'a [bf16]),
    /// Quantised, in blocks. A row is whole blocks.
    Blocks(Blocks<'a>),
}

impl Elements<'_> {
    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Elements::F32(x) => x.len(),
            Elements::F16(x) => x.len(),
            Elements::Bf16(x) => x.len(),
            Elements::Blocks(x) => x.len(),
        }
    }

    /// Bytes of so many numbers; of quantised ones, whole blocks' share.
    fn bytes_of(&self, numbers: usize) -> usize {
        match self {
            Elements::F32(_) => 4 * numbers,
            Elements::F16(_) | Elements::Bf16(_) => 2 * numbers,
            Elements::Blocks(x) => numbers * x.format().bytes() / x.format().numbers(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which way round a weight matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[n_out, n_in]`, as `torch.nn.Linear` stores it: `y = x Wᵀ`.
    OutIn,
    /// `[n_in, n_out]`, as GPT-2's `Conv1D` stores it: `y = x W`.
    InOut,
}

/// What both factors of a product are rounded to before they are multiplied. Sums are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// bf16: 8 bits of mantissa. Twice as fast where the CPU has dot products of bf16 (AVX-512-BF16). A GPU multiplies so on
    /// tensor cores, in attention too.
    Bf16,
}

/// A weight matrix that maps `n_in` features to `n_out`.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// The numbers, row-major in `layout`.
    pub elements: Elements<'a>,
    /// Which way round they are.
    pub layout: Layout,
    /// Width of the input.
    pub n_in: usize,
    /// Width of the output.
    pub n_out: usize,
    /// How it is multiplied.
    pub precision: Precision,
}

/// What is added to the product as it is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[n_out]`, added to every row.
    pub bias: Option<&'a [f32]>,
    /// `[m, n_out]`, added element by element (the residual stream).
    pub residual: Option<&'a [f32]>,
}

/// `out[m, n_out] = x[m, n_in] · W + bias + residual`, where `m = x.len() / n_in`.
///
/// With `n_in = 0` the product is zero and `m = out.len() / n_out`. Panics when a length does not fit.
pub fn forward(isa: Isa, x: &[f32], w: Weight, epilogue: Epilogue, out: &mut [f32]) {
    let order = match w.layout {
        Layout::OutIn => Order::Transposed,
        Layout::InOut => Order::RowMajor,
    };
    let size = Size { m: rows(x.len(), w.n_in, out.len(), w.n_out), k: w.n_in, n: w.n_out };
    run(isa, Product { a: x, b: w.elements, order, size, precision: w.precision, epilogue }, out);
}

/// `d_x[m, n_in] = d_out[m, n_out] · Wᵀ`, the gradient of [`forward`] with respect to `x`.
///
/// Panics when a length does not fit.
pub fn backward_input(isa: Isa, d_out: &[f32], w: Weight, d_x: &mut [f32]) {
    let order = match w.layout {
        Layout::OutIn => Order::RowMajor,
        Layout::InOut => Order::Transposed,
    };
    let size = Size { m: rows(d_out.len(), w.n_out, d_x.len(), w.n_in), k: w.n_out, n: w.n_in };
    let (b, precision, epilogue) = (w.elements, w.precision, Epilogue::default());
    run(isa, Product { a: d_out, b, order, size, precision, epilogue }, d_x);
}

/// `d_w = xᵀ · d_out` in the layout of the weight, summed over the rows, plus `before` (the same shape) where there is
/// a gradient already: the gradient of [`forward`] with respect to `W`.
///
/// The transposed factor is copied once: a small part of the work, as each of its numbers is used `n_in` or `n_out`
/// times. Panics when a length does not fit.
pub fn backward_weight(
    isa: Isa,
    (x, d_out): (&[f32], &[f32]),
    shape: reference::Shape,
    before: Option<&[f32]>,
    d_w: &mut [f32],
) {
    let reference::Shape { layout, n_in, n_out } = shape;
    let rows = rows(x.len(), n_in, d_out.len(), n_out);
    let (first, m, second, n) = match layout {
        Layout::OutIn => (d_out, n_out, x, n_in),
        Layout::InOut => (x, n_in, d_out, n_out),
    };
    assert_eq!(first.len(), rows * m, "the weight's gradient needs {rows} rows of {m}");
    let a = transposed(first, m);
    let (b, order, size) = (Elements::F32(second), Order::RowMajor, Size { m, k: rows, n });
    let (precision, epilogue) = (Precision::F32, Epilogue { bias: None, residual: before });
    run(isa, Product { a: &a, b, order, size, precision, epilogue }, d_w);
}

/// `[rows, width]` to `[width, rows]`: a band of columns is a task, and goes a square of cache lines at a time.
fn transposed(x: &[f32], width: usize) -> Vec<f32> {
    const SIDE: usize = 16;
    let rows = x.len() / width.max(1);
    let mut out = vec![0.0; x.len()];
    let band = |(i, band): (usize, &mut [f32])| {
        for first in (0..rows).step_by(SIDE) {
            for (c, out) in band.chunks_exact_mut(rows).enumerate() {
                for r in first..rows.min(first + SIDE) {
                    out[r] = x[r * width + i * SIDE + c];
                }
            }
        }
    };
    out.par_chunks_mut((SIDE * rows).max(1)).enumerate().for_each(band);
    out
}

/// How `B[k, n]` lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// `k` rows of `n`.
    RowMajor,
    /// `n` rows of `k`.
    Transposed,
}

/// Sizes of `C[m, n] = A[m, k] · B[k, n]`.
#[derive(Clone, Copy, Debug)]
struct Size {
    m: usize,
    k: usize,
    n: usize,
}

/// One product to compute: `C = A · B + bias + residual`.
#[derive(Clone, Copy, Debug)]
struct Product<'a> {
    /// `[m, k]`
    a: &'a [f32],
    b: Elements<'a>,
    order: Order,
    size: Size,
    precision: Precision,
    epilogue: Epilogue<'a>,
}

impl<'a> Product<'a> {
    /// The same for some rows of `A` and `C`.
    fn rows(self, rows: Range<usize>) -> Product<'a> {
        let Size { k, n, .. } = self.size;
        let Epilogue { bias, residual } = self.epilogue;
        let residual = residual.map(|x| &x[rows.start * n..rows.end * n]);
        Product {
            a: &self.a[rows.start * k..rows.end * k],
            size: Size { m: rows.len(), ..self.size },
            epilogue: Epilogue { bias, residual },
            ..self
        }
    }

    /// The epilogue's part of `C[row, col .. col + width]`: slices of the bias and of the residual.
    #[inline(always)]
    fn epilogue_at(&self, row: usize, col: usize, width: usize) -> [Option<&'a [f32]>; 2] {
        let start = row * self.size.n + col;
        let Epilogue { bias, residual } = self.epilogue;
        [
            match bias {
                Some(bias) => Some(&bias[col..col + width]),
                None => None,
            },
            match residual {
                Some(residual) => Some(&residual[start..start + width]),
                None => None,
            },
        ]
    }
}

/// The number of rows, from whichever side has a width.
fn rows(a_len: usize, k: usize, c_len: usize, n: usize) -> usize {
    a_len.checked_div(k).or(c_len.checked_div(n)).unwrap_or(0)
}

fn run(isa: Isa, product: Product, c: &mut [f32]) {
    let Size { m, k, n } = product.size;
    assert_eq!(product.a.len(), m * k, "the input is [{m}, {k}]");
    assert_eq!(product.b.len(), k * n, "the weight is [{k}, {n}] or the other way round");
    assert_eq!(c.len(), m * n, "the output is [{m}, {n}]");
    if let Elements::Blocks(blocks) = product.b {
        let (row, numbers) =
            (if product.order == Order::RowMajor { n } else { k }, blocks.format().numbers());
        assert!(row.is_multiple_of(numbers), "a row of {row} is no whole {:?} blocks", blocks.format());
    }
    let Epilogue { bias, residual } = product.epilogue;
    assert!(bias.is_none_or(|x| x.len() == n), "the bias is [{n}]");
    assert!(residual.is_none_or(|x| x.len() == m * n), "the residual is [{m}, {n}]");
    if m == 0 || n == 0 {
        return;
    }
    if m <= few_rows::MOST_ROWS {
        few_rows::run(isa, product, c);
    } else {
        blocked::run(isa, product, c);
    }
}

/// A number of a weight, widened to f32 as it is read.
trait Element: Copy + Send + Sync {
    /// The first `LANES` elements of `x`, widened. Panics when there are fewer.
    fn load<S: Simd>(s: S, x: &[Self]) -> S::V;
    /// The same number as f32.
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f32]) -> S::V {
        s.load(x)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f16]) -> S::V {
        s.load_f16(x)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        widen_f16(self.to_bits())
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[bf16]) -> S::V {
        s.load_bf16(x)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// Up to `LANES` elements of `x`, widened; the other lanes are zero.
#[inline(always)]
fn load_up_to<S: Simd, E: Element>(s: S, x: &[E]) -> S::V {
    if x.len() >= S::LANES {
        return E::load(s, x);
    }
    let mut lanes = [0.0; crate::simd::MAX_LANES];
    for (lane, &x) in lanes.iter_mut().zip(x) {
        *lane = x.widen();
    }
    s.load(&lanes)
}

/// The first `width` (or all) lanes of `v` to `out[..width]`.
#[inline(always)]
fn store_up_to<S: Simd>(s: S, v: S::V, out: &mut [f32]) {
    if out.len() >= S::LANES { s.store(v, out) } else { s.store_partial(v, out) }
}
