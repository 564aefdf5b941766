//! Rows of a table of any dtype, widened to f32.
//!
//! `out = table[row]`. Backward, where a table is trained, its rows are summed: there is no arithmetic to do here.

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::Elements;

/// `out = table[row]` widened, where the table has rows of `out.len()` numbers.
///
/// Panics when the table has no whole rows of that width, or not that many.
pub fn row(table: Elements, row: usize, out: &mut [f32]) {
    let (len, width) = (table.len(), out.len());
    let rows = crate::slices::n_rows(len, width);
    assert!(row < rows, "row {row} of a table of {rows}");
    let range = row * width..(row + 1) * width;
    match table {
        Elements::Blocks(x) => x.widen(range.start, out),
        Elements::F32(x) => out.copy_from_slice(&x[range]),
        Elements::F16(x) => out.iter_mut().zip(&x[range]).for_each(|(out, x)| *out = x.to_f32()),
        Elements::Bf16(x) => out.iter_mut().zip(&x[range]).for_each(|(out, x)| *out = x.to_f32()),
    }
}

/// The specification.
pub mod reference {
    use crate::real::Real;

    /// Row `row` of `table`, whose rows have `width` numbers.
    pub fn row<R: Real>(table: &[R], row: usize, width: usize) -> Vec<R> {
        (0..width).map(|i| table[row * width + i]).collect()
    }
}
