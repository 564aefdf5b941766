//! Bytes of a file, mapped read-only.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::{Error, Result};

/// A file mapped `PROT_READ`. Nothing in this project can write to it.
///
/// While a map exists the file must not be truncated or rewritten in place by another process: reading beyond a new
/// end raises `SIGBUS`. Replacing the file (write beside, rename) is safe, the map keeps the old one.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole file.
    pub fn open(path: &Path) -> Result<Arc<MappedFile>> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY:
        // - The map is read-only and private to this type, which hands out shared slices only.
        // - That no other process truncates or modifies the file meanwhile cannot be enforced by any program on
        //   Unix; it is this type's documented requirement.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Arc::new(MappedFile { path: path.to_path_buf(), map }))
    }

    /// Where the file was.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}

/// A range of a mapped file.
#[derive(Clone, Debug)]
pub struct Mapped {
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl Mapped {
    /// The range `range` of `file`. Panics when it lies outside.
    pub fn new(file: Arc<MappedFile>, range: Range<usize>) -> Mapped {
        assert!(range.start <= range.end && range.end <= file.bytes().len(), "range outside the file");
        Mapped { file, range }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }
}
