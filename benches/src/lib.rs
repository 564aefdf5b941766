//! How near the kernels and the training step come to what this machine can do.
//!
//! A speed says little without the limit of the machine it was measured on, so limits, kernels and peers are measured
//! in the same run, taking turns. Reading order:
//!
//! | module | what it is |
//! |---|---|
//! | [`clock`] | the best and the median of many times |
//! | [`ceilings`] | multiply-adds per second, bytes per second |
//! | [`case`] | one kernel on one problem: what it must do, how it is checked and run |
//! | [`cases`] | all of them, one file per kernel |
//! | [`peers`] | the same products by other crates (feature `peers`) |
//! | [`measure`] | takes turns and writes down |
//! | [`report`], [`table`], [`markdown`], [`chart`] | the numbers, and three ways to show them |
//! | [`ladder`] | from the triple loop to the kernel |
//! | [`step`] | a whole training step: its arithmetic counted, its time measured |
//! | [`gpu`] | every operation on the GPU: compared with the CPU, then timed, and the step there |
//! | [`generation`] | greedy generation: tokens per second, beside the bound by bandwidth |

pub mod case;
pub mod cases;
pub mod ceilings;
pub mod chart;
pub mod clock;
pub mod data;
pub mod generation;
pub mod gpu;
pub mod ladder;
pub mod machine;
pub mod markdown;
pub mod measure;
pub mod peers;
pub mod report;
pub mod step;
pub mod table;

/// Whether a bench is run as a test (`cargo test --benches`): then each piece of work runs once, on a small problem.
/// Cargo says `--bench` when it benches.
pub fn is_test() -> bool {
    !std::env::args().any(|arg| arg == "--bench")
}
