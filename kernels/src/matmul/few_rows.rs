//! Up to 8 rows: a weight is used so few times that reading it is the cost, so it is read once, where it lies, in the
//! order of memory.
//!
//! `B` stored as `n` rows of `k`: a dot product for each column. `B` stored as `k` rows of `n`: rows of `B`, times a
//! number of `A`, are added to rows of `C`, which stay in L1. Threads share out the columns.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::arithmetic::{Arithmetic, Exact, Rounded};
use super::tiles::{self, Tile};
use super::{Element, Elements, Order, Precision, Product, Size, few_blocks, load_up_to, store_up_to};
use crate::Isa;
use crate::floats::{Floats, with_scratch};
use crate::simd::portable::round_bf16;
use crate::simd::{Simd, SimdOp};

/// Up to here this path is the faster one. It still is at 16 rows of weights stored as `[out, in]`, but a text of that
/// length alone would then be summed in another order than in a batch.
pub(super) const MOST_ROWS: usize = 8;
/// Fewer weights than this are not worth waking a thread for.
const SERIAL: usize = 1 << 16;
/// Rows of `B` that are added to `C` in one pass over it.
pub(super) const DEPTH: usize = 16;
/// How far ahead a row of `B` is asked for: there are `DEPTH` of them at once.
const ROW_AHEAD: usize = 256;
/// How far ahead the columns are asked for where they are stored one after the other.
const COLUMN_AHEAD: usize = 1024;

thread_local! {
    static ROUNDED: RefCell<Floats> = RefCell::default();
}

/// `C = A · B + bias + residual`
pub(super) fn run(isa: Isa, product: Product, c: &mut [f32]) {
    if product.precision == Precision::F32 {
        return run_tasks(isa, product, c);
    }
    with_scratch(&ROUNDED, [product.a.len()], |[rounded]| {
        rounded.iter_mut().zip(product.a).for_each(|(rounded, &a)| *rounded = round_bf16(a));
        run_tasks(isa, Product { a: rounded, ..product }, c);
    });
}

/// The same with `A` as it is.
fn run_tasks(isa: Isa, product: Product, c: &mut [f32]) {
    let Size { m, k, n } = product.size;
    let tasks = if k * n <= SERIAL { 1 } else { 2 * rayon::current_num_threads() };
    let width = tiles::width_for(n, tasks, 64, 2048);
    let tiles = tiles::cut(c, n, width, std::iter::once((0..m, 0..1)));
    let work = |tile: Tile| isa.run(Task { product, tile });
    if tasks == 1 {
        tiles.into_iter().for_each(work);
    } else {
        tiles.into_par_iter().for_each(work);
    }
}

struct Task<'a, 'c> {
    product: Product<'a>,
    tile: Tile<'c>,
}

impl SimdOp for Task<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Task { product, mut tile } = self;
        if product.size.k == 0 {
            tile.rows.iter_mut().for_each(|row| row.fill(0.0));
        }
        match (product.b, product.precision) {
            (Elements::F32(b), Precision::F32) => multiply::<S, _, Exact>(s, &product, b, &mut tile),
            (Elements::F16(b), Precision::F32) => multiply::<S, _, Exact>(s, &product, b, &mut tile),
            (Elements::F32(b), Precision::Bf16) => multiply::<S, _, Rounded>(s, &product, b, &mut tile),
            (Elements::F16(b), Precision::Bf16) => multiply::<S, _, Rounded>(s, &product, b, &mut tile),
            // already what it would be rounded to
            (Elements::Bf16(b), _) => multiply::<S, _, Exact>(s, &product, b, &mut tile),
            (Elements::Blocks(b), _) => few_blocks::multiply(s, &product, b, &mut tile),
        }
        add_epilogue(s, &product, &mut tile);
    }
}

/// The tile's part of `C = A · B`.
#[inline(always)]
fn multiply<S: Simd, E: Element, A: Arithmetic>(s: S, product: &Product, b: &[E], tile: &mut Tile) {
    let factors = Factors { a: product.a, b, size: product.size };
    match product.order {
        Order::Transposed => all_dots::<S, E, A>(s, &factors, tile),
        Order::RowMajor => axpys::<S, E, A>(s, product, b, tile),
    }
}

/// A vector of weights as they are multiplied; of the arithmetics whose words are single numbers.
#[inline(always)]
fn number<S: Simd, A: Arithmetic>(s: S, b: S::V) -> S::V {
    A::word(s, b, b)
}

/// `A[m, k]` and `B[k, n]`.
pub(super) struct Factors<'a, E> {
    pub(super) a: &'a [f32],
    pub(super) b: &'a [E],
    pub(super) size: Size,
}

/// All columns of the tile as dot products.
#[inline(always)]
pub(super) fn all_dots<S: Simd, E: Element, A: Arithmetic>(s: S, factors: &Factors<E>, tile: &mut Tile) {
    match (tile.rows.len(), S::REGISTERS) {
        (1, _) if size_of::<E>() == 2 => dots::<S, E, A, 1, 2>(s, factors, tile),
        (1, _) => dots::<S, E, A, 1, 1>(s, factors, tile),
        (2, _) => dots::<S, E, A, 2, 4>(s, factors, tile),
        (5.., 32) => dots::<S, E, A, 8, 3>(s, factors, tile),
        _ => dots::<S, E, A, 4, 3>(s, factors, tile),
    }
}

/// All columns of the tile, `COLS` at a time: while these are in L1, the rows take turns, `ROWS` at a time.
#[inline(always)]
fn dots<S: Simd, E: Element, A: Arithmetic, const ROWS: usize, const COLS: usize>(
    s: S,
    product: &Factors<E>,
    tile: &mut Tile,
) {
    let k = product.size.k;
    let (width, m) = (tile.width(), tile.rows.len());
    for j in (0..width).step_by(COLS) {
        let mut b = [product.b; COLS];
        for (c, b) in b.iter_mut().enumerate() {
            let column = tile.col + (j + c).min(width - 1);
            *b = &product.b[column * k..];
        }
        for first in (0..m).step_by(ROWS) {
            // rows that are not there repeat the last one and are not stored
            let mut a = [product.a; ROWS];
            for (r, a) in a.iter_mut().enumerate() {
                let r = (first + r).min(m - 1);
                *a = &product.a[r * k..(r + 1) * k];
            }
            let ahead = (first == 0).then_some(if ROWS <= 2 { COLUMN_AHEAD } else { COLS * k });
            let sums = dot_tile::<S, E, A, ROWS, COLS>(s, a, b, ahead);
            for (row, sums) in tile.rows[first..].iter_mut().zip(sums) {
                for (c, sum) in row[j..].iter_mut().zip(sums) {
                    *c = sum;
                }
            }
        }
    }
}

/// `ROWS` by `COLS` dot products; each `b` goes on into the columns after it, which are asked for so far `ahead`. Each
/// product adds in the same order whatever `ROWS` and `COLS` are.
#[inline(always)]
fn dot_tile<S: Simd, E: Element, A: Arithmetic, const ROWS: usize, const COLS: usize>(
    s: S,
    a: [&[f32]; ROWS],
    b: [&[E]; COLS],
    ahead: Option<usize>,
) -> [[f32; COLS]; ROWS] {
    let k = a[0].len();
    let whole = k - k % S::LANES;
    let mut sums = [[s.splat(0.0); COLS]; ROWS];
    for p in (0..whole).step_by(S::LANES) {
        let mut b_p = [s.splat(0.0); COLS];
        for c in 0..COLS {
            if let Some(ahead) = ahead {
                s.prefetch(&b[c][b[c].len().min(p + ahead)..]);
            }
            b_p[c] = number::<S, A>(s, E::load(s, &b[c][p..p + S::LANES]));
        }
        for r in 0..ROWS {
            let a_p = s.load(&a[r][p..p + S::LANES]);
            for c in 0..COLS {
                sums[r][c] = s.mul_add(a_p, b_p[c], sums[r][c]);
            }
        }
    }
    if whole < k {
        for c in 0..COLS {
            let b_p = number::<S, A>(s, load_up_to(s, &b[c][whole..k]));
            for r in 0..ROWS {
                sums[r][c] = s.mul_add(load_up_to(s, &a[r][whole..]), b_p, sums[r][c]);
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

/// All rows of `B`, `DEPTH` at a time, times numbers of `A`, are added to the tile.
#[inline(always)]
fn axpys<S: Simd, E: Element, A: Arithmetic>(s: S, product: &Product, b: &[E], tile: &mut Tile) {
    let Size { k, n, .. } = product.size;
    for p in (0..k).step_by(DEPTH) {
        let (band, columns) = (p..k.min(p + DEPTH), 0..tile.width());
        axpy_strips::<S, E, A>(s, product, band, (&b[p * n + tile.col..], n), tile, columns);
    }
}

/// Adds rows `band` of `B`, times numbers of `A`, to those columns of the tile. `b` begins at the first of both, and its
/// rows are so far apart.
#[inline(always)]
pub(super) fn axpy_strips<S: Simd, E: Element, A: Arithmetic>(
    s: S,
    product: &Product,
    band: Range<usize>,
    b: (&[E], usize),
    tile: &mut Tile,
    columns: Range<usize>,
) {
    match tile.rows.len() {
        1 => strips::<S, E, A, 1, 4>(s, product, band, b, tile, columns),
        2 => strips::<S, E, A, 2, 4>(s, product, band, b, tile, columns),
        3..=4 => strips::<S, E, A, 4, 2>(s, product, band, b, tile, columns),
        _ => strips::<S, E, A, 8, 2>(s, product, band, b, tile, columns),
    }
}

/// The columns, `NV` vectors at a time, then one.
#[inline(always)]
fn strips<S: Simd, E: Element, A: Arithmetic, const ROWS: usize, const NV: usize>(
    s: S,
    product: &Product,
    band: Range<usize>,
    (b, pitch): (&[E], usize),
    tile: &mut Tile,
    columns: Range<usize>,
) {
    let mut j = columns.start;
    while j < columns.end {
        let left = columns.end - j;
        let whole = left >= NV * S::LANES;
        let width = if whole { NV * S::LANES } else { S::LANES.min(left) };
        let (b, at) = ((&b[j - columns.start..], pitch), j..j + width);
        if whole {
            axpy_strip::<S, E, A, ROWS, NV>(s, product, band.clone(), b, tile, at);
        } else {
            axpy_strip::<S, E, A, ROWS, 1>(s, product, band.clone(), b, tile, at);
        }
        j += width;
    }
}

/// Adds rows `band` of `B` to columns of the tile: `NV` vectors, or less than one.
#[inline(always)]
fn axpy_strip<S: Simd, E: Element, A: Arithmetic, const ROWS: usize, const NV: usize>(
    s: S,
    product: &Product,
    band: Range<usize>,
    (b, pitch): (&[E], usize),
    tile: &mut Tile,
    columns: Range<usize>,
) {
    let k = product.size.k;
    let last_row = tile.rows.len() - 1;
    // rows that are not there repeat the last one and are not stored
    let mut a = [product.a; ROWS];
    let mut sums = [[s.splat(0.0); NV]; ROWS];
    for r in 0..ROWS {
        let start = r.min(last_row) * k;
        a[r] = &product.a[start + band.start..start + band.end];
        if band.start > 0 {
            let c = &tile.rows[r.min(last_row)][columns.clone()];
            for v in 0..NV {
                sums[r][v] = load_up_to(s, &c[v * S::LANES..]);
            }
        }
    }
    for p in 0..band.len() {
        let row = &b[p * pitch..];
        s.prefetch(&row[row.len().min(ROW_AHEAD)..]);
        let row = &row[..columns.len()];
        let mut b_row = [s.splat(0.0); NV];
        for v in 0..NV {
            b_row[v] = number::<S, A>(s, load_up_to(s, &row[v * S::LANES..]));
        }
        for r in 0..ROWS {
            let a = s.splat(a[r][p]);
            for v in 0..NV {
                sums[r][v] = s.mul_add(a, b_row[v], sums[r][v]);
            }
        }
    }
    for r in 0..ROWS {
        if r <= last_row {
            let c = &mut tile.rows[r][columns.clone()];
            for v in 0..NV {
                let end = c.len().min((v + 1) * S::LANES);
                store_up_to(s, sums[r][v], &mut c[v * S::LANES..end]);
            }
        }
    }
}

/// Adds bias and residual to the finished sums.
#[inline(always)]
fn add_epilogue<S: Simd>(s: S, product: &Product, tile: &mut Tile) {
    let width = tile.width();
    for (r, row) in tile.rows.iter_mut().enumerate() {
        for term in product.epilogue_at(tile.row + r, tile.col, width).into_iter().flatten() {
            for (c, term) in row.chunks_mut(S::LANES).zip(term.chunks(S::LANES)) {
                store_up_to(s, s.add(load_up_to(s, c), load_up_to(s, term)), c);
            }
        }
    }
}
