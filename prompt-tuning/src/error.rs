//! What can go wrong for a user, each in one line with the next step, and the exit code it ends in.

use std::path::{Path, PathBuf};

/// `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. [`Error::exit_code`] tells bad input from a failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument, or a combination of them, cannot be used.
    #[error("{0}")]
    Input(String),
    /// A file that was asked for cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A row of a data file cannot be used.
    #[error("{}:{line}: {why}", path.display())]
    Data {
        /// The data file.
        path: PathBuf,
        /// Line the row starts at, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A file as a whole cannot be used: a task, an adapter, a `.npy`, a data file with no rows.
    #[error("{}: {why}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The checkpoint or the adapter's tensors cannot be used.
    #[error(transparent)]
    Tensor(#[from] tensor::Error),
    /// The model folder or its tokenizer cannot be used.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// Output cannot be written. What was there before is still there.
    #[error("cannot write `{}`: {source}; what was there before is untouched", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something failed that is not the input's fault.
    #[error("{0}")]
    Failure(String),
    /// Ctrl-C. The message says what was saved.
    #[error("{0}")]
    Interrupted(String),
}

impl Error {
    /// 2 for bad input, 1 for a failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Write { .. }
            | Error::Failure(_)
            | Error::Interrupted(_)
            | Error::Model(model::Error::NonFinite(_)) => 1,
            _ => 2,
        }
    }

    pub(crate) fn file(path: &Path, why: impl Into<String>) -> Error {
        Error::File { path: path.to_path_buf(), why: why.into() }
    }

    pub(crate) fn read(path: &Path, source: std::io::Error) -> Error {
        Error::Read { path: path.to_path_buf(), source }
    }

    pub(crate) fn write(path: &Path, source: std::io::Error) -> Error {
        Error::Write { path: path.to_path_buf(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_is_2_and_a_failure_is_1() {
        let io = || std::io::Error::other("disk on fire");
        assert_eq!(Error::Input("x".into()).exit_code(), 2);
        assert_eq!(Error::read(Path::new("a"), io()).exit_code(), 2);
        assert_eq!(Error::write(Path::new("a"), io()).exit_code(), 1);
        let row = Error::Data { path: "dir/a.jsonl".into(), line: 3, why: "it is empty".into() };
        assert_eq!((row.exit_code(), row.to_string().as_str()), (2, "dir/a.jsonl:3: it is empty"));
    }
}
