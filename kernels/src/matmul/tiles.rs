//! Which part of `C` is one task.
//!
//! A task owns a rectangle of `C`, as one slice per row, so that threads write side by side without `unsafe`. Those
//! lists of slices are allocated for every product. What is packed or rounded lies in memory that threads keep; only the
//! gradient of a weight allocates more, its transposed factor.

use std::ops::Range;

/// A rectangle of `C`.
pub(super) struct Tile<'c> {
    /// The first row.
    pub(super) row: usize,
    /// The first column.
    pub(super) col: usize,
    /// The panels of A that its rows are.
    pub(super) panels: Range<usize>,
    /// Its rows, all of the same width.
    pub(super) rows: Vec<&'c mut [f32]>,
}

impl Tile<'_> {
    /// How many columns it has.
    pub(super) fn width(&self) -> usize {
        self.rows[0].len()
    }
}

/// Cuts `c[m, n]` into rectangles of at most `width` columns; their rows, and the panels of these, are those of `bands`.
pub(super) fn cut(
    mut c: &mut [f32],
    n: usize,
    width: usize,
    bands: impl Iterator<Item = (Range<usize>, Range<usize>)>,
) -> Vec<Tile<'_>> {
    let mut tiles = Vec::new();
    for (rows, panels) in bands {
        let (band, rest) = c.split_at_mut(rows.len() * n);
        c = rest;
        let first = tiles.len();
        for col in (0..n).step_by(width) {
            tiles.push(Tile {
                row: rows.start,
                col,
                panels: panels.clone(),
                rows: Vec::with_capacity(rows.len()),
            });
        }
        for row in band.chunks_mut(n) {
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
