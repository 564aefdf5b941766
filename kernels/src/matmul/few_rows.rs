//! Up to 8 rows: a weight is used so few times that reading it is the cost, so it is read once, where it lies, in the
//! order of memory.
//!
//! `B` stored as `n` rows of `k`: a dot product for each column. `B` stored as `k` rows of `n`: rows of `B`, times a
//! number of `A`, are added to rows of `C`, which stay in L1. Threads share out the columns.

use rayon::prelude::*;

use super::tiles::{self, Tile};
use super::{Element, Order, Product, Size, load_up_to, store_up_to};
use crate::Isa;
use crate::simd::{Simd, SimdOp};

/// Up to here this path is the faster one.
pub(super) const MOST_ROWS: usize = 8;
/// Fewer weights than this are not worth waking a thread for.
const SERIAL: usize = 1 << 16;
/// Rows of `B` added in one pass over a row of `C`.
const UNROLL: usize = 4;

/// `C = A · B + bias + residual`
pub(super) fn run<E: Element>(isa: Isa, product: Product<&[E]>, c: &mut [f32]) {
    let Size { m, k, n } = product.size;
    let tasks = if k * n <= SERIAL { 1 } else { 2 * rayon::current_num_threads() };
    let width = tiles::width_for(n, tasks, 64, 2048);
    let tiles = tiles::cut(c, product.size, m, width);
    let work = |tile: Tile| isa.run(Task { product, tile });
    if tasks == 1 {
        tiles.into_iter().for_each(work);
    } else {
        tiles.into_par_iter().for_each(work);
    }
}

struct Task<'a, 'c, E> {
    product: Product<'a, &'a [E]>,
    tile: Tile<'c>,
}

impl<E: Element> SimdOp for Task<'_, '_, E> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Task { product, mut tile } = self;
        match (product.order, tile.rows.len()) {
            (Order::Transposed, 1) => dots::<S, E, 1, 4>(s, &product, &mut tile),
            (Order::Transposed, 2) => dots::<S, E, 2, 4>(s, &product, &mut tile),
            (Order::Transposed, 3..=4) => dots::<S, E, 4, 2>(s, &product, &mut tile),
            (Order::Transposed, _) => dots::<S, E, 8, 1>(s, &product, &mut tile),
            (Order::RowMajor, _) => axpys(s, &product, &mut tile),
        }
        add_epilogue(s, &product, &mut tile);
    }
}

/// All columns of the tile, `COLS` at a time, for up to `ROWS` rows.
#[inline(always)]
fn dots<S: Simd, E: Element, const ROWS: usize, const COLS: usize>(s: S, product: &Product<&[E]>, tile: &mut Tile) {
    let k = product.size.k;
    // rows that are not there repeat the last one and are not stored
    let mut a = [product.a; ROWS];
    for (r, a) in a.iter_mut().enumerate() {
        let r = r.min(tile.rows.len() - 1);
        *a = &product.a[r * k..(r + 1) * k];
    }
    let width = tile.width();
    for j in (0..width).step_by(COLS) {
        let mut b = [product.b; COLS];
        for (c, b) in b.iter_mut().enumerate() {
            let column = tile.col + (j + c).min(width - 1);
            *b = &product.b[column * k..(column + 1) * k];
        }
        let sums = dot_tile::<S, E, ROWS, COLS>(s, a, b);
        for (row, sums) in tile.rows.iter_mut().zip(sums) {
            for (c, sum) in row[j..].iter_mut().zip(sums) {
                *c = sum;
            }
        }
    }
}

/// `ROWS` by `COLS` dot products. Each adds in the same order whatever `ROWS` and `COLS` are.
#[inline(always)]
fn dot_tile<S: Simd, E: Element, const ROWS: usize, const COLS: usize>(
    s: S,
    a: [&[f32]; ROWS],
    b: [&[E]; COLS],
) -> [[f32; COLS]; ROWS] {
    let k = a[0].len();
    let mut sums = [[s.splat(0.0); COLS]; ROWS];
    for p in (0..k).step_by(S::LANES) {
        let end = k.min(p + S::LANES);
        let mut b_p = [s.splat(0.0); COLS];
        for c in 0..COLS {
            b_p[c] = load_up_to(s, &b[c][p..end]);
        }
        for r in 0..ROWS {
            let a_p = load_up_to(s, &a[r][p..end]);
            for c in 0..COLS {
                sums[r][c] = s.mul_add(a_p, b_p[c], sums[r][c]);
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

/// Adds all rows of `B` to the tile, `UNROLL` at a time.
#[inline(always)]
fn axpys<S: Simd, E: Element>(s: S, product: &Product<&[E]>, tile: &mut Tile) {
    let Size { k, n, .. } = product.size;
    for row in &mut tile.rows {
        row.fill(0.0);
    }
    let width = tile.width();
    for p in (0..k).step_by(UNROLL) {
        // the last pass may have fewer rows; then the ones repeated here are left out below
        let mut b = [product.b; UNROLL];
        for (u, b) in b.iter_mut().enumerate() {
            let start = (p + u).min(k - 1) * n + tile.col;
            *b = &product.b[start..start + width];
        }
        let depth = UNROLL.min(k - p);
        for (r, row) in tile.rows.iter_mut().enumerate() {
            let start = r * k + p;
            let a = &product.a[start..start + depth];
            match a.first_chunk() {
                Some(a) => axpy_row::<S, E, UNROLL>(s, a, b, row),
                None => {
                    for (&a, b) in a.iter().zip(b) {
                        axpy_row::<S, E, 1>(s, &[a], [b], row);
                    }
                }
            }
        }
    }
}

/// `c += Σ_u a[u] b[u]`
#[inline(always)]
fn axpy_row<S: Simd, E: Element, const N: usize>(s: S, a: &[f32; N], b: [&[E]; N], c: &mut [f32]) {
    for j in (0..c.len()).step_by(S::LANES) {
        let end = c.len().min(j + S::LANES);
        let mut sum = load_up_to(s, &c[j..end]);
        for u in 0..N {
            sum = s.mul_add(s.splat(a[u]), load_up_to(s, &b[u][j..end]), sum);
        }
        store_up_to(s, sum, &mut c[j..end]);
    }
}

/// Adds bias and residual to the finished sums.
#[inline(always)]
fn add_epilogue<S: Simd, E: Element>(s: S, product: &Product<&[E]>, tile: &mut Tile) {
    let width = tile.width();
    for (r, row) in tile.rows.iter_mut().enumerate() {
        for term in product.epilogue_at(tile.row + r, tile.col, width).into_iter().flatten() {
            axpy_row::<S, f32, 1>(s, &[1.0], [term], row);
        }
    }
}
