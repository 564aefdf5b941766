//! From the triple loop to the kernel, a rung at a time: what each idea is worth. `kernels/README.md` explains them.

use std::time::Duration;

use kernels::Isa;
use kernels::matmul::{self, Elements, Epilogue, Layout, Precision, Weight, reference};
use kernels::testing::{Tolerance, close};

use crate::ceilings::{Arithmetic, Threads, operations_per_second};
use crate::clock::Times;
use crate::data;

/// `C[m, n] = A[m, k] · B[k, n]`, all row-major.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Rows of `C`.
    pub m: usize,
    /// Inner size.
    pub k: usize,
    /// Columns of `C`.
    pub n: usize,
}

/// A rung: its name, the tier it is compiled for, and its rate.
#[derive(Clone, Debug)]
pub struct Rung {
    /// What it is.
    pub name: &'static str,
    /// Instruction set.
    pub tier: &'static str,
    /// Threads.
    pub threads: usize,
    /// Operations per second, the best of several rounds, in 10⁹.
    pub gflops: f64,
    /// Share of the multiply-adds that its tier and threads can do.
    pub share: f64,
}

/// One way to compute the product.
type Kernel = fn(Size, &[f32], &[f32], &mut [f32]);

/// The rungs that the compiler turns into code for any CPU; one thread.
const PLAIN: [(&str, Kernel); 3] = [
    ("the triple loop", triple_loop),
    ("loops in the order of memory", in_order),
    ("a tile in registers", tiled),
];

/// The definition: every number of `C` walks down a column of `B`.
fn triple_loop(size: Size, a: &[f32], b: &[f32], c: &mut [f32]) {
    let shape = reference::Shape { layout: Layout::InOut, n_in: size.k, n_out: size.n };
    reference::forward(a, (b, shape), None, None, c);
}

/// The two inner loops exchanged: rows of `B` are added to a row of `C`, which the compiler does in vectors.
fn in_order(Size { k, n, .. }: Size, a: &[f32], b: &[f32], c: &mut [f32]) {
    for (a, c) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
        c.fill(0.0);
        for (&a, b) in a.iter().zip(b.chunks_exact(n)) {
            c.iter_mut().zip(b).for_each(|(c, &b)| *c += a * b);
        }
    }
}

/// 4 × 8 sums that are not written before they are complete: each number loaded is used several times.
fn tiled(Size { k, n, .. }: Size, a: &[f32], b: &[f32], c: &mut [f32]) {
    const ROWS: usize = 4;
    const COLUMNS: usize = 8;
    for (a, c) in a.chunks(ROWS * k).zip(c.chunks_mut(ROWS * n)) {
        let rows = a.len() / k;
        for j in (0..n).step_by(COLUMNS) {
            let width = COLUMNS.min(n - j);
            let mut sums = [[0.0; COLUMNS]; ROWS];
            for p in 0..k {
                let b = &b[p * n + j..p * n + j + width];
                for (sums, a) in sums.iter_mut().zip(a.chunks_exact(k)) {
                    sums.iter_mut().zip(b).for_each(|(sum, &b)| *sum += a[p] * b);
                }
            }
            for (r, sums) in sums.iter().enumerate().take(rows) {
                c[r * n + j..r * n + j + width].copy_from_slice(&sums[..width]);
            }
        }
    }
}

/// Measures every rung that this CPU has. Each is checked against the first before it is timed.
///
/// # Errors
/// A rung computes something else than the first.
pub fn measure(size: Size, at_least: Duration) -> Result<Vec<Rung>, String> {
    let Size { m, k, n } = size;
    let scale = (k as f32).sqrt().recip();
    let (a, b) = (data::normals(1, m * k, 1.0), data::normals(2, k * n, scale));
    let mut right = vec![0.0; m * n];
    triple_loop(size, &a, &b, &mut right);
    let mut rungs = Vec::new();
    let mut rung = |name, isa: Isa, threads: Threads, run: &mut dyn FnMut(&mut [f32])| {
        let mut c = vec![f32::NAN; m * n];
        run(&mut c);
        close(&c, &right, Tolerance::both(1e-3)).map_err(|why| format!("{name}: {why}"))?;
        let (mut times, mut peak) = (Times::default(), 0f64);
        for _ in 0..3 {
            let per_second = operations_per_second(isa, Arithmetic::F32, threads).unwrap_or(0.0);
            peak = peak.max(per_second / 1e9);
            times.take(at_least, || run(&mut c));
        }
        let gflops = (2 * m * k * n) as f64 / times.best() / 1e9;
        rungs.push(Rung { name, tier: isa.name(), threads: threads.count(), gflops, share: gflops / peak });
        Ok::<(), String>(())
    };
    let portable = Isa::available()[0];
    for (name, kernel) in PLAIN {
        rung(name, portable, Threads::One, &mut |c| kernel(size, &a, &b, c))?;
    }
    let weight = |precision| Weight {
        elements: Elements::F32(&b),
        layout: Layout::InOut,
        n_in: k,
        n_out: n,
        precision,
    };
    let run = |isa, c: &mut [f32]| matmul::forward(isa, &a, weight(Precision::F32), Epilogue::default(), c);
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|e| e.to_string())?;
    for isa in Isa::available() {
        let name = "packed panels, blocks of the caches";
        rung(name, isa, Threads::One, &mut |c| alone.install(|| run(isa, c)))?;
    }
    rung("all threads", Isa::best(), Threads::All, &mut |c| run(Isa::best(), c))?;
    Ok(rungs)
}

/// The rungs as a table.
pub fn markdown(size: Size, rungs: &[Rung]) -> String {
    let mut out = format!(
        "`C[{}, {}] = A[{0}, {}] · B[{2}, {1}]` in f32.\n\n| rung | compiled for | threads | GFLOP/s | share of the peak |\n|---|---|---|---|---|\n",
        size.m, size.n, size.k
    );
    for Rung { name, tier, threads, gflops, share } in rungs {
        out += &format!("| {name} | {tier} | {threads} | {gflops:.1} | {:.0} % |\n", 100.0 * share);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_computes_the_product() {
        let rungs = measure(Size { m: 13, k: 35, n: 29 }, Duration::ZERO).expect("the same numbers");
        assert_eq!(rungs.len(), PLAIN.len() + Isa::available().len() + 1);
        assert!(rungs.iter().all(|rung| rung.gflops > 0.0));
    }
}
