//! Tensors: dtype, shape, and who owns the memory.
//!
//! Two kinds of memory meet in this project. Activations, gradients and prompts are f32 in [`Buffer`]s that a pool
//! hands out again and again. Weights are [`Frozen`]: they lie in a read-only memory map of the checkpoint, in the
//! dtype of the file, and there is no way to get a `&mut` to them.
//!
//! Read [`buffer`], then [`tensor`], [`mapped`], [`checkpoint`] and [`gguf`].

pub mod buffer;
pub mod checkpoint;
pub mod dtype;
pub mod error;
pub mod gguf;
pub mod mapped;
pub mod tensor;

pub use buffer::Buffer;
pub use checkpoint::Checkpoint;
pub use dtype::DType;
pub use error::{Error, Result};
pub use mapped::Mapped;
pub use tensor::{Frozen, Storage, Tensor};
