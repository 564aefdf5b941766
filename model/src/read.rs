//! A JSON file of a model folder, read key by key with errors that name file, key and value.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::{Error, Result};

/// No size in a configuration is larger: products of two of them cannot overflow.
const LARGEST: u64 = 1 << 28;

/// The object in a JSON file, or one inside it.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    path: PathBuf,
    object: Map<String, Value>,
}

impl Keys {
    pub(crate) fn new(path: &Path, object: Map<String, Value>) -> Keys {
        Keys { path: path.into(), object }
    }

    pub(crate) fn open(path: &Path) -> Result<Keys> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.into(), source })?;
        let config = |why: String| Error::Config { path: path.into(), why };
        match serde_json::from_str(&text) {
            Ok(Value::Object(object)) => Ok(Keys { path: path.into(), object }),
            Ok(_) => Err(config("a JSON object is needed".into())),
            Err(e) => Err(config(format!("not valid JSON: {e}"))),
        }
    }

    /// The value of `key`; `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|v| !v.is_null())
    }

    /// The object at `key`.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Keys>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Keys { path: self.path.clone(), object: object.clone() })),
            Some(other) => Err(self.wrong(key, other, "an object")),
        }
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.object.len()
    }

    /// A size: a whole number, at least one.
    pub(crate) fn size(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(n @ 1..=LARGEST) => Ok(Some(n as usize)),
            _ => Err(self.wrong(key, value, &format!("a whole number from 1 to {LARGEST}"))),
        }
    }

    /// A size that must be there.
    pub(crate) fn needed_size(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    /// A positive, finite number.
    pub(crate) fn positive(&self, key: &str) -> Result<Option<f32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64().map(|x| x as f32) {
            Some(x) if x.is_finite() && x > 0.0 => Ok(Some(x)),
            _ => Err(self.wrong(key, value, "a positive number")),
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, value, "a string"))
    }

    /// One token id, or a list of them.
    pub(crate) fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let id = |v: &Value| {
            let id = v.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| self.wrong(key, value, "a token id or a list of them"))
        };
        match value {
            Value::Array(ids) => ids.iter().map(id).collect(),
            one => Ok(vec![id(one)?]),
        }
    }

    pub(crate) fn missing(&self, key: &str) -> Error {
        self.config(format!("`{key}` is missing"))
    }

    pub(crate) fn wrong(&self, key: &str, value: impl Display, needed: &str) -> Error {
        let mut value = value.to_string();
        if let Some((at, _)) = value.char_indices().nth(60) {
            value.truncate(at);
            value.push('…');
        }
        self.config(format!("`{key}` is {value}, but must be {needed}"))
    }

    pub(crate) fn config(&self, why: String) -> Error {
        Error::Config { path: self.path.clone(), why }
    }

    pub(crate) fn unsupported(&self, why: String) -> Error {
        Error::Unsupported { path: self.path.clone(), why }
    }

    /// Refuses a key whose value changes the computation in a way that is not known here.
    pub(crate) fn refuse(&self, key: &str, harmless: bool) -> Result<()> {
        match self.get(key) {
            Some(value) if value.as_bool() != Some(harmless) => {
                Err(self.unsupported(format!("`{key}`: {value} is not supported; only {harmless} is")))
            }
            _ => Ok(()),
        }
    }
}
