//! Launches that go over rows, which many operations share.

use super::{Arg, Failed, Launch, Launcher, Slice, SliceMut};

/// The kernel of two widths, and the numbers a thread takes at one time: 4 where the rows and addresses allow it, as 16 bytes
/// are what the memory of a GPU is best asked for, else 1.
pub(crate) fn by_width(row: usize, [one, four]: [&'static str; 2], slices: &[Arg]) -> (&'static str, usize) {
    let aligned = slices.iter().all(|Arg(address)| address.is_multiple_of(16));
    if aligned && row.is_multiple_of(4) { (four, 4) } else { (one, 1) }
}

/// A launch of one thread for each vector of `n` numbers, which `slices` have each.
pub(crate) fn number_by_number(
    file: &'static str,
    kernels: [&'static str; 2],
    n: usize,
    slices: &[Arg],
) -> Launch {
    // the kernels take what is left over one by one, so only the addresses matter
    let (name, vector) = by_width(0, kernels, slices);
    Launch::new(file, name, n.div_ceil(vector * 256), 256)
}

/// A launch of one block per row, with about four vectors per thread.
pub(crate) fn block_per_row(
    file: &'static str,
    kernels: [&'static str; 2],
    (rows, width): (usize, usize),
    slices: &[Arg],
) -> Launch {
    let (name, vector) = by_width(width, kernels, slices);
    let threads = width.div_ceil(4 * vector).next_multiple_of(32).clamp(32, 1024);
    Launch::new(file, name, rows, threads as u32)
}

/// How a sum over the rows is cut: slabs of rows are summed by blocks of their own, and then the slabs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slabs {
    /// How many there are.
    pub n: usize,
    /// Rows of each but the last.
    pub rows: usize,
}

impl Slabs {
    /// Of `rows` rows: at most 64 slabs, of at least 32 rows each. It depends on nothing else, so neither does the order of the
    /// sum.
    pub fn of(rows: usize) -> Slabs {
        let per_slab = rows.div_ceil(64).max(32);
        Slabs { n: rows.div_ceil(per_slab), rows: per_slab }
    }
}

/// A launch of blocks of 32 columns and 8 lines, one per slab and 32 columns of `width`.
pub(crate) fn columns_of_slabs(file: &'static str, name: &'static str, slabs: Slabs, width: usize) -> Launch {
    let mut launch = Launch::new(file, name, width.div_ceil(32), 32).rows(slabs.n);
    launch.block[1] = 8;
    launch
}

/// `out[C] = Σ_slab partial[slab, C]`, in their order.
///
/// # Errors
/// The launch failed. Panics when the sizes do not fit together.
pub(crate) fn sum_slabs(
    gpu: &dyn Launcher,
    slabs: Slabs,
    partial: Slice<f32>,
    out: SliceMut<f32>,
) -> Result<(), Failed> {
    let n = out.len();
    assert_eq!(partial.len(), slabs.n * n, "one sum per slab");
    if n == 0 {
        return Ok(());
    }
    let launch = Launch::new("sums", "sum_slabs", n.div_ceil(256), 256);
    let launch = launch.arg(partial).arg(out).size(slabs.n).size(n);
    // SAFETY: the kernel's parameters, and the sizes that it assumes
    unsafe { launch.on(gpu) }
}
