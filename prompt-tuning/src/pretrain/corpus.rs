//! Text to learn a language from: documents of `.txt` and `.jsonl` files, each once, split into train and valid.
//!
//! ```text
//! .txt      documents are separated by blank lines
//! .jsonl    one object a line; the document is its "text", other fields are ignored
//! ```
//!
//! All of it is held in memory: a corpus for a small model is some tens of megabytes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::data;
use crate::error::{Error, Result};
use crate::rng::Rng;

/// Documents to learn from, and others to see how well it was learnt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// What the model is trained on.
    pub train: Vec<String>,
    /// What it never sees in training.
    pub valid: Vec<String>,
}

/// The documents of files, and of the `.txt` and `.jsonl` files in folders at any depth, those of a folder in the order of
/// their names. White space around a document is dropped, and so are empty documents and repetitions of one that was
/// there before.
///
/// # Errors
/// [`Error::Read`]; [`Error::Data`] for the first line that is not UTF-8 or no row with a `text`; [`Error::File`] for a
/// path with nothing to read.
pub fn read(paths: &[PathBuf]) -> Result<Vec<String>> {
    let (mut documents, mut seen) = (Vec::new(), HashSet::new());
    for path in paths {
        let files = files(path)?;
        if files.is_empty() {
            return Err(Error::file(path, "the folder has no .txt or .jsonl files"));
        }
        for file in files {
            let texts = texts(&file)?;
            let texts = texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
            documents.extend(texts.filter(|text| seen.insert(digest(text))).map(String::from));
        }
    }
    match (documents.is_empty(), paths) {
        (false, _) => Ok(documents),
        (true, []) => {
            Err(Error::Input("no text is given; name .txt or .jsonl files or folders of them".into()))
        }
        (true, [path, ..]) => Err(Error::file(path, "there is no text in it")),
    }
}

/// Puts each document into `valid` with probability `valid_fraction`, in `0..1`. Seed and text of a document alone decide: not
/// its place, nor the other documents. With a larger fraction no document leaves `valid`.
///
/// # Errors
/// [`Error::Input`] for another fraction, or when nothing is left for `train`.
pub fn split(documents: Vec<String>, valid_fraction: f64, seed: u64) -> Result<Split> {
    if !(0.0..1.0).contains(&valid_fraction) {
        let why =
            format!("the fraction of text for validation is {valid_fraction}, but must be from 0 to below 1");
        return Err(Error::Input(why));
    }
    let rng = Rng::new(seed);
    let is_valid = |text: &String| {
        let [a, b, c, d, e, f, g, h, ..] = digest(text);
        rng.fork(u64::from_le_bytes([a, b, c, d, e, f, g, h])).uniform() < valid_fraction
    };
    let (valid, train): (Vec<_>, Vec<_>) = documents.into_iter().partition(is_valid);
    if train.is_empty() {
        return Err(Error::Input(format!(
            "all {} documents fall to validation; give more text, a smaller fraction or another seed",
            valid.len()
        )));
    }
    Ok(Split { train, valid })
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "txt" || ext == "jsonl")
}

/// The file itself, or the text files in a folder.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::read(path, e);
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return match is_text(path) {
            true => Ok(vec![path.to_path_buf()]),
            false => {
                Err(Error::file(path, "text is read from .txt and .jsonl files only; rename or convert it"))
            }
        };
    }
    let entries = std::fs::read_dir(path).map_err(failed)?;
    let mut inside: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(failed)?;
    inside.sort();
    let mut found = Vec::new();
    for path in inside {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if is_text(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

fn texts(path: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).map_err(|e| Error::read(path, e))?;
    let wrong = |(line, why)| Error::Data { path: path.to_path_buf(), line, why };
    let text = data::utf8(&bytes).map_err(wrong)?;
    match path.extension().is_some_and(|ext| ext == "jsonl") {
        true => data::strings_of_jsonl(text, "text").map_err(wrong),
        false => Ok(paragraphs(text)),
    }
}

/// The runs of lines between blank ones, with their line ends as `\n`.
fn paragraphs(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    lines.split(|line| line.trim().is_empty()).map(|lines| lines.join("\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use super::*;

    fn file(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = folder.join(name);
        write(&path, text).unwrap();
        path
    }

    #[test]
    fn documents_of_both_kinds_are_trimmed_and_come_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        file(folder.path(), "b.txt", "\u{feff} one\r\ntwo  \r\n \t\r\n\r\n三 \n\none\n");
        file(folder.path(), "c.md", "not read");
        let rows = "{\"text\": \" one\", \"text_pair\": 3}\n\n{\"text\":\"a\\n\\nb\"}\n{\"text\": \"三\"}\n{\"text\": \"\"}\n";
        file(folder.path(), "deep/a.jsonl", rows);
        // the order of names: b.txt, then deep
        let documents = read(&[folder.path().to_path_buf()]).unwrap();
        assert_eq!(documents, ["one\ntwo", "三", "one", "a\n\nb"]);
        let twice = read(&[folder.path().join("b.txt"), folder.path().join("b.txt")]).unwrap();
        assert_eq!(twice, documents[..3]);
    }

    #[test]
    fn errors_name_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = |path: &Path| {
            let error = read(&[path.to_path_buf()]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let message = error.to_string();
            assert_eq!(message.lines().count(), 1);
            message.replace(&format!("{}", folder.path().display()), "DIR")
        };
        let wrong = |name: &str, text: &[u8]| refusal(&file(folder.path(), name, text));
        assert_eq!(
            wrong("a.jsonl", b"{\"text\": \"x\"}\n\n{\"txt\": \"y\"}"),
            "DIR/a.jsonl:3: there is no field `text` (the row has: txt)"
        );
        assert_eq!(
            wrong("a.jsonl", b"{\"text\": 7}"),
            "DIR/a.jsonl:1: `text` must be a string, not a number"
        );
        assert!(wrong("a.txt", b"fine\n\xff\n").starts_with("DIR/a.txt:2: it is not UTF-8"));
        assert!(wrong("a.csv", b"text\nx").starts_with("DIR/a.csv: text is read from .txt and .jsonl"));
        assert_eq!(wrong("a.txt", b" \n\n"), "DIR/a.txt: there is no text in it");
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        assert_eq!(
            refusal(&folder.path().join("empty")),
            "DIR/empty: the folder has no .txt or .jsonl files"
        );
        assert!(refusal(&folder.path().join("missing.txt")).starts_with("cannot read `DIR/missing.txt`"));
        assert_eq!(read(&[]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn the_split_depends_on_text_and_seed_alone() {
        let documents: Vec<String> = (0..4000).map(|i| format!("document {i}")).collect();
        let one = split(documents.clone(), 0.1, 3).unwrap();
        // five standard deviations of a binomial with n = 4000, p = 0.1
        assert!(one.valid.len().abs_diff(400) < 95, "{}", one.valid.len());
        let mut backwards = split(documents.iter().rev().cloned().collect(), 0.1, 3).unwrap();
        backwards.valid.reverse();
        backwards.train.reverse();
        assert_eq!(backwards, one);
        let half = split(documents[..2000].to_vec(), 0.1, 3).unwrap();
        assert_eq!(one.valid[..half.valid.len()], half.valid);
        let larger: HashSet<String> = split(documents.clone(), 0.2, 3).unwrap().valid.into_iter().collect();
        assert!(one.valid.iter().all(|text| larger.contains(text)));
        assert_ne!(split(documents.clone(), 0.1, 4).unwrap().valid, one.valid);
        assert_eq!(
            split(documents.clone(), 0.0, 3).unwrap(),
            Split { train: documents.clone(), valid: vec![] }
        );
        assert!(split(documents.clone(), 1.0, 3).is_err() && split(documents, f64::NAN, 3).is_err());
    }
}
