//! Files that are old or new, never half of either: write beside, fsync, rename, fsync the folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Replaces `path` by a file with these bytes. After a crash at any moment it is the old file or the new one.
///
/// The bytes are first written to `.NAME.tmp` in the same folder (always that name, so killed runs leave at most one
/// such file). One process at a time may write a given file.
///
/// # Errors
/// [`Error::Write`]: full disk, read-only folder, no such folder. The old file is then untouched.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = beside(path).map_err(|e| Error::write(path, e))?;
    let result = write_beside(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if let Err(source) = result {
        // fails as well when it was never made; the first error is the one to tell
        let _ = fs::remove_file(&beside);
        return Err(Error::write(path, source));
    }
    let unsure = |e| {
        format!("`{}` is written, but whether it outlasts a power failure is unsure: {e}", path.display())
    };
    sync_folder(path).map_err(|e| Error::Failure(unsure(e)))
}

/// Replaces `path` by `value` as JSON, as [`write()`] does.
///
/// # Errors
/// As [`write()`]; [`Error::Failure`] for a value that JSON has no form for.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_vec(value)
        .map_err(|e| Error::Failure(format!("`{}` as JSON: {e}", path.display())))?;
    write(path, &json)
}

/// What [`write_json`] wrote.
///
/// # Errors
/// [`Error::Read`]; [`Error::File`] for what is no such value.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let json = fs::read(path).map_err(|e| Error::read(path, e))?;
    serde_json::from_slice(&json).map_err(|e| Error::file(path, e.to_string()))
}

/// Makes `folder` (and those above it) where it is missing, and finds out now whether files can be made in it.
///
/// # Errors
/// [`Error::Write`], before hours were spent on what could not be saved.
pub fn prepare_folder(folder: &Path) -> Result<()> {
    let failed = |e| Error::write(folder, e);
    fs::create_dir_all(folder).map_err(failed)?;
    let probe = folder.join(".probe.tmp");
    write_beside(&probe, b"can this be written?").map_err(failed)?;
    fs::remove_file(&probe).map_err(failed)
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it has no file name"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".tmp");
    Ok(path.with_file_name(hidden))
}

fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the rename itself durable. Only Unix lets a folder be opened for that.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write(&path, b"old").unwrap();
        // left by a run that was killed
        fs::write(folder.path().join(".a.json.tmp"), b"ha").unwrap();
        write(&path, b"new and longer").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new and longer");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn a_failed_write_names_the_file_and_keeps_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, b"old").unwrap();
        // a folder in the place of the file beside it: works for root too, who may write read-only folders
        fs::create_dir(folder.path().join(".a.tmp")).unwrap();
        let error = write(&path, b"new").unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_one_clear_error() {
        let error = write_beside(Path::new("/dev/full"), &[1; 100]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn folders_are_made_and_probed() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        prepare_folder(&deep).unwrap();
        assert!(names(&deep).is_empty());
        let file = deep.join("file");
        fs::write(&file, b"").unwrap();
        assert_eq!(prepare_folder(&file.join("c")).unwrap_err().exit_code(), 1);
        assert!(write(Path::new("/"), b"").is_err());
    }
}
