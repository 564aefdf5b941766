//! What the row-wise kernels share: going over slices vector by vector, and splitting them into tasks.

use rayon::prelude::*;

use crate::{
    Isa,
    simd::{MAX_LANES, Simd, SimdOp},
};

/// What is done to one vector of each of `I` slices, with `O` results.
///
/// `acc` is what lies where the results go. A sum starts from it, and so does a map that accumulates; others ignore
/// it, and then it is not even loaded.
pub(crate) trait Step<const I: usize, const O: usize>: Copy + Send + Sync {
    fn step<S: Simd>(self, s: S, x: [S::V; I], acc: [S::V; O]) -> [S::V; O];
}

/// The results of another step, added to what is there.
#[derive(Clone, Copy)]
pub(crate) struct Added<F>(pub(crate) F);

impl<F: Step<I, O>, const I: usize, const O: usize> Step<I, O> for Added<F> {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, x: [S::V; I], mut acc: [S::V; O]) -> [S::V; O] {
        let new = self.0.step(s, x, acc);
        for (acc, new) in acc.iter_mut().zip(new) {
            *acc = s.add(*acc, new);
        }
        acc
    }
}

/// `out = f(x)`, vector by vector. Panics when `x` or `out` have a slice shorter than `out[0]`.
#[inline(always)]
pub(crate) fn map<S, F, const I: usize, const O: usize>(s: S, f: F, x: [&[f32]; I], mut out: [&mut [f32]; O])
where
    S: Simd,
    F: Step<I, O>,
{
    let n = out[0].len();
    // cut to one length, so that one bounds check serves all
    let x = x.map(|x| &x[..n]);
    for out in &mut out {
        *out = &mut std::mem::take(out)[..n];
    }
    let whole = n - n % S::LANES;
    for from in (0..whole).step_by(S::LANES) {
        map_vector(s, f, &x, &mut out, from, from + S::LANES);
    }
    if whole < n {
        map_vector(s, f, &x, &mut out, whole, n);
    }
}

#[inline(always)]
fn map_vector<S, F, const I: usize, const O: usize>(
    s: S,
    f: F,
    x: &[&[f32]; I],
    out: &mut [&mut [f32]; O],
    from: usize,
    to: usize,
) where
    S: Simd,
    F: Step<I, O>,
{
    let mut acc = [s.splat(0.0); O];
    for (acc, out) in acc.iter_mut().zip(out.iter()) {
        *acc = load(s, &out[from..to], 0);
    }
    let results = f.step(s, load_each(s, x, 0.0, from, to), acc);
    for (result, out) in results.into_iter().zip(out) {
        store(s, result, &mut out[from..to], 0);
    }
}

/// The vectors at `from..to` of each slice, at most `LANES` numbers; lanes past the end are `fill`.
#[inline(always)]
fn load_each<S: Simd, const I: usize>(s: S, x: &[&[f32]; I], fill: f32, from: usize, to: usize) -> [S::V; I] {
    let mut v = [s.splat(0.0); I];
    for (v, x) in v.iter_mut().zip(x) {
        *v = load_or(s, &x[from..to], 0, fill);
    }
    v
}

/// Sums side by side, so that an addition need not wait for the one before it.
const CHAINS: usize = 4;

/// `Σ f(x)` for each result of `f`, in a fixed order. Numbers past the end of the slices count as `fill`, which must
/// add nothing. Panics when a slice is shorter than the first.
#[inline(always)]
pub(crate) fn sums<S, F, const I: usize, const O: usize>(s: S, f: F, x: [&[f32]; I], fill: f32) -> [f32; O]
where
    S: Simd,
    F: Step<I, O>,
{
    let n = x[0].len();
    let block = CHAINS * S::LANES;
    let blocks = n - n % block;
    let mut chains = [[s.splat(0.0); O]; CHAINS];
    for i in (0..blocks).step_by(block) {
        for (c, acc) in chains.iter_mut().enumerate() {
            let from = i + c * S::LANES;
            *acc = f.step(s, load_each(s, &x, fill, from, from + S::LANES), *acc);
        }
    }
    for from in (blocks..n).step_by(S::LANES) {
        chains[0] = f.step(s, load_each(s, &x, fill, from, n.min(from + S::LANES)), chains[0]);
    }
    let mut sums = [0.0; O];
    for (o, sum) in sums.iter_mut().enumerate() {
        let [a, b, c, d] = chains.map(|chain| chain[o]);
        *sum = s.sum(s.add(s.add(a, b), s.add(c, d)));
    }
    sums
}

/// Asks for all of `x` ahead of its use.
#[inline(always)]
pub(crate) fn prefetch<S: Simd>(s: S, x: &[f32]) {
    const LINE: usize = 64 / size_of::<f32>();
    x.chunks(LINE).for_each(|line| s.prefetch(line));
}

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

/// [`map`] over whole slices, in tasks. Panics when the slices differ in length.
pub(crate) fn run_map<F, const I: usize, const O: usize>(isa: Isa, f: F, x: [&[f32]; I], out: [&mut [f32]; O])
where
    F: Step<I, O>,
{
    let n = out[0].len();
    let lengths = x.iter().map(|x| x.len()).chain(out.iter().map(|out| out.len()));
    assert!(
        lengths.clone().all(|len| len == n),
        "slices of one length, not of {:?}",
        lengths.collect::<Vec<_>>()
    );
    let mut chunks = out.map(|out| out.chunks_mut(TASK));
    let tasks = (0..n).step_by(TASK).map(|from| {
        let x = x.map(|x| &x[from..n.min(from + TASK)]);
        let out = chunks.each_mut().map(|chunks| chunks.next().expect("as many chunks as tasks"));
        Map { f, x, out }
    });
    run_all(isa, tasks);
}

struct Map<'a, F, const I: usize, const O: usize> {
    f: F,
    x: [&'a [f32]; I],
    out: [&'a mut [f32]; O],
}

impl<F: Step<I, O>, const I: usize, const O: usize> SimdOp for Map<'_, F, I, O> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        map(s, self.f, self.x, self.out);
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

/// What one row adds to sums over rows.
pub(crate) trait RowStep<const O: usize>: Copy + Send + Sync {
    /// Adds row `row` to `sums`, which have a number per column.
    fn add<S: Simd>(self, s: S, row: usize, sums: [&mut [f32]; O]);
}

/// `out = Σ_row f(row)` for columns: some rows are one task with sums of its own, and these are added up in order. How
/// the rows are cut does not depend on the threads.
pub(crate) fn sum_rows<F: RowStep<O>, const O: usize>(
    isa: Isa,
    f: F,
    n_rows: usize,
    mut out: [&mut [f32]; O],
) {
    const LEAST_ROWS: usize = 64;
    let width = out[0].len();
    out.iter_mut().for_each(|out| out.fill(0.0));
    if n_rows == 0 || width == 0 {
        return;
    }
    let n = rows_per_task(width).max(LEAST_ROWS);
    let mut partial = vec![0.0; n_rows.div_ceil(n) * O * width];
    let tasks = partial.chunks_mut(O * width).enumerate();
    run_all(isa, tasks.map(|(i, sums)| SumRows { f, rows: i * n..n_rows.min((i + 1) * n), width, sums }));
    for sums in partial.chunks_exact(O * width) {
        for (out, sums) in out.iter_mut().zip(sums.chunks_exact(width)) {
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
        }
    }
}

struct SumRows<'a, F, const O: usize> {
    f: F,
    rows: std::ops::Range<usize>,
    width: usize,
    /// One after the other.
    sums: &'a mut [f32],
}

impl<F: RowStep<O>, const O: usize> SimdOp for SumRows<'_, F, O> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let SumRows { f, rows, width, sums } = self;
        for row in rows {
            let mut parts = sums.chunks_exact_mut(width);
            f.add(s, row, std::array::from_fn(|_| parts.next().expect("as many sums as results")));
        }
    }
}
