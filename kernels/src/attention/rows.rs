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
