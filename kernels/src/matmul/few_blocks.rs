//! Few rows times quantised weights: as [`super::few_rows`], with the same bits as the widened weight would give.
//!
//! Reading is still the cost, of fewer bytes. Where columns lie one after the other, they are widened in registers, sixteen
//! numbers at a time. Elsewhere a piece is widened in L1 and multiplied there: a row of `B` gives one product for each
//! number, which does not pay for unpacking scales again and again; and rounded products are not worth code of their own.

use std::cell::RefCell;

use super::arithmetic::{Exact, Rounded};
use super::few_rows::{self, DEPTH, Factors, axpy_strips};
use super::tiles::Tile;
use super::{Order, Precision, Product};
use crate::blocks::{Blocks, Format, FormatOp, Widen};
use crate::floats::Floats;
use crate::simd::Simd;

/// How many bytes ahead a column is asked for.
const AHEAD: usize = 1024;
/// Columns that are widened at one time where rows of `B` lie one after the other: with [`DEPTH`] rows, half of L1.
const PIECE: usize = 256;
/// The same where columns do: they take turns in threes and fours.
const COLUMNS: usize = 12;

/// The tile's part of `C = A · B`.
#[inline(always)]
pub(super) fn multiply<S: Simd>(s: S, product: &Product, blocks: Blocks, tile: &mut Tile) {
    match (product.order, product.precision) {
        (Order::Transposed, Precision::F32) => blocks.format().run(Dots { s, product, blocks, tile }),
        (Order::Transposed, Precision::Bf16) => rounded_dots(s, product, blocks, tile),
        (Order::RowMajor, _) => axpys(s, product, blocks, tile),
    }
}

struct Dots<'a, 'b, 'c, S> {
    s: S,
    product: &'b Product<'a>,
    blocks: Blocks<'a>,
    tile: &'b mut Tile<'c>,
}

impl<S: Simd> FormatOp for Dots<'_, '_, '_, S> {
    type Output = ();
    #[inline(always)]
    fn eval<F: Format>(self) {
        let Dots { s, product, blocks, tile } = self;
        let b = F::blocks(blocks.bytes());
        match tile.rows.len() {
            1 => dots::<S, F, 1, 4>(s, product, b, tile),
            _ => dots::<S, F, 4, 2>(s, product, b, tile),
        }
    }
}

/// All columns of the tile, `COLS` at a time: while these are in L1, the rows take turns, `ROWS` at a time.
#[inline(always)]
fn dots<S: Simd, F: Format, const ROWS: usize, const COLS: usize>(
    s: S,
    product: &Product,
    b: &[F::Block],
    tile: &mut Tile,
) {
    let k = product.size.k;
    let per_column = k / F::NUMBERS;
    let (width, m) = (tile.width(), tile.rows.len());
    for j in (0..width).step_by(COLS) {
        // columns that are not there repeat the last one and are not stored; so do rows
        let mut columns = [b; COLS];
        for (c, column) in columns.iter_mut().enumerate() {
            *column = &b[(tile.col + (j + c).min(width - 1)) * per_column..];
        }
        for first in (0..m).step_by(ROWS) {
            let mut a = [product.a; ROWS];
            for (r, a) in a.iter_mut().enumerate() {
                let r = (first + r).min(m - 1);
                *a = &product.a[r * k..(r + 1) * k];
            }
            let sums = dot_tile::<S, F, ROWS, COLS>(s, a, columns, per_column, first == 0);
            for (row, sums) in tile.rows[first..].iter_mut().zip(sums) {
                for (c, sum) in row[j..].iter_mut().zip(sums) {
                    *c = sum;
                }
            }
        }
    }
}

/// `ROWS` by `COLS` dot products over `count` blocks; each `b` goes on into the columns after it, which are asked for
/// `ahead` of their use. The order of additions is that of the path for single numbers.
#[inline(always)]
fn dot_tile<S: Simd, F: Format, const ROWS: usize, const COLS: usize>(
    s: S,
    a: [&[f32]; ROWS],
    b: [&[F::Block]; COLS],
    count: usize,
    ahead: bool,
) -> [[f32; COLS]; ROWS] {
    let mut sums = [[s.splat(0.0); COLS]; ROWS];
    for i in 0..count {
        let mut heads = [F::head(s, &b[0][i]); COLS];
        for c in 0..COLS {
            if c > 0 {
                heads[c] = F::head(s, &b[c][i]);
            }
            if ahead {
                let bytes = size_of::<F::Block>();
                for line in 0..bytes.div_ceil(64) {
                    let at = i + (AHEAD + 64 * line) / bytes;
                    s.prefetch(&b[c][b[c].len().min(at)..]);
                }
            }
        }
        for g in 0..F::NUMBERS / 16 {
            let at = i * F::NUMBERS + 16 * g;
            for c in 0..COLS {
                let numbers = F::sixteen(s, &heads[c], &b[c][i], g).widen(s);
                for h in 0..16 / S::LANES {
                    for r in 0..ROWS {
                        sums[r][c] = s.mul_add(s.load(&a[r][at + h * S::LANES..]), numbers[h], sums[r][c]);
                    }
                }
            }
        }
    }
    let mut out = [[0.0; COLS]; ROWS];
    for r in 0..ROWS {
        for c in 0..COLS {
            out[r][c] = s.sum(sums[r][c]);
        }
    }
    out
}

thread_local! {
    static WIDE: RefCell<Floats> = RefCell::default();
}

/// Columns are widened, then multiplied.
#[inline(always)]
fn rounded_dots<S: Simd>(s: S, product: &Product, blocks: Blocks, tile: &mut Tile) {
    let k = product.size.k;
    // no closure: it would not be inlined, and so not be compiled for the instruction set
    let mut floats = WIDE.take();
    let [wide] = floats.pieces([COLUMNS * k]);
    for j in (0..tile.width()).step_by(COLUMNS) {
        let columns = j..tile.width().min(j + COLUMNS);
        s.call(Widen { blocks, from: (tile.col + j) * k, out: &mut wide[..columns.len() * k] });
        let rows = tile.rows.iter_mut().map(|row| &mut row[columns.clone()]).collect();
        let mut part = Tile { row: tile.row, col: 0, panels: 0..1, rows };
        let factors = Factors { a: product.a, b: &wide[..], size: product.size };
        few_rows::all_dots::<S, f32, Rounded>(s, &factors, &mut part);
    }
    WIDE.set(floats);
}

/// All rows of `B`, `DEPTH` at a time and a piece of each at a time, times numbers of `A`, are added to the tile.
#[inline(always)]
fn axpys<S: Simd>(s: S, product: &Product, blocks: Blocks, tile: &mut Tile) {
    let (k, n, width) = (product.size.k, product.size.n, tile.width());
    let mut wide = [0.0; DEPTH * PIECE];
    for p in (0..k).step_by(DEPTH) {
        let band = p..k.min(p + DEPTH);
        for j in (0..width).step_by(PIECE) {
            let columns = j..width.min(j + PIECE);
            for (row, out) in band.clone().zip(wide.chunks_exact_mut(PIECE)) {
                s.call(Widen { blocks, from: row * n + tile.col + j, out: &mut out[..columns.len()] });
            }
            let (band, b) = (band.clone(), (&wide[..], PIECE));
            match product.precision {
                Precision::F32 => axpy_strips::<S, f32, Exact>(s, product, band, b, tile, columns),
                Precision::Bf16 => axpy_strips::<S, f32, Rounded>(s, product, band, b, tile, columns),
            }
        }
    }
}
