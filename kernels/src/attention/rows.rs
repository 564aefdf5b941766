//! Rows of numbers that need not lie next to each other, to read and to write.

/// Rows of `heads * head_dim` numbers that lie `stride` apart: a matrix, or a column range of a wider one.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Starts at the first number of row 0.
    pub data: &'a [f32],
    /// Distance between the starts of two rows.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// The `width` numbers of row `i` that start at column `column`.
    #[inline(always)]
    pub(super) fn part(self, i: usize, column: usize, width: usize) -> &'a [f32] {
        &self.data[i * self.stride + column..][..width]
    }

    /// Panics unless there are `n` rows of `width` numbers.
    pub(super) fn check(self, name: &str, n: usize, width: usize) {
        let Rows { data, stride } = self;
        let enough = n == 0 || (stride >= width && data.len() >= (n - 1) * stride + width);
        assert!(enough, "{name}: {} numbers, stride {stride}, are no {n} rows of {width}", data.len());
    }
}

/// Rows to be written. Threads write side by side without `unsafe`, because every row is a slice of its own.
#[derive(Debug, Default)]
pub struct RowsMut<'a> {
    rows: Vec<&'a mut [f32]>,
}

impl<'a> RowsMut<'a> {
    /// The rows of a matrix.
    pub fn of(matrix: &'a mut [f32], width: usize) -> RowsMut<'a> {
        matrix.chunks_exact_mut(width.max(1)).collect()
    }

    /// The rows of matrices that lie side by side in one, which has no other columns.
    pub fn side_by_side<const N: usize>(matrix: &'a mut [f32], widths: [usize; N]) -> [RowsMut<'a>; N] {
        let width: usize = widths.iter().sum();
        let n_rows = matrix.len() / width.max(1);
        let mut parts = widths.map(|_| RowsMut { rows: Vec::with_capacity(n_rows) });
        for mut row in matrix.chunks_exact_mut(width.max(1)) {
            for (part, width) in parts.iter_mut().zip(widths) {
                part.rows.push(row.split_off_mut(..width).expect("the widths add up"));
            }
        }
        parts
    }

    /// Only the rows `kept` (ascending); the others become zero, because nobody will write them.
    pub fn keep(self, kept: &[u32]) -> RowsMut<'a> {
        let mut kept = kept.iter().peekable();
        let mut stays = |(i, row): &mut (usize, &'a mut [f32])| {
            let stays = kept.next_if(|&&k| k as usize == *i).is_some();
            if !stays {
                row.fill(0.0);
            }
            stays
        };
        let rows = self.rows.into_iter().enumerate();
        RowsMut { rows: rows.filter_map(|mut row| stays(&mut row).then_some(row.1)).collect() }
    }

    /// Panics unless there are `n` rows of `width` numbers.
    pub(super) fn check(&self, name: &str, n: usize, width: usize) {
        let fits = self.rows.len() == n && self.rows.iter().all(|row| row.len() == width);
        assert!(fits, "{name}: {} rows are no {n} of {width}", self.rows.len());
    }

    /// Row `i`.
    #[inline(always)]
    pub(super) fn row(&mut self, i: usize) -> &mut [f32] {
        self.rows[i]
    }

    /// Every row zero.
    pub(super) fn zero(&mut self) {
        self.rows.iter_mut().for_each(|row| row.fill(0.0));
    }

    /// Cuts into rectangles: `heights` of consecutive rows (there may be none), each in `n_pieces` of `width` columns.
    pub(super) fn cut(
        self,
        heights: impl Iterator<Item = usize>,
        n_pieces: usize,
        width: usize,
    ) -> impl Iterator<Item = RowsMut<'a>> {
        let mut rows = self.rows.into_iter();
        heights.flat_map(move |height| {
            let empty = || RowsMut { rows: Vec::with_capacity(height) };
            let mut pieces: Vec<RowsMut> = std::iter::repeat_with(empty).take(n_pieces).collect();
            for row in rows.by_ref().take(height) {
                for (piece, part) in pieces.iter_mut().zip(row.chunks_mut(width)) {
                    piece.rows.push(part);
                }
            }
            pieces
        })
    }
}

impl<'a> FromIterator<&'a mut [f32]> for RowsMut<'a> {
    fn from_iter<I: IntoIterator<Item = &'a mut [f32]>>(rows: I) -> Self {
        RowsMut { rows: rows.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_belongs_to_one_piece() {
        let mut matrix = [0.0; 5 * 7];
        let [left, right] = RowsMut::side_by_side(&mut matrix, [4, 3]);
        for (rows, factor) in [(left, 1.0), (right, 10.0)] {
            let width = if factor == 1.0 { 2 } else { 3 };
            let n_pieces = if factor == 1.0 { 2 } else { 1 };
            let pieces: Vec<RowsMut> = rows.cut([2, 0, 3].into_iter(), n_pieces, width).collect();
            assert_eq!(pieces.len(), 3 * n_pieces);
            for (i, piece) in pieces.into_iter().enumerate() {
                piece.rows.into_iter().for_each(|row| row.fill(factor * (i + 1) as f32));
            }
        }
        assert_eq!(matrix[..7], [1.0, 1.0, 2.0, 2.0, 10.0, 10.0, 10.0]);
        assert_eq!(matrix[28..], [5.0, 5.0, 6.0, 6.0, 30.0, 30.0, 30.0]);
    }

    #[test]
    fn rows_that_are_not_kept_become_zero() {
        let mut matrix = [1.0; 8];
        let mut kept = RowsMut::of(&mut matrix, 2).keep(&[1, 2]);
        kept.check("kept", 2, 2);
        kept.row(1).fill(5.0);
        assert_eq!(matrix, [0.0, 0.0, 1.0, 1.0, 5.0, 5.0, 0.0, 0.0]);
    }
}
