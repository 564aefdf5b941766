//! A checkpoint in safetensors form, one file or shards, opened by memory map: no weight is copied or read.
//!
//! Everything in these files is untrusted. The `safetensors` crate checks that header and offsets describe the file
//! exactly (no hole, no overlap, nothing beyond the end); this module adds the shard index and the dtypes.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::mapped::MappedFile;
use crate::{DType, Error, Frozen, Mapped, Result, Storage, Tensor};

/// Where a tensor lies.
#[derive(Clone, Debug)]
struct Entry {
    file: Arc<MappedFile>,
    range: std::ops::Range<usize>,
    shape: Vec<usize>,
    dtype: Dtype,
}

/// The tensors of a model folder by name.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<Arc<MappedFile>>,
    entries: BTreeMap<String, Entry>,
    copied: AtomicUsize,
}

impl Checkpoint {
    /// Opens `model.safetensors`, or the shards of `model.safetensors.index.json`, in `folder`.
    ///
    /// # Errors
    /// No weights there, a file that lies about itself, an index that leaves the folder or names what is not there.
    pub fn open(folder: &Path) -> Result<Checkpoint> {
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        if single.is_file() {
            Checkpoint::open_file(&single)
        } else if index.is_file() {
            Checkpoint::open_sharded(folder, &index)
        } else {
            Err(Error::NoWeights { folder: folder.to_path_buf(), found: what_is_there(folder) })
        }
    }

    /// Opens one safetensors file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_file(path: &Path) -> Result<Checkpoint> {
        let file = MappedFile::open(path)?;
        let entries = read_entries(&file)?;
        Ok(Checkpoint { path: path.to_path_buf(), files: vec![file], entries, copied: AtomicUsize::new(0) })
    }

    fn open_sharded(folder: &Path, index: &Path) -> Result<Checkpoint> {
        let weight_map = read_index(index)?;
        let mut files = BTreeMap::new();
        let mut shards: HashMap<String, BTreeMap<String, Entry>> = HashMap::new();
        let mut entries = BTreeMap::new();
        for (name, shard) in weight_map {
            if !shards.contains_key(&shard) {
                let file = MappedFile::open(&folder.join(&shard))?;
                shards.insert(shard.clone(), read_entries(&file)?);
                files.insert(shard.clone(), file);
            }
            let Some(entry) = shards.get(&shard).and_then(|tensors| tensors.get(&name)) else {
                let why = format!("it says `{name}` is in `{shard}`, where it is not");
                return Err(Error::Index { path: index.to_path_buf(), why });
            };
            entries.insert(name, entry.clone());
        }
        let files = files.into_values().collect();
        Ok(Checkpoint { path: folder.to_path_buf(), files, entries, copied: AtomicUsize::new(0) })
    }

    /// What was opened: a file, or the folder of the shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The mapped files.
    pub fn files(&self) -> &[Arc<MappedFile>] {
        &self.files
    }

    /// Bytes of tensors that had to be copied because they lie unaligned in their file.
    pub fn copied_bytes(&self) -> usize {
        self.copied.load(Ordering::Relaxed)
    }

    /// The tensor `name`, which must have the shape `expected`.
    ///
    /// # Errors
    /// It is missing, has another shape, or a dtype we do not compute with.
    pub fn tensor(&self, name: &str, expected: &[usize]) -> Result<Frozen> {
        let tensor = self.tensor_of_any_shape(name)?;
        if tensor.shape() != expected {
            let (actual, expected) = (tensor.shape().to_vec(), expected.to_vec());
            return Err(Error::Shape { name: name.into(), actual, expected });
        }
        Ok(tensor)
    }

    /// The tensor `name`, whatever its shape.
    ///
    /// # Errors
    /// It is missing, or has a dtype we do not compute with.
    pub fn tensor_of_any_shape(&self, name: &str) -> Result<Frozen> {
        let Some(entry) = self.entries.get(name) else {
            let hint = format!("it has {} tensors", self.entries.len());
            return Err(Error::Missing { name: name.into(), path: self.path.clone(), hint });
        };
        let dtype = match entry.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::Bf16,
            other => return Err(Error::DType { name: name.into(), dtype: format!("{other:?}") }),
        };
        Ok(Frozen::new(Tensor::of_file(entry.shape.clone(), dtype, self.storage(entry, dtype))))
    }

    /// The first tensor that holds a NaN or an infinity. Reads every weight: for explaining a failed run.
    pub fn first_non_finite(&self) -> Option<&str> {
        let bad = |name: &&str| {
            let Ok(tensor) = self.tensor_of_any_shape(name) else { return false };
            match tensor.elements() {
                kernels::Elements::F32(x) => x.iter().any(|x| !x.is_finite()),
                kernels::Elements::F16(x) => x.iter().any(|x| !x.is_finite()),
                kernels::Elements::Bf16(x) => x.iter().any(|x| !x.is_finite()),
            }
        };
        self.names().find(bad)
    }

    fn storage(&self, entry: &Entry, dtype: DType) -> Storage {
        let mapped = Mapped::new(entry.file.clone(), entry.range.clone());
        let bytes = mapped.bytes();
        if bytes.as_ptr().align_offset(dtype.size()) == 0 {
            return Storage::Mapped(mapped);
        }
        self.copied.fetch_add(bytes.len(), Ordering::Relaxed);
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Storage::Copied(words.into())
    }
}

fn read_entries(file: &Arc<MappedFile>) -> Result<BTreeMap<String, Entry>> {
    let invalid = |why: String| Error::Safetensors { path: file.path().to_path_buf(), why };
    let bytes = file.bytes();
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| invalid(e.to_string()))?;
    let data_start = header + size_of::<u64>();
    let entry = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let range = data_start + info.data_offsets.0..data_start + info.data_offsets.1;
        if range.start > range.end || range.end > bytes.len() {
            return Err(invalid(format!("tensor `{name}` lies outside the file")));
        }
        let (shape, dtype) = (info.shape.clone(), info.dtype);
        Ok((name, Entry { file: file.clone(), range, shape, dtype }))
    };
    metadata.tensors().into_iter().map(entry).collect()
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let invalid = |why: String| Error::Index { path: path.to_path_buf(), why };
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    let index: Value = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| invalid("it has no `weight_map` object".into()))?;
    let shard = |(name, file): (&String, &Value)| {
        let file = file.as_str().ok_or_else(|| invalid(format!("the file of `{name}` is not a string")))?;
        let plain = Path::new(file).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || file.is_empty() {
            return Err(invalid(format!("`{file}` leaves the model folder")));
        }
        Ok((name.clone(), file.to_string()))
    };
    map.iter().map(shard).collect()
}

fn what_is_there(folder: &Path) -> String {
    if !folder.is_dir() {
        return "there is no such folder".into();
    }
    let torch =
        folder.join("pytorch_model.bin").is_file() || folder.join("pytorch_model.bin.index.json").is_file();
    match torch {
        true => "only PyTorch pickles (.bin) are there; save the model with `save_pretrained(..., safe_serialization=True)`".into(),
        false => "neither model.safetensors nor model.safetensors.index.json is there".into(),
    }
}
