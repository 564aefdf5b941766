//! What the benches share: shapes of real models, the machine's limits, and the peers our kernels are compared with.
//!
//! A speed says little without the limit of the machine it was measured on, so [`limits`] is measured in the same run.

pub mod limits;
pub mod peers;

use std::time::Instant;

/// `(m, k, n)` of the matrix products of a GPT-2 training step of about 820 tokens, and two squares.
pub const MATMULS: [(usize, usize, usize); 6] = [
    (820, 768, 2304),
    (820, 768, 768),
    (820, 768, 3072),
    (820, 3072, 768),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
];

/// `(m, k, n)` of decoding and of the language-model head.
pub const FEW_ROWS: [(usize, usize, usize); 4] =
    [(1, 768, 3072), (8, 768, 3072), (1, 768, 50257), (32, 768, 50257)];

/// The shortest of `repeats` runs of `work`, in seconds. Machines are shared: the shortest run was disturbed least.
pub fn best_of(repeats: usize, mut work: impl FnMut()) -> f64 {
    let mut time = || {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    time();
    (0..repeats).map(|_| time()).fold(f64::INFINITY, f64::min)
}
