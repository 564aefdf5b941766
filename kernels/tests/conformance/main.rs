//! Every kernel on every instruction set, and on the GPU or in its place, against its reference, from one table of cases per operation.
//!
//! The chain of proof: a hand-computed case and finite differences (in f64) check the reference; the reference, in
//! f64 on the same inputs, checks the kernels. Matrix products have a suite of their own.

mod activation;
mod attention;
#[cfg(feature = "cuda")]
mod attention_bf16;
mod attention_nan;
mod cross_entropy;
mod device;
mod elementwise;
#[cfg(feature = "cuda")]
mod faults;
#[cfg(feature = "cuda")]
mod gather;
mod gradients;
mod norms;
mod optim;
mod rope;
mod threads;
#[cfg(feature = "cuda")]
mod unaligned;

use std::fmt::Debug;

use prompt_tuning_kernels::{
    Isa,
    testing::{Rng, Tolerance, close},
};

/// Runs `check` for every instruction set and case, and shows the first three failures.
fn suite<C: Debug>(cases: &[C], check: impl Fn(Isa, &C) -> Result<(), String>) {
    let mut failures = Vec::new();
    for isa in Isa::available() {
        for case in cases {
            if let Err(why) = check(isa, case) {
                failures.push(format!("{} {case:?}: {why}", isa.name()));
            }
        }
    }
    let n = failures.len();
    failures.truncate(3);
    assert!(n == 0, "{n} failures, the first:\n{}", failures.join("\n"));
}

/// Lengths around every vector size, of real rows, and of several tasks.
fn lengths() -> Vec<usize> {
    let around = [31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129];
    (0..=20).chain(around).chain([768, 16_384, 16_385, 40_000]).collect()
}

/// Random numbers of which the first is 0.7, so that no case is zero throughout.
fn normals(seed: u64, n: usize) -> Vec<f32> {
    let mut x = Rng(seed).normals(n);
    x.iter_mut().take(1).for_each(|x| *x = 0.7);
    x
}

fn to_f64(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// [`close`], or where zero is the right answer throughout: within the absolute bound of it.
fn close_or_zero(actual: &[f32], expected: &[f64], tol: Tolerance) -> Result<(), String> {
    let is_zero = |x: f64| x.abs() <= tol.absolute;
    if actual.len() == expected.len() && expected.iter().all(|&e| e == 0.0) {
        return match actual.iter().find(|&&a| !is_zero(a.into())) {
            Some(a) => Err(format!("{a:e}, expected zero")),
            None => Ok(()),
        };
    }
    close(actual, expected, tol)
}

/// `label` in front of the error.
fn named(label: &str, result: Result<(), String>) -> Result<(), String> {
    result.map_err(|why| format!("{label}: {why}"))
}

/// The scalar whose gradient with respect to `a` is `b`.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
