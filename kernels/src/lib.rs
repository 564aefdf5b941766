//! Kernels: slices in, slices out.
//!
//! Every operation of the forward and backward pass is one module here. A module holds a plain `reference`
//! (loops generic over `f32` and `f64`: the specification) and one vectorised body written against
//! [`simd::Simd`], which is instantiated for each instruction set the crate knows.
//!
//! # Letters and words
//!
//! | letter | meaning | letter | meaning |
//! |---|---|---|---|
//! | `T` | tokens of the batch (rows) | `H` | heads (`n_heads`) |
//! | `C` | model width (`d_model`) | `D` | head width (`head_dim`) |
//! | `V` | vocabulary | `m, k, n` | rows, inner size and columns of a matrix product |
//!
//! `d_x` is the gradient of the loss with respect to `x`; `d_out` comes from above. Statistics kept for the backward
//! pass are called `mean`, `rstd` (reciprocal standard deviation) and `lse` (log of the sum of exponentials).
//!
//! # Rules
//!
//! * **Kernels overwrite their outputs.** Only the tape accumulates.
//! * The first argument is the [`Isa`], a proof that the CPU has the instructions. Sizes are checked at the door with
//!   `assert!`; a wrong size is a bug of the caller, not an input error.
//! * Results do not depend on the number of threads: work is split where no sum crosses the split, or sums have a
//!   fixed order.

pub mod activation;
pub mod attention;
pub mod blocks;
pub mod cross_entropy;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod elementwise;
pub mod embedding;
mod floats;
pub mod isa;
pub mod layer_norm;
pub mod matmul;
#[cfg(feature = "cuda")]
pub mod norms;
pub mod optim;
pub mod real;
pub mod rms_norm;
pub mod rope;
pub mod simd;
mod slices;
pub mod testing;
pub mod threads;

pub use blocks::{BlockFormat, Blocks};
pub use isa::Isa;
pub use matmul::{Elements, Layout};
