//! NumPy's `.npy`, as far as prompts need it: the format of Google's published prompts.
//!
//! ```text
//! 0x93 "NUMPY"  version 1.0  u16 LE length of the header
//! {'descr': '<f4', 'fortran_order': False, 'shape': (100, 768), }   padded with spaces, ends in \n
//! little-endian numbers, row by row
//! ```
//! The data begin at a multiple of 64 bytes. Source: numpy/lib/format.py, format versions 1 and 2.

use std::path::Path;

use crate::atomic;
use crate::error::{Error, Result};
use crate::soft_prompt::SoftPrompt;

const MAGIC: &[u8] = b"\x93NUMPY";
const ALIGN: usize = 64;

/// Reads a `[n_tokens, d_model]` matrix of f32.
///
/// # Errors
/// Not a `.npy`, another dtype, order or rank, or a header that does not describe the file.
pub fn read(path: &Path) -> Result<SoftPrompt> {
    let bytes = std::fs::read(path).map_err(|e| Error::read(path, e))?;
    let prompt = parse(&bytes).map_err(|why| Error::file(path, why))?;
    prompt.check_numbers(path)?;
    Ok(prompt)
}

/// Writes `prompt` as NumPy would, replacing `path` atomically.
///
/// # Errors
/// [`Error::Write`].
pub fn write(path: &Path, prompt: &SoftPrompt) -> Result<()> {
    atomic::write(path, &to_bytes(prompt))
}

fn to_bytes(prompt: &SoftPrompt) -> Vec<u8> {
    let shape = (prompt.n_tokens, prompt.d_model);
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape:?}, }}");
    let fixed = MAGIC.len() + 2 + size_of::<u16>();
    let padded = (fixed + header.len() + 1).next_multiple_of(ALIGN) - fixed;
    header.extend(std::iter::repeat_n(' ', padded - 1 - header.len()));
    header.push('\n');
    let mut bytes = [MAGIC, &[1, 0], &(padded as u16).to_le_bytes(), header.as_bytes()].concat();
    bytes.extend(prompt.values.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

fn parse(bytes: &[u8]) -> Result<SoftPrompt, String> {
    let (header, data) = split(bytes)?;
    let [n_tokens, d_model] = described(header)?;
    let expected = n_tokens.checked_mul(d_model).and_then(|n| n.checked_mul(size_of::<f32>()));
    if expected != Some(data.len()) {
        let n = data.len();
        return Err(format!(
            "its header says [{n_tokens}, {d_model}] of f32, but {n} bytes of numbers follow"
        ));
    }
    let values = data.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect();
    Ok(SoftPrompt::new(n_tokens, d_model, values))
}

/// The header's text, and the numbers.
fn split(bytes: &[u8]) -> Result<(&str, &[u8]), String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it is not a .npy file")?;
    let short = "it ends within its header";
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(short)?;
    let (length, rest) = match version {
        [1, _] => {
            rest.split_first_chunk().map(|(n, rest)| (u16::from_le_bytes(*n) as usize, rest)).ok_or(short)?
        }
        [2, _] => {
            rest.split_first_chunk().map(|(n, rest)| (u32::from_le_bytes(*n) as usize, rest)).ok_or(short)?
        }
        [major, minor] => {
            return Err(format!("it has .npy version {major}.{minor}; 1.0 and 2.0 can be read"));
        }
    };
    let (header, data) = rest.split_at_checked(length).ok_or(short)?;
    Ok((std::str::from_utf8(header).map_err(|_| "its header is not text")?, data))
}

/// The shape in a header of f32 in C order.
fn described(header: &str) -> Result<[usize; 2], String> {
    let descr = value(header, "descr")?;
    if !matches!(descr, "'<f4'" | "\"<f4\"") {
        return Err(format!("its dtype is {descr}; save it as '<f4' with np.save(path, a.astype('<f4'))"));
    }
    match value(header, "fortran_order")? {
        "False" => {}
        _ => return Err("it is in Fortran order; save it with np.save(path, np.ascontiguousarray(a))".into()),
    }
    let shape = value(header, "shape")?;
    let inner = shape.strip_prefix('(').and_then(|s| s.strip_suffix(')')).unwrap_or_default();
    let sizes: Option<Vec<usize>> =
        inner.trim_end_matches(',').split(',').map(|n| n.trim().parse().ok()).collect();
    match sizes.as_deref() {
        Some(&[n_tokens, d_model]) => Ok([n_tokens, d_model]),
        _ => Err(format!("its shape is {shape}; a prompt has two dimensions, (tokens, width)")),
    }
}

/// What follows `'key':`, up to the comma that ends it.
fn value<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let missing = || format!("its header has no {key}");
    let rest = header.split_once(&format!("'{key}':")).ok_or_else(missing)?.1.trim_start();
    let end = match rest.strip_prefix('(') {
        Some(inner) => inner.find(')').map(|i| i + 2),
        None => rest.find([',', '}']),
    };
    Ok(rest[..end.ok_or_else(missing)?].trim())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `np.save` of `[[0, 1, 2], [3, 4, 5]]`, by the format's specification.
    fn sample() -> Vec<u8> {
        let dict = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        bytes.extend_from_slice(dict);
        bytes.resize(127, b' ');
        bytes.push(b'\n');
        bytes.extend((0..6).flat_map(|i| (i as f32).to_le_bytes()));
        bytes
    }

    fn with(old: &str, new: &str) -> Vec<u8> {
        let bytes = sample();
        let text = String::from_utf8(bytes[10..128].to_vec()).unwrap().replace(old, new);
        let mut changed = [&bytes[..8], &(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
        changed.extend_from_slice(&bytes[128..]);
        changed
    }

    #[test]
    fn bytes_are_numpys() {
        let prompt = SoftPrompt::new(2, 3, (0..6).map(|i| i as f32).collect());
        assert_eq!(parse(&sample()).unwrap(), prompt);
        assert_eq!(to_bytes(&prompt), sample());
        // the size of google's sst2 prompt for T5 base
        assert_eq!(to_bytes(&SoftPrompt::zeros(100, 768)).len(), 307_328);
        assert_eq!(parse(&with("(2, 3)", "(3,2,)")).unwrap().n_tokens, 3);
    }

    #[test]
    fn other_files_are_refused() {
        let mut version_2 = sample();
        version_2[6] = 2;
        version_2.splice(8..10, 118u32.to_le_bytes());
        assert!(parse(&version_2).is_ok());
        version_2[6] = 9;
        let cases = [
            (with("<f4", ">f4"), "dtype is '>f4'"),
            (with("<f4", "<f8"), "astype('<f4')"),
            (with("False", "True"), "Fortran"),
            (with("(2, 3)", "(6,)"), "two dimensions"),
            (with("(2, 3)", "(2, -3)"), "two dimensions"),
            (with("(2, 3)", "(2, 4)"), "24 bytes"),
            (with("(2, 3)", "(18446744073709551615, 3)"), "24 bytes"),
            (with("(2, 3)", "(99999999999999999999, 3)"), "two dimensions"),
            (with("shape", "shapes"), "no shape"),
            (with("(2, 3), }", "(2, 3"), "no shape"),
            (with("'<f4'", "é"), "dtype is é"),
            (version_2, "version 9.0"),
            (b"\x93NUMPY\x01\x00\xff\xff{}".to_vec(), "within its header"),
            (b"PK".to_vec(), "not a .npy"),
        ];
        for (bytes, expected) in cases {
            let why = parse(&bytes).unwrap_err();
            assert!(why.contains(expected), "{expected}: {why}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nan.npy");
        write(&path, &SoftPrompt::new(1, 2, vec![0.0, f32::NAN])).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("nan.npy: virtual token 0 holds NaN"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(n in 1usize..5, values in prop::collection::vec(-1e30f32..1e30, 5 * 7)) {
            let prompt = SoftPrompt::new(n, 7, values[..n * 7].to_vec());
            prop_assert_eq!(parse(&to_bytes(&prompt)).unwrap(), prompt);
        }

        #[test]
        fn damaged_files_never_panic(at in 0usize..152, byte: u8, end in 0usize..153) {
            let mut bytes = sample();
            bytes[at] = byte;
            let _ = parse(&bytes[..end]);
        }
    }
}
