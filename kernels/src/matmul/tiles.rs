//! Which part of `C` is one task.
//!
//! A task owns a rectangle of `C`, as one slice per row, so that threads write side by side without `unsafe`. Those
//! lists of slices are the only allocation of a product.

use super::Size;

/// A rectangle of `C`.
pub(super) struct Tile<'c> {
    /// The first row.
    pub(super) row: usize,
    /// The first column.
    pub(super) col: usize,
    /// Its rows, all of the same width.
    pub(super) rows: Vec<&'c mut [f32]>,
}

impl Tile<'_> {
    /// How many columns it has.
    pub(super) fn width(&self) -> usize {
        self.rows[0].len()
    }
}

/// Cuts `c[m, n]` into rectangles of at most `height` by `width`.
pub(super) fn cut(c: &mut [f32], size: Size, height: usize, width: usize) -> Vec<Tile<'_>> {
    let per_band = size.n.div_ceil(width);
    let mut tiles = Vec::with_capacity(per_band * size.m.div_ceil(height));
    for (band, c) in c.chunks_mut(height * size.n).enumerate() {
        let first = tiles.len();
        let n_rows = c.len() / size.n;
        for i in 0..per_band {
            tiles.push(Tile { row: band * height, col: i * width, rows: Vec::with_capacity(n_rows) });
        }
        for row in c.chunks_mut(size.n) {
            for (tile, piece) in tiles[first..].iter_mut().zip(row.chunks_mut(width)) {
                tile.rows.push(piece);
            }
        }
    }
    tiles
}

/// A multiple of `step` between `step` and `most` that gives about `tasks` pieces of `n`.
pub(super) fn width_for(n: usize, tasks: usize, step: usize, most: usize) -> usize {
    n.div_ceil(tasks).next_multiple_of(step).clamp(step, most)
}
