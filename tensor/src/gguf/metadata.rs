//! The metadata of a GGUF file: keys and where their values lie. A vocabulary is walked over once, to find its end, and
//! decoded when it is asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::reader::Reader;
use crate::mapped::MappedFile;

/// No reader of these files nests arrays; a few levels are harmless, endless ones are an attack on the stack.
const DEEPEST: usize = 4;
/// Longer keys are not valid.
const LONGEST_KEY: usize = 1 << 16;

/// The number of a string's kind.
const STRING: u32 = 8;
/// The number of an array's kind.
const ARRAY: u32 = 9;

/// Keys and values of a file.
#[derive(Clone, Debug)]
pub struct Metadata {
    file: Arc<MappedFile>,
    /// The kind of each value, and at which byte it is.
    places: BTreeMap<String, (u32, usize)>,
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// u8 to u64.
    Unsigned(u64),
    /// i8 to i64.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A string.
    Text(&'a str),
    /// An array of so many values; see [`Metadata::array`].
    Array(u64),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Unsigned(n) => n.fmt(f),
            Value::Signed(n) => n.fmt(f),
            Value::Float(x) => x.fmt(f),
            Value::Bool(b) => b.fmt(f),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Array(n) => write!(f, "an array of {n}"),
        }
    }
}

impl Metadata {
    pub(super) fn read(file: Arc<MappedFile>, reader: &mut Reader, count: u64) -> Result<Metadata, String> {
        let mut places = BTreeMap::new();
        for i in 0..count {
            let key = reader.string("a key").map_err(|why| format!("metadata pair {i} of {count}: {why}"))?;
            let named = |why: String| format!("metadata `{key}`: {why}");
            if key.is_empty() || key.len() > LONGEST_KEY {
                return Err(format!("metadata pair {i} has a key of {} bytes", key.len()));
            }
            let kind = reader.u32("its kind").map_err(named)?;
            let at = reader.at();
            skip(reader, kind, 0).map_err(named)?;
            if places.insert(key.to_string(), (kind, at)).is_some() {
                return Err(format!("metadata has `{key}` twice"));
            }
        }
        Ok(Metadata { file, places })
    }

    /// The value of `key`. A string or element that is not UTF-8 was refused when the file was opened.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let &(kind, at) = self.places.get(key)?;
        value(&mut Reader::at_byte(self.file.bytes(), at), kind).ok()
    }

    /// The values of the array `key`; arrays inside it are skipped over. `None` when there is no such array.
    pub fn array(&self, key: &str) -> Option<Vec<Value<'_>>> {
        let &(ARRAY, at) = self.places.get(key)? else { return None };
        let mut reader = Reader::at_byte(self.file.bytes(), at);
        let (kind, count) = (reader.u32("").ok()?, reader.u64("").ok()?);
        (0..count)
            .map(|_| {
                let (here, value) = (reader.at(), value(&mut reader, kind).ok()?);
                if kind == ARRAY {
                    reader = Reader::at_byte(self.file.bytes(), here);
                    skip(&mut reader, kind, 0).ok()?;
                }
                Some(value)
            })
            .collect()
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// The file they are in.
    pub fn file(&self) -> &Arc<MappedFile> {
        &self.file
    }
}

/// Bytes of a number.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// Goes over a value.
fn skip(reader: &mut Reader, kind: u32, depth: usize) -> Result<(), String> {
    match (kind, width(kind)) {
        (_, Some(width)) => reader.take(width, "a value").map(drop),
        (STRING, _) => reader.string("a string").map(drop),
        (ARRAY, _) if depth == DEEPEST => Err(format!("arrays are nested more than {DEEPEST} deep")),
        (ARRAY, _) => {
            let (kind, count) = (reader.u32("an array")?, reader.u64("an array")?);
            if let Some(width) = width(kind) {
                return reader.take(count.saturating_mul(width), "an array").map(drop);
            }
            // each of them takes bytes, so a count that is too large ends with the file
            (0..count).try_for_each(|_| skip(reader, kind, depth + 1))
        }
        _ => Err(format!("its kind {kind} is unknown")),
    }
}

/// The value at the reader's place; of an array, its length.
fn value<'a>(reader: &mut Reader<'a>, kind: u32) -> Result<Value<'a>, String> {
    match kind {
        STRING => return reader.string("a string").map(Value::Text),
        ARRAY => {
            reader.u32("an array")?;
            return reader.u64("an array").map(Value::Array);
        }
        _ => {}
    }
    let width = width(kind).ok_or_else(|| format!("its kind {kind} is unknown"))?;
    let bytes = reader.take(width, "a value")?;
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    let word = u64::from_le_bytes(padded);
    Ok(match kind {
        1 => Value::Signed((word as i8).into()),
        3 => Value::Signed((word as i16).into()),
        5 => Value::Signed((word as i32).into()),
        11 => Value::Signed(word as i64),
        6 => Value::Float(f32::from_bits(word as u32).into()),
        12 => Value::Float(f64::from_bits(word)),
        7 => Value::Bool(word != 0),
        _ => Value::Unsigned(word),
    })
}
