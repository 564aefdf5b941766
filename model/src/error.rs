//! What can be wrong with a model folder or with what a model is asked to do: one line each, naming the thing, the
//! value and the next step.

use std::path::PathBuf;

/// `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The weights cannot be used.
    #[error(transparent)]
    Tensor(#[from] tensor::Error),
    /// A file cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A configuration file is malformed, or its keys contradict each other.
    #[error("`{path}`: {why}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Key, value and what is wrong with it.
        why: String,
    },
    /// The model is of a kind, or uses a feature, that this program would compute wrongly.
    #[error("`{path}`: {why}")]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// Which kind, and what can be used instead.
        why: String,
    },
    /// There is no usable tokenizer.
    #[error("tokenizer `{path}`: {why}")]
    Tokenizer {
        /// Folder or file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A token sequence does not fit the model.
    #[error("{0}")]
    Tokens(String),
    /// The chat template cannot be used, or refuses the messages.
    #[error("chat template: {0}")]
    Chat(String),
    /// An option of generation is out of its range.
    #[error("{0}")]
    Option(String),
    /// The model computed a NaN or an infinity.
    #[error("the model computed a number that is not finite: {0}")]
    NonFinite(String),
}

/// What became of a computation on the GPU that [`tensor::device::check`] finds failed.
pub fn gpu_failed(why: &tensor::Error) -> String {
    let is_full = matches!(why, tensor::Error::Device { out_of_memory: true, .. });
    let advice = if is_full { "; smaller batches need less memory" } else { "" };
    format!("the GPU failed: {why}{advice}")
}
