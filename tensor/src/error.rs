//! What can be wrong with a checkpoint or a shape, each in one line with the next step where there is one.

use std::path::PathBuf;

/// `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened, read or mapped.
    #[error("cannot read `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder holds no weights in a format we read.
    #[error("`{folder}` has no weights: {found}")]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// What is there instead, and what to do.
        found: String,
    },
    /// The safetensors header is truncated, or does not describe the file.
    #[error("`{path}` is not a valid safetensors file: {why}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The GGUF header is truncated, does not describe the file, or describes what we do not compute with.
    #[error("`{path}` is not a usable GGUF file: {why}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The shard index is not usable.
    #[error("shard index `{path}`: {why}")]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A tensor the model needs is not there.
    #[error("tensor `{name}` is not in `{path}` ({hint})")]
    Missing {
        /// Name looked for.
        name: String,
        /// Checkpoint folder or file.
        path: PathBuf,
        /// How many tensors there are, or the nearest name.
        hint: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor `{name}` has shape {actual:?}, but the configuration asks for {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Shape in the file.
        actual: Vec<usize>,
        /// Shape that was expected.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a dtype we do not compute with.
    #[error("tensor `{name}` has dtype {dtype}; only F32, F16 and BF16 weights can be used")]
    DType {
        /// Name of the tensor.
        name: String,
        /// The dtype in the file.
        dtype: String,
    },
    /// A device cannot be used, or something failed on it.
    #[error("{why}")]
    Device {
        /// What failed.
        why: String,
        /// Whether its memory was too small.
        out_of_memory: bool,
    },
}

#[cfg(feature = "cuda")]
impl Error {
    pub(crate) fn of_gpu(failed: &kernels::cuda::Failed) -> Error {
        Error::Device { why: failed.to_string(), out_of_memory: failed.is_out_of_memory() }
    }
}
