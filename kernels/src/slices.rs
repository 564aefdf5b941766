//! What the row-wise kernels share: vectors at the ragged end of a slice, and splitting a slice into tasks.

use rayon::prelude::*;

use crate::{
    Isa,
    simd::{MAX_LANES, Simd, SimdOp},
};

/// The vector at `x[i..]`; lanes past the end are zero.
#[inline(always)]
pub(crate) fn load<S: Simd>(s: S, x: &[f32], i: usize) -> S::V {
    let x = &x[i..];
    if x.len() >= S::LANES { s.load(x) } else { s.load_partial(x) }
}

/// The vector at `x[i..]`; lanes past the end are `fill`.
#[inline(always)]
pub(crate) fn load_or<S: Simd>(s: S, x: &[f32], i: usize, fill: f32) -> S::V {
    let x = &x[i..];
    if x.len() >= S::LANES {
        return s.load(x);
    }
    let mut padded = [fill; MAX_LANES];
    padded[..x.len()].copy_from_slice(x);
    s.load(&padded)
}

/// Writes the lanes of `v` that lie inside `out[i..]`.
#[inline(always)]
pub(crate) fn store<S: Simd>(s: S, v: S::V, out: &mut [f32], i: usize) {
    let out = &mut out[i..];
    if out.len() >= S::LANES { s.store(v, out) } else { s.store_partial(v, out) }
}

/// How many numbers one task works on: enough to pay for handing it to a thread, a multiple of every vector.
pub(crate) const TASK: usize = 1 << 14;

/// How many rows of `width` numbers one task works on.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

/// Runs every task, in parallel when there are several. How the work was cut must not depend on the threads.
pub(crate) fn run_all<O>(isa: Isa, tasks: impl Iterator<Item = O>)
where
    O: SimdOp<Output = ()> + Send,
{
    let mut tasks: Vec<O> = tasks.collect();
    match tasks.len() {
        0 | 1 => tasks.drain(..).for_each(|task| isa.run(task)),
        _ => tasks.into_par_iter().for_each(|task| isa.run(task)),
    }
}

/// The number of rows of width `width` in `len` numbers. Panics when it does not come out even.
pub(crate) fn n_rows(len: usize, width: usize) -> usize {
    if len == 0 {
        return 0;
    }
    assert!(width > 0 && len.is_multiple_of(width), "{len} numbers are no whole rows of {width}");
    len / width
}
