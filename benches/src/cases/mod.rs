//! Every kernel on the problems that matter: the sizes of GPT-2 small, in a training step of about 820 tokens and far
//! out of the caches.

mod activation;
mod attention;
mod cross_entropy;
mod elementwise;
mod embedding;
mod layer_norm;
mod matmul;
mod optim;
mod rms_norm;
mod rope;
mod weight_gradient;

use kernels::testing::{Tolerance, close};

use crate::case::Case;
use crate::data;

/// Width of GPT-2 small.
const WIDTH: usize = 768;
/// Vocabulary of GPT-2.
const VOCAB: usize = 50257;
/// Rows of a training step, which fit the caches of many machines, and rows that fit none.
const ROWS: [usize; 2] = [820, 16384];

/// What is computed of a norm.
#[derive(Clone, Copy, PartialEq)]
enum Norm {
    Forward,
    /// The gradient of the input.
    Backward,
    /// The same, added to what is there.
    Accumulate,
    /// The gradients of weight and bias.
    Parameters,
}

impl Norm {
    const ALL: [Norm; 4] = [Norm::Forward, Norm::Backward, Norm::Accumulate, Norm::Parameters];

    /// What is there before: `n` numbers that [`Norm::Accumulate`] adds to, none for the others.
    fn before(self, n: usize) -> Vec<f32> {
        data::normals(8, if self == Norm::Accumulate { n } else { 0 }, 1.0)
    }
}

/// Row `row` of what was there before, if anything was, and `d_x`.
fn added(before: &[f32], row: usize, d_x: Vec<f64>) -> Vec<f64> {
    match before {
        [] => d_x,
        _ => {
            d_x.iter().zip(rows_of(before, WIDTH, &[row])).map(|(d, before)| d + f64::from(before)).collect()
        }
    }
}

/// All cases, in the order of tables.
pub fn all() -> Vec<Case> {
    [
        matmul::cases(),
        weight_gradient::cases(),
        attention::cases(),
        layer_norm::cases(),
        rms_norm::cases(),
        activation::cases(),
        cross_entropy::cases(),
        rope::cases(),
        elementwise::cases(),
        embedding::cases(),
        optim::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The cases of which every word of `filter` is a part of kernel or shape, or the dtype (`f16` is not `bf16`).
pub fn matching(filter: &str) -> Vec<Case> {
    let has = |case: &Case, word: &str| {
        case.kernel.contains(word) || case.shape.contains(word) || case.dtype == word
    };
    let mut cases = all();
    cases.retain(|case| filter.split_whitespace().all(|word| has(case, word)));
    cases
}

/// As [`close`], with the name of what differs.
fn compare(what: &str, actual: &[f32], expected: &[f64], tolerance: f64) -> Result<(), String> {
    close(actual, expected, Tolerance::both(tolerance)).map_err(|why| format!("{what}: {why}"))
}

/// The rows `rows` of a matrix of `width` columns, one after the other.
fn rows_of<T: Copy>(x: &[T], width: usize, rows: &[usize]) -> Vec<T> {
    rows.iter().flat_map(|&row| &x[row * width..][..width]).copied().collect()
}
