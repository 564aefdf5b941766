//! From the triple loop to the kernel, a rung at a time: what each idea is worth. `kernels/README.md` explains them.

// Loops that run up to a constant are unrolled, and what they index stays in registers.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;
use std::time::Duration;

use kernels::Isa;
use kernels::matmul::{self, Elements, Epilogue, Layout, Precision, Weight, reference};
use kernels::testing::{Tolerance, close};

use crate::ceilings::{Arithmetic, Threads, operations_per_second};
use crate::clock::Times;
use crate::data;
use crate::report::percent;

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
    /// How fast it is; nothing where this CPU lacks the instruction set.
    pub rate: Option<Rate>,
}

/// The best of several rounds.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Operations per second, in 10⁹.
    pub gflops: f64,
    /// Share of what tier and threads can do at most.
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

const ROWS: usize = 4;
const COLUMNS: usize = 8;

/// 4 × 8 sums that are not written before they are complete: each number loaded is used several times. Strips of `B` that
/// are one tile wide meet all rows of `A` before the next one, so that a strip stays in a cache.
fn tiled(size: Size, a: &[f32], b: &[f32], c: &mut [f32]) {
    let Size { m, k, n } = size;
    for j in (0..n).step_by(COLUMNS) {
        for i in (0..m).step_by(ROWS) {
            if i + ROWS > m || j + COLUMNS > n {
                edge(size, (a, b), c, (i..m.min(i + ROWS), j..n.min(j + COLUMNS)));
                continue;
            }
            let rows = std::array::from_fn(|r| &a[(i + r) * k..(i + r + 1) * k]);
            for (r, sums) in tile(rows, &b[j..], n).iter().enumerate() {
                c[(i + r) * n + j..][..COLUMNS].copy_from_slice(sums);
            }
        }
    }
}

/// A whole tile. The compiler knows every size but `k`, so it unrolls the inner loops and keeps the sums in registers.
fn tile(a: [&[f32]; ROWS], b: &[f32], n: usize) -> [[f32; COLUMNS]; ROWS] {
    let mut sums = [[0.0; COLUMNS]; ROWS];
    for (p, b) in b.chunks(n).enumerate().take(a[0].len()) {
        let b: &[f32; COLUMNS] = b.first_chunk().expect("a whole tile");
        for r in 0..ROWS {
            let a = a[r][p];
            for j in 0..COLUMNS {
                sums[r][j] += a * b[j];
            }
        }
    }
    sums
}

/// What is left over at the ends of rows and columns.
fn edge(
    Size { k, n, .. }: Size,
    (a, b): (&[f32], &[f32]),
    c: &mut [f32],
    (rows, columns): (Range<usize>, Range<usize>),
) {
    for i in rows {
        for j in columns.clone() {
            c[i * n + j] = (0..k).map(|p| a[i * k + p] * b[p * n + j]).sum();
        }
    }
}

/// The kernel on one thread is a rung for each of these.
const TIERS: &[&str] = if cfg!(target_arch = "x86_64") {
    &["portable", "avx2", "avx512"]
} else if cfg!(target_arch = "aarch64") {
    &["portable", "neon"]
} else {
    &["portable"]
};

/// What every rung multiplies, and the right result.
struct Problem {
    size: Size,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    at_least: Duration,
}

impl Problem {
    fn new(size: Size, at_least: Duration, stored: impl Fn(f32) -> f32) -> Problem {
        let Size { m, k, n } = size;
        let scale = (k as f32).sqrt().recip();
        let [a, b] = [data::normals(1, m * k, 1.0), data::normals(2, k * n, scale)]
            .map(|x| x.into_iter().map(&stored).collect::<Vec<f32>>());
        let mut c = vec![0.0; m * n];
        triple_loop(size, &a, &b, &mut c);
        Problem { size, a, b, c, at_least }
    }

    /// Checks `run`, and then times it in turns with the peak.
    fn time(
        &self,
        name: &str,
        (isa, arithmetic, threads): (Isa, Arithmetic, Threads),
        mut run: impl FnMut(&mut [f32]),
    ) -> Result<Option<Rate>, String> {
        let Size { m, k, n } = self.size;
        let mut c = vec![f32::NAN; m * n];
        run(&mut c);
        close(&c, &self.c, Tolerance::both(1e-3)).map_err(|why| format!("{name}: {why}"))?;
        let (mut times, mut peak) = (Times::default(), 0f64);
        for _ in 0..3 {
            let per_second = operations_per_second(isa, arithmetic, threads).unwrap_or(0.0);
            peak = peak.max(per_second / 1e9);
            times.take(self.at_least, || run(&mut c));
        }
        let gflops = (2 * m * k * n) as f64 / times.best() / 1e9;
        Ok(Some(Rate { gflops, share: gflops / peak }))
    }

    /// The kernel of this workspace.
    fn kernel(&self, isa: Isa, precision: Precision, c: &mut [f32]) {
        let Size { k, n, .. } = self.size;
        let elements = Elements::F32(&self.b);
        let weight = Weight { elements, layout: Layout::InOut, n_in: k, n_out: n, precision };
        matmul::forward(isa, &self.a, weight, Epilogue::default(), c);
    }
}

/// Measures every rung that this CPU has, and names the others. Each is checked against the first before it is timed.
///
/// # Errors
/// A rung computes something else than the first.
pub fn measure(size: Size, at_least: Duration) -> Result<Vec<Rung>, String> {
    let available = Isa::available();
    let problem = Problem::new(size, at_least, |x| x);
    let mut rungs = Vec::new();
    for (name, kernel) in PLAIN {
        let on = (available[0], Arithmetic::F32, Threads::One);
        let rate = problem.time(name, on, |c| kernel(size, &problem.a, &problem.b, c))?;
        rungs.push(Rung { name, tier: available[0].name(), threads: 1, rate });
    }
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|e| e.to_string())?;
    for &tier in TIERS {
        let name = "packed panels, blocks of the caches";
        let rate = match available.iter().find(|isa| isa.name() == tier) {
            Some(&isa) => problem.time(name, (isa, Arithmetic::F32, Threads::One), |c| {
                alone.install(|| problem.kernel(isa, Precision::F32, c));
            })?,
            None => None,
        };
        rungs.push(Rung { name, tier, threads: 1, rate });
    }
    if cfg!(target_arch = "x86_64") {
        rungs.push(pairs_of_bf16(size, at_least, &alone)?);
    }
    let (name, isa, threads) = ("all threads, f32", Isa::best(), Threads::All);
    let rate =
        problem.time(name, (isa, Arithmetic::F32, threads), |c| problem.kernel(isa, Precision::F32, c))?;
    rungs.push(Rung { name, tier: isa.name(), threads: threads.count(), rate });
    Ok(rungs)
}

/// The rung of the instruction that multiplies pairs of bf16, where it exists. Its factors are bf16 to begin with, so that
/// the triple loop on them is right.
fn pairs_of_bf16(size: Size, at_least: Duration, alone: &rayon::ThreadPool) -> Result<Rung, String> {
    let name = "pairs of bf16";
    let has = |isa: &Isa| operations_per_second(*isa, Arithmetic::Bf16, Threads::One).is_some();
    let rate = match Isa::available().into_iter().find(has) {
        Some(isa) => {
            let problem = Problem::new(size, at_least, |x| half::bf16::from_f32(x).to_f32());
            problem.time(name, (isa, Arithmetic::Bf16, Threads::One), |c| {
                alone.install(|| problem.kernel(isa, Precision::Bf16, c));
            })?
        }
        None => None,
    };
    Ok(Rung { name, tier: "avx512bf16", threads: 1, rate })
}

/// The rungs as a table.
pub fn markdown(size: Size, rungs: &[Rung]) -> String {
    let mut out = format!(
        "`C[{}, {}] = A[{0}, {}] · B[{2}, {1}]`.\n\n| rung | compiled for | threads | GFLOP/s | share of the peak |\n|---|---|---|---|---|\n",
        size.m, size.n, size.k
    );
    for Rung { name, tier, threads, rate } in rungs {
        let rate = match rate {
            Some(Rate { gflops, share }) => format!("{gflops:.1} | {}", percent(*share)),
            None => "not on this CPU | ".into(),
        };
        out += &format!("| {name} | {tier} | {threads} | {rate} |\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_computes_the_product() {
        // not a multiple of the tile in any direction
        let rungs = measure(Size { m: 13, k: 35, n: 29 }, Duration::ZERO).expect("the same numbers");
        let measured = |rung: &&Rung| rung.rate.is_some_and(|rate| rate.gflops > 0.0);
        let names: Vec<_> = rungs.iter().filter(measured).map(|rung| (rung.name, rung.tier)).collect();
        let here = |tier: &&str| Isa::available().iter().any(|isa| isa.name() == *tier);
        let pairs = usize::from(here(&"avx512bf16"));
        assert_eq!(names.len(), PLAIN.len() + TIERS.iter().filter(|tier| here(tier)).count() + pairs + 1);
    }

    #[test]
    fn what_this_cpu_lacks_is_named() {
        let rungs = [
            Rung { name: "a", tier: "avx2", threads: 1, rate: Some(Rate { gflops: 50.0, share: 0.5 }) },
            Rung { name: "b", tier: "avx512", threads: 1, rate: None },
        ];
        let table = markdown(Size { m: 1, k: 2, n: 3 }, &rungs);
        assert!(
            table.contains("| a | avx2 | 1 | 50.0 | 50 % |\n| b | avx512 | 1 | not on this CPU |  |\n"),
            "{table}"
        );
    }
}
