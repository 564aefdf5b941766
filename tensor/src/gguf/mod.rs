//! The header of a GGUF file: metadata and where tensors lie. Read once, nothing copied but names.
//!
//! ```text
//! "GGUF"  version: u32  tensors: u64  pairs: u64
//! pairs    key: string, kind: u32, value
//! tensors  name: string, dims: u32, dims × u64 (the last dimension first), type: u32, offset: u64
//! data     at the next multiple of `general.alignment` (32)
//! ```
//! A string is a u64 length and bytes. Everything in the file is untrusted: a length is believed only when so many bytes
//! are there, and no memory is reserved for a count. Source: `docs/gguf.md` of ggml, versions 2 and 3.

mod metadata;
mod reader;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use kernels::BlockFormat;

pub use metadata::{Metadata, Value};
use reader::Reader;

use crate::mapped::MappedFile;
use crate::{DType, Error, Result};

/// The first four bytes.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// Where tensors begin, unless the file says otherwise.
const ALIGNMENT: u64 = 32;
/// ggml's tensors have no more.
const MOST_DIMENSIONS: u32 = 4;

/// Where a tensor lies.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) range: Range<usize>,
    /// Row-major: the first dimension is the slowest.
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: DType,
}

/// Reads the header of `file`.
///
/// # Errors
/// It is no GGUF file, or lies about itself.
pub(crate) fn read(file: &Arc<MappedFile>) -> Result<(Metadata, BTreeMap<String, Info>)> {
    header(file).map_err(|why| Error::Gguf { path: file.path().to_path_buf(), why })
}

fn header(file: &Arc<MappedFile>) -> Result<(Metadata, BTreeMap<String, Info>), String> {
    let mut reader = Reader::new(file.bytes());
    let magic = reader.take(4, "the magic number")?;
    if magic != MAGIC {
        return Err(format!("it begins with {magic:?}, not with \"GGUF\""));
    }
    match reader.u32("the version")? {
        2 | 3 => {}
        version if matches!(version.swap_bytes(), 1..=3) => {
            return Err("it is big-endian; convert it with gguf-py's gguf_convert_endian".into());
        }
        version => {
            return Err(format!(
                "it has version {version}, but only 2 and 3 can be read; convert the model again"
            ));
        }
    }
    let (n_tensors, n_pairs) =
        (reader.u64("the number of tensors")?, reader.u64("the number of metadata pairs")?);
    let metadata = Metadata::read(file.clone(), &mut reader, n_pairs)?;
    let infos = infos(&mut reader, n_tensors)?;
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(Value::Unsigned(n)) if n.is_power_of_two() && n <= 1 << 20 => n,
        Some(other) => return Err(format!("`general.alignment` is {other}, but must be a power of two")),
    };
    let data = (reader.at() as u64).next_multiple_of(alignment);
    place(infos, data, alignment, file.bytes().len() as u64).map(|infos| (metadata, infos))
}

/// A tensor as the header describes it; its bytes are counted from the start of the data.
struct Claim {
    name: String,
    shape: Vec<usize>,
    dtype: DType,
    offset: u64,
    bytes: u64,
}

fn infos(reader: &mut Reader, count: u64) -> Result<Vec<Claim>, String> {
    let mut all = Vec::new();
    for i in 0..count {
        all.push(info(reader).map_err(|why| format!("tensor {i} of {count}: {why}"))?);
    }
    Ok(all)
}

fn info(reader: &mut Reader) -> Result<Claim, String> {
    let name = reader.string("its name")?.to_string();
    let named = |why: String| format!("`{name}`: {why}");
    let n_dims = reader.u32("its number of dimensions").map_err(named)?;
    if !(1..=MOST_DIMENSIONS).contains(&n_dims) {
        return Err(named(format!("it has {n_dims} dimensions, but 1 to {MOST_DIMENSIONS} are possible")));
    }
    let mut dims = Vec::new();
    for _ in 0..n_dims {
        dims.push(reader.u64("its dimensions").map_err(named)?);
    }
    let kind = reader.u32("its type").map_err(named)?;
    let offset = reader.u64("its offset").map_err(named)?;
    let dtype = dtype(kind).map_err(named)?;
    let count = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).filter(|&n| n < 1 << 56);
    let count = count.ok_or_else(|| named(format!("its dimensions {dims:?} are beyond any memory")))?;
    let per_block = dtype.per_block() as u64;
    if dims[0] % per_block != 0 {
        return Err(named(format!(
            "its rows have {} numbers, but {dtype} has blocks of {per_block}",
            dims[0]
        )));
    }
    let bytes = dtype.bytes(count as usize) as u64;
    let shape = dims.iter().rev().map(|&d| d as usize).collect();
    Ok(Claim { name, shape, dtype, offset, bytes })
}

/// Where the tensors lie in a file of `len` bytes whose data begins at `data`: inside, aligned, and apart.
fn place(claims: Vec<Claim>, data: u64, alignment: u64, len: u64) -> Result<BTreeMap<String, Info>, String> {
    let mut all = BTreeMap::new();
    let mut ranges = Vec::new();
    for Claim { name, shape, dtype, offset, bytes } in claims {
        if offset % alignment != 0 {
            return Err(format!(
                "tensor `{name}` is at offset {offset}, which is no multiple of {alignment}"
            ));
        }
        let start = data.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(bytes)).filter(|&end| end <= len);
        let (Some(start), Some(end)) = (start, end) else {
            return Err(format!(
                "tensor `{name}` has {bytes} bytes at offset {offset}, beyond the end of the file of {len} bytes; \
                 download it again"
            ));
        };
        ranges.push((start, end, name.clone()));
        let info = Info { range: start as usize..end as usize, shape, dtype };
        if all.insert(name.clone(), info).is_some() {
            return Err(format!("there are two tensors `{name}`"));
        }
    }
    ranges.sort();
    match ranges.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        Some(pair) => Err(format!("tensors `{}` and `{}` overlap", pair[0].2, pair[1].2)),
        None => Ok(all),
    }
}

/// ggml's numbers of types.
fn dtype(kind: u32) -> Result<DType, String> {
    Ok(match kind {
        0 => DType::F32,
        1 => DType::F16,
        30 => DType::Bf16,
        2 => DType::Blocks(BlockFormat::Q4_0),
        3 => DType::Blocks(BlockFormat::Q4_1),
        6 => DType::Blocks(BlockFormat::Q5_0),
        7 => DType::Blocks(BlockFormat::Q5_1),
        8 => DType::Blocks(BlockFormat::Q8_0),
        12 => DType::Blocks(BlockFormat::Q4_K),
        13 => DType::Blocks(BlockFormat::Q5_K),
        14 => DType::Blocks(BlockFormat::Q6_K),
        other => {
            let name = match other {
                9 => "Q8_1",
                10 => "Q2_K",
                11 => "Q3_K",
                15 => "Q8_K",
                16..=23 | 29 => "IQ",
                24..=28 => "an integer or f64",
                34 | 35 => "ternary",
                39 => "MXFP4",
                _ => "unknown",
            };
            return Err(format!(
                "its type {other} ({name}) cannot be computed with; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, \
                 Q5_K and Q6_K can: quantise the model to one of these"
            ));
        }
    })
}
