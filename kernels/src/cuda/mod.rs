//! CUDA: the same operations on an NVIDIA GPU, by kernels of our own.
//!
//! | where | what |
//! |---|---|
//! | `<operation>/<operation>.cu` | the kernels, beside the CPU's; compiled ahead of time, never by `cargo build` |
//! | `<operation>/cuda.rs` | checks the sizes, chooses grid and block, and launches |
//! | [`launch`] | what a launch is made of; [`Launcher`] is who carries it out |
//! | [`tensor_map`] | matrices that hardware copies in boxes |
//! | [`driver`] | launches on a GPU |
//! | [`buffer`] | its memory, and copies |
//! | `staging` | what copies to it pass through |
//! | `api` | the functions of NVIDIA's driver |
//! | `images` | the compiled kernels |
//! | [`nvrtc`] | kernels compiled when they are asked for, for those who write them |
//! | [`mod@probe`] | whether there is a GPU that can be used: an answer, never a panic |
//! | `common.cuh` | what all kernels share: vector loads, sums over a warp and a block |
//! | `tensor_cores.cuh`, `hopper.cuh` | instructions that C++ has no word for: of `sm_80`, and of `sm_90a` only |
//!
//! Nothing here needs CUDA to be installed. The same `.cu` files run on the CPU in `tests/shim`, where every thread of a
//! block is a fiber: slow, but it finds most missing barriers, wrong numbers and reads of what nobody wrote, on any machine.
//!
//! # Rules
//!
//! * A kernel overwrites its outputs, as on the CPU, unless its name says otherwise.
//! * Sums have a fixed order: no floating-point atomics, so two runs have the same bits.
//! * Launches are queued on one stream, in order. What a [`SliceMut`] was lent for is written when the stream has come so far;
//!   reading back waits for it.

mod api;
pub mod buffer;
pub mod driver;
mod images;
pub mod launch;
pub mod nvrtc;
pub mod probe;
pub(crate) mod rows;
mod staging;
pub mod tensor_map;

pub use buffer::{Buffer, Number};
pub use driver::Driver;
pub use launch::{Arg, Failed, Kernel, Launch, Launcher, Slice, SliceMut};
pub use probe::{Gpu, NoGpu, probe};
pub use rows::Slabs;
pub use tensor_map::TensorMap;
