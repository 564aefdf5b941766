//! Sums and scalings on the GPU: [`super`]'s functions, with slices of its memory.

use crate::{
    cuda::{Failed, Launch, Launcher, Slabs, Slice, SliceMut, rows},
    slices::n_rows,
};

const FILE: &str = "elementwise";

/// [`super::add`]
///
/// # Errors
/// The launch failed. Panics when the lengths differ.
pub fn add(gpu: &dyn Launcher, a: Slice<f32>, b: Slice<f32>, out: SliceMut<f32>) -> Result<(), Failed> {
    let n = out.len();
    assert_eq!((a.len(), b.len()), (n, n), "a and b");
    if n == 0 {
        return Ok(());
    }
    let slices = [a.into(), b.into(), out.read().into()];
    let launch =
        rows::number_by_number(FILE, ["add_x1", "add_x4"], n, &slices).arg(a).arg(b).arg(out).size(n);
    // SAFETY: the kernel's parameters, of one length
    unsafe { launch.on(gpu) }
}

/// [`super::accumulate`]
///
/// # Errors
/// The launch failed. Panics when the lengths differ.
pub fn accumulate(gpu: &dyn Launcher, x: Slice<f32>, acc: SliceMut<f32>) -> Result<(), Failed> {
    let n = acc.len();
    assert_eq!(x.len(), n, "x");
    if n == 0 {
        return Ok(());
    }
    let slices = [x.into(), acc.read().into()];
    let launch = rows::number_by_number(FILE, ["accumulate_x1", "accumulate_x4"], n, &slices);
    // SAFETY: the kernel's parameters, of one length
    unsafe { launch.arg(x).arg(acc).size(n).on(gpu) }
}

/// [`super::scale`]
///
/// # Errors
/// The launch failed. Panics when the lengths differ.
pub fn scale(gpu: &dyn Launcher, factor: f32, x: Slice<f32>, out: SliceMut<f32>) -> Result<(), Failed> {
    let n = out.len();
    assert_eq!(x.len(), n, "x");
    if n == 0 {
        return Ok(());
    }
    let slices = [x.into(), out.read().into()];
    let launch = rows::number_by_number(FILE, ["scale_x1", "scale_x4"], n, &slices);
    // SAFETY: the kernel's parameters, of one length
    unsafe { launch.arg(factor).arg(x).arg(out).size(n).on(gpu) }
}

/// [`super::sum_of_rows`]. `partial` is scratch memory of [`Slabs::of`]`(T).n * C` numbers.
///
/// # Errors
/// A launch failed. Panics when the sizes do not fit together.
pub fn sum_of_rows(
    gpu: &dyn Launcher,
    x: Slice<f32>,
    mut partial: SliceMut<f32>,
    out: SliceMut<f32>,
) -> Result<(), Failed> {
    let c = out.len();
    let t = n_rows(x.len(), c);
    let slabs = Slabs::of(t);
    assert_eq!(partial.len(), slabs.n * c, "C sums per slab");
    if c == 0 {
        return Ok(());
    }
    if t > 0 {
        let launch = rows::columns_of_slabs(FILE, "sum_of_rows", slabs, c).arg(x).arg(partial.lend());
        // SAFETY: the kernel's parameters, with the sizes checked above
        unsafe { launch.size(t).size(slabs.rows).size(c).on(gpu)? };
    }
    rows::sum_slabs(gpu, slabs, partial.read(), out)
}

/// How many parts [`sums_of_squares`] gives of `n` numbers: it depends on nothing else, so neither does the order of the sum.
pub fn squares(n: usize) -> usize {
    n.div_ceil(4096).min(1024)
}

/// The sum of squares of [`squares`]`(n)` parts of `x`, which together are [`super::sum_of_squares`].
///
/// # Errors
/// The launch failed. Panics when there is no room for so many parts.
pub fn sums_of_squares(gpu: &dyn Launcher, x: Slice<f32>, sums: SliceMut<f32>) -> Result<(), Failed> {
    let (n, parts) = (x.len(), squares(x.len()));
    assert_eq!(sums.len(), parts, "a sum per part");
    if n == 0 {
        return Ok(());
    }
    let launch = Launch::new(FILE, "sums_of_squares", parts, 256).arg(x).arg(sums).size(n);
    // SAFETY: the kernel's parameters, with the sizes checked above
    unsafe { launch.on(gpu) }
}
