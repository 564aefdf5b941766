//! Tensors: dtype, shape, and who owns the memory.
//!
//! Two kinds of memory meet in this project. Activations, gradients and prompts are f32 in [`Buffer`]s that a pool
//! hands out again and again. Weights are [`Frozen`]: they lie in a read-only memory map of the checkpoint, in the
//! dtype of the file, and there is no way to get a `&mut` to them.
//!
//! Both may lie on a GPU instead ([`device`]), in its own memory. [`ops`] is what is computed with them on either, so nothing
//! above this crate asks where they are.
//!
//! Read [`buffer`], then [`tensor`], [`mapped`], [`checkpoint`] and [`gguf`], and then [`ops`].

pub mod buffer;
pub mod checkpoint;
pub mod device;
pub mod dtype;
pub mod error;
pub mod gguf;
#[cfg(feature = "cuda")]
pub mod gpu;
pub mod intervals;
pub mod mapped;
pub mod mirror;
pub mod ops;
pub mod tensor;

pub use buffer::Buffer;
pub use checkpoint::Checkpoint;
pub use device::Device;
pub use dtype::DType;
pub use error::{Error, Result};
pub use intervals::Intervals;
pub use mapped::Mapped;
pub use mirror::Indices;
pub use tensor::{Frozen, Storage, Tensor};
