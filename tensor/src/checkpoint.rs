//! A checkpoint, safetensors (one file or shards) or GGUF, opened by memory map: no weight is copied or read.
//!
//! Everything in these files is untrusted. The `safetensors` crate checks that header and offsets describe the file
//! exactly (no hole, no overlap, nothing beyond the end), and [`crate::gguf`] does for its own; this module adds the shard
//! index and the dtypes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::gguf::{self, Metadata};
use crate::mapped::MappedFile;
use crate::{DType, Device, Error, Frozen, Mapped, Result, Storage, Tensor};

/// Where a tensor lies.
#[derive(Clone, Debug)]
struct Entry {
    file: Arc<MappedFile>,
    range: std::ops::Range<usize>,
    shape: Vec<usize>,
    /// Or the name of one that we do not compute with.
    dtype: Result<DType, String>,
}

/// The tensors of a model folder by name.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<Arc<MappedFile>>,
    entries: BTreeMap<String, Entry>,
    copied: AtomicUsize,
    metadata: Option<Metadata>,
    /// What the file calls the tensor of a name.
    translate: fn(&str) -> Option<String>,
    device: Device,
    /// Tensors that are on another device than the CPU, by their names in the file: one that two layers share is there once.
    sent: Mutex<HashMap<String, Frozen>>,
}

impl Checkpoint {
    /// Opens `model.safetensors`, or the shards of `model.safetensors.index.json`, in `folder`; or a GGUF file.
    ///
    /// # Errors
    /// No weights there, a file that lies about itself, an index that leaves the folder or names what is not there.
    pub fn open(folder: &Path) -> Result<Checkpoint> {
        if folder.is_file() {
            return Checkpoint::open_gguf(folder);
        }
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
        Ok(Checkpoint::new(path, vec![file], entries))
    }

    /// Opens one GGUF file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_gguf(path: &Path) -> Result<Checkpoint> {
        let file = MappedFile::open(path)?;
        let (metadata, infos) = gguf::read(&file)?;
        let entry = |(name, info): (String, gguf::Info)| {
            let gguf::Info { range, shape, dtype } = info;
            (name, Entry { file: file.clone(), range, shape, dtype: Ok(dtype) })
        };
        let entries = infos.into_iter().map(entry).collect();
        let checkpoint = Checkpoint::new(path, vec![file.clone()], entries);
        Ok(Checkpoint { metadata: Some(metadata), ..checkpoint })
    }

    fn new(path: &Path, files: Vec<Arc<MappedFile>>, entries: BTreeMap<String, Entry>) -> Checkpoint {
        let (copied, metadata) = (AtomicUsize::new(0), None);
        let (translate, device, sent) = (|_: &str| None, Device::Cpu, Mutex::default());
        Checkpoint { path: path.to_path_buf(), files, entries, copied, metadata, translate, device, sent }
    }

    /// The same, whose tensors are sent to `device` as they are asked for, once each.
    ///
    /// # Errors
    /// There is no such device.
    pub fn on(self, device: Device) -> Result<Checkpoint> {
        device.start()?;
        Ok(Checkpoint { device, ..self })
    }

    /// The same, where the tensor `name` is asked for by the file's name `translate(name)`, if it has one.
    pub fn with_names(self, translate: fn(&str) -> Option<String>) -> Checkpoint {
        Checkpoint { translate, ..self }
    }

    /// The metadata of a GGUF file.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// Where the first tensor of a GGUF file begins.
    pub fn gguf_data_start(&self) -> Option<usize> {
        let starts = self.metadata.as_ref().map(|_| self.entries.values().map(|entry| entry.range.start))?;
        Some(starts.min().unwrap_or_else(|| self.files[0].bytes().len()))
    }

    fn in_file<'a>(&self, name: &'a str) -> Cow<'a, str> {
        (self.translate)(name).map_or(Cow::Borrowed(name), Cow::Owned)
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
        Ok(Checkpoint::new(folder, files, entries))
    }

    /// What was opened: a file, or the folder of the shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(&*self.in_file(name))
    }

    /// All names in the file, sorted.
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
            return Err(Error::Shape { name: self.in_file(name).into(), actual, expected });
        }
        Ok(tensor)
    }

    /// The tensor `name`, whatever its shape.
    ///
    /// # Errors
    /// It is missing, or has a dtype we do not compute with.
    pub fn tensor_of_any_shape(&self, name: &str) -> Result<Frozen> {
        let name = self.in_file(name);
        if self.device == Device::Cpu {
            return self.in_the_map(&name);
        }
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = sent.get(&*name) {
            return Ok(there.clone());
        }
        let there = self.in_the_map(&name)?.on(self.device)?;
        crate::device::check()?;
        sent.insert(name.into_owned(), there.clone());
        Ok(there)
    }

    /// The tensor that the file calls `name`, where it lies.
    fn in_the_map(&self, name: &str) -> Result<Frozen> {
        let Some(entry) = self.entries.get(name) else {
            let hint = format!("it has {} tensors", self.entries.len());
            return Err(Error::Missing { name: name.into(), path: self.path.clone(), hint });
        };
        let dtype = entry.dtype.clone().map_err(|dtype| Error::DType { name: name.into(), dtype })?;
        Ok(Frozen::new(Tensor::of_file(entry.shape.clone(), dtype, self.storage(entry, dtype))))
    }

    /// The first tensor that holds a NaN or an infinity. Reads every weight: for explaining a failed run.
    pub fn first_non_finite(&self) -> Option<&str> {
        let bad = |name: &&str| {
            let Ok(tensor) = self.in_the_map(name) else { return false };
            match tensor.elements() {
                kernels::Elements::F32(x) => x.iter().any(|x| !x.is_finite()),
                kernels::Elements::F16(x) => x.iter().any(|x| !x.is_finite()),
                kernels::Elements::Bf16(x) => x.iter().any(|x| !x.is_finite()),
                kernels::Elements::Blocks(x) => any_not_finite(x),
            }
        };
        self.names().find(bad)
    }

    fn storage(&self, entry: &Entry, dtype: DType) -> Storage {
        let mapped = Mapped::new(entry.file.clone(), entry.range.clone());
        let bytes = mapped.bytes();
        if bytes.as_ptr().align_offset(dtype.alignment()) == 0 {
            return Storage::Mapped(mapped);
        }
        self.copied.fetch_add(bytes.len(), Ordering::Relaxed);
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Storage::Copied(words.into())
    }
}

/// Whether a scale is not finite, and with it the numbers of its block.
fn any_not_finite(blocks: kernels::Blocks) -> bool {
    const AT_ONCE: usize = 1 << 14;
    let mut numbers = [0.0; AT_ONCE];
    (0..blocks.len()).step_by(AT_ONCE).any(|from| {
        let numbers = &mut numbers[..AT_ONCE.min(blocks.len() - from)];
        blocks.widen(from, numbers);
        numbers.iter().any(|x| !x.is_finite())
    })
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
        let dtype = match info.dtype {
            Dtype::F32 => Ok(DType::F32),
            Dtype::F16 => Ok(DType::F16),
            Dtype::BF16 => Ok(DType::Bf16),
            other => Err(format!("{other:?}")),
        };
        let shape = info.shape.clone();
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
    if let Some(file) = gguf_in(folder) {
        return format!("it holds the GGUF file {file}; give that file itself");
    }
    let torch =
        folder.join("pytorch_model.bin").is_file() || folder.join("pytorch_model.bin.index.json").is_file();
    match torch {
        true => "only PyTorch pickles (.bin) are there; save the model with `save_pretrained(..., safe_serialization=True)`".into(),
        false => "neither model.safetensors nor model.safetensors.index.json is there".into(),
    }
}

/// A GGUF file in the folder, the first by name.
fn gguf_in(folder: &Path) -> Option<String> {
    let files = std::fs::read_dir(folder).ok()?;
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    names.filter(|name| name.ends_with(".gguf")).min()
}
