//! A number per head and distance that is added to the scores: relative positions.
//!
//! The queries of a tile are neighbours in the batch, so their positions are a few runs that count up by one. Along a run
//! the numbers of one key are neighbours in the table, so they are copied, not looked up one by one. They are copied to
//! where the scores will be, and the product adds itself to them: no buffer of their own, and nothing to do without them.
//!
//! Source: Shaw et al. 2018, "Self-Attention with Relative Position Representations"; Raffel et al. 2020 (T5) for a
//! scalar per head.

use std::ops::Range;

use super::visible::TILE;

/// `score[h][i][j] += table[h][query_positions[i] - key_positions[j]]`
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a> {
    /// Position of each query in its sequence.
    pub query_positions: &'a [u32],
    /// Position of each key in its sequence.
    pub key_positions: &'a [u32],
    /// `[H, 2 * reach + 1]`: by head, a number for each distance `query - key` from `-reach` to `reach`. What is farther
    /// gets the outermost.
    pub table: &'a [f32],
}

impl<'a> Bias<'a> {
    /// Panics when the sizes do not fit the heads, queries and keys.
    pub(super) fn check(&self, n_heads: usize, n_queries: usize, n_keys: usize) {
        let numbers = (self.query_positions.len(), self.key_positions.len());
        assert_eq!(numbers, (n_queries, n_keys), "positions of queries and keys");
        let width = self.table.len() / n_heads;
        assert!(
            width % 2 == 1 && width * n_heads == self.table.len(),
            "the table has an odd width for each head"
        );
    }

    /// The numbers of one head, and how many of them lie on each side of distance zero.
    pub(super) fn of_head(&self, head: usize, n_heads: usize) -> (&'a [f32], i64) {
        let width = self.table.len() / n_heads;
        (&self.table[head * width..][..width], width as i64 / 2)
    }

    /// Writes the numbers of one head for a tile of queries and some keys: a row of [`TILE`] per key, a lane per query.
    pub(super) fn fill(&self, of_head: (&[f32], i64), tile: &Range<usize>, keys: &[u32], out: &mut [f32]) {
        let queries = &self.query_positions[tile.clone()];
        let mut first = 0;
        for run in queries.chunk_by(|a, b| a + 1 == *b) {
            for (&j, row) in keys.iter().zip(out.chunks_exact_mut(TILE)) {
                let distance = i64::from(run[0]) - i64::from(self.key_positions[j as usize]);
                copy_clamped(of_head, distance, &mut row[first..first + run.len()]);
            }
            first += run.len();
        }
    }
}

/// `out[i] = table[distance + i]`, where beyond the ends of the table its last number goes on.
fn copy_clamped((table, reach): (&[f32], i64), distance: i64, out: &mut [f32]) {
    let last = table.len() - 1;
    let first = distance + reach;
    let before = first.saturating_neg().clamp(0, out.len() as i64) as usize;
    let within = (table.len() as i64 - first).clamp(before as i64, out.len() as i64) as usize;
    out[..before].fill(table[0]);
    if before < within {
        let from = (first + before as i64) as usize;
        out[before..within].copy_from_slice(&table[from..from + within - before]);
    }
    out[within..].fill(table[last]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_table_its_last_number_goes_on() {
        let table = [1.0, 2.0, 3.0, 4.0, 5.0];
        for distance in -12..12 {
            for n in 0..9 {
                let mut out = vec![f32::NAN; n];
                copy_clamped((&table, 2), distance, &mut out);
                let expected: Vec<f32> =
                    (0..n as i64).map(|i| table[((distance + i).clamp(-2, 2) + 2) as usize]).collect();
                assert_eq!(out, expected, "{distance} {n}");
            }
        }
    }
}
