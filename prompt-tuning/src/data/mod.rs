//! Data files: JSONL, CSV and TSV, each row checked before anything is computed; errors name file and line.
//!
//! With a task, a row is an [`Example`]: the fields of the template, and a label or the text that is right. Without, it is a [`Pair`]: a prompt
//! and the completion that is scored after it, as text or as raw token ids, or raw ids with masks in them. Fields nobody
//! asked for are ignored.

mod delimited;
mod jsonl;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::task::{Answers, FreeText, Task};

/// The rows of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset<R> {
    /// The file, for messages.
    pub path: PathBuf,
    /// In the order of the file; at least one.
    pub rows: Vec<R>,
}

/// A row of a task's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Line of the file it starts at, from 1.
    pub line: usize,
    /// What the template needs.
    pub fields: BTreeMap<String, String>,
    /// Index into the task's labels; `None` where the row has none.
    pub label: Option<usize>,
    /// The right answer of a task whose answers are texts; `None` where the row has none.
    pub answer: Option<String>,
}

/// A row of data without a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Line of the file it starts at, from 1.
    pub line: usize,
    /// What is read, and what is scored.
    pub content: Content,
}

/// A text and what is scored in it or after it, which is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text, for the tokenizer.
    Text {
        /// What is continued. It may be empty.
        prompt: String,
        /// What is scored.
        completion: String,
    },
    /// Token ids, used as they are.
    Ids {
        /// What is continued. It may be empty.
        prompt: Vec<u32>,
        /// What is scored.
        completion: Vec<u32>,
    },
    /// Token ids with masks, used as they are.
    Masked {
        /// The whole text, mask tokens included.
        ids: Vec<u32>,
        /// Places in `ids` and the token that is scored there; every place is in `ids`, none twice.
        masks: Vec<(usize, u32)>,
    },
}

/// Whether every row must have a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Training and evaluation.
    Required,
    /// Prediction: labels are checked where they are.
    Optional,
}

/// A row before it is known what it is for: line and values by name. CSV and TSV values are all strings.
struct RawRow {
    line: usize,
    values: Map<String, Value>,
}

/// Reads the examples of `task`.
///
/// # Errors
/// [`Error::Read`], or [`Error::Data`] for the first row that cannot be used.
pub fn read_examples(path: &Path, task: &Task, labels: Labels) -> Result<Dataset<Example>> {
    rows_of(path, |row| example(row, task, labels))
}

/// Reads prompts and completions. All rows must be of one kind, text or ids.
///
/// # Errors
/// As [`read_examples`].
pub fn read_pairs(path: &Path) -> Result<Dataset<Pair>> {
    let data = rows_of(path, pair)?;
    let kind = |row: &Pair| std::mem::discriminant(&row.content);
    if let Some(odd) = data.rows.iter().find(|row| kind(row) != kind(&data.rows[0])) {
        let why =
            "rows of different kinds (text, token ids, ids with masks) are mixed in this file; make two files of it"
                .into();
        return Err(data.error(odd.line, why));
    }
    Ok(data)
}

/// Examples of texts given as arguments, for a task whose template has one field. Their lines count the arguments.
///
/// # Errors
/// An empty text, or a template with another number of fields.
pub fn examples_of_texts(texts: &[String], task: &Task) -> Result<Dataset<Example>> {
    let names = task.fields();
    let [name] = names[..] else {
        let fields = if names.is_empty() { "none".into() } else { names.join(", ") };
        let why =
            format!("a text as argument needs a template with one field; this one has: {fields}. Use --data");
        return Err(Error::Input(why));
    };
    let row = |(i, text): (usize, &String)| {
        if text.trim().is_empty() {
            return Err(Error::Input(format!("text {} is empty", i + 1)));
        }
        let fields = BTreeMap::from([(name.to_string(), text.clone())]);
        Ok(Example { line: i + 1, fields, label: None, answer: None })
    };
    let rows = texts.iter().enumerate().map(row).collect::<Result<_>>()?;
    Ok(Dataset { path: "argument".into(), rows })
}

impl<R> Dataset<R> {
    pub(crate) fn error(&self, line: usize, why: String) -> Error {
        Error::Data { path: self.path.clone(), line, why }
    }
}

fn rows_of<R>(path: &Path, parse: impl Fn(&RawRow) -> Result<R, String>) -> Result<Dataset<R>> {
    let bytes = std::fs::read(path).map_err(|e| Error::read(path, e))?;
    let failed = |(line, why)| Error::Data { path: path.to_path_buf(), line, why };
    let text = utf8(&bytes).map_err(failed)?;
    let extension = path.extension().map(|e| e.to_ascii_lowercase());
    let raw = match extension.as_ref().and_then(|e| e.to_str()) {
        Some("jsonl" | "json" | "ndjson") => jsonl::rows(text),
        Some("csv") => delimited::rows(text, delimited::Dialect::Csv),
        Some("tsv") => delimited::rows(text, delimited::Dialect::Tsv),
        _ => return Err(Error::file(path, "the name of a data file must end in .jsonl, .csv or .tsv")),
    };
    let parse = |row: &RawRow| parse(row).map_err(|why| failed((row.line, why)));
    let rows: Vec<R> = raw.map_err(failed)?.iter().map(parse).collect::<Result<_>>()?;
    match rows.is_empty() {
        true => Err(Error::file(path, "it has no rows")),
        false => Ok(Dataset { path: path.to_path_buf(), rows }),
    }
}

/// The text without a byte order mark, or the line that is not UTF-8.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, (usize, String)> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        (line, "it is not UTF-8; convert the file, for example with `iconv -t UTF-8`".into())
    })
}

/// The string in field `name` of every row of a JSONL file, or the line that has none.
pub(crate) fn strings_of_jsonl(text: &str, name: &str) -> Result<Vec<String>, (usize, String)> {
    let string_of = |row: &RawRow| string(row, name)?.map(String::from).ok_or_else(|| missing(row, name));
    jsonl::rows(text)?.iter().map(|row| string_of(row).map_err(|why| (row.line, why))).collect()
}

fn example(row: &RawRow, task: &Task, labels: Labels) -> Result<Example, String> {
    let mut fields = BTreeMap::new();
    for name in task.fields() {
        let text = string(row, name)?.ok_or_else(|| {
            format!("there is no field `{name}`, which the template needs (the row has: {})", names(row))
        })?;
        if text.trim().is_empty() {
            return Err(format!("field `{name}` is empty"));
        }
        fields.insert(name.to_string(), text.to_string());
    }
    let (label, answer) = match &task.answers {
        Answers::Labels(_) => (label(row, task, labels)?, None),
        Answers::Text(text) => (None, answer(row, text, labels)?),
    };
    Ok(Example { line: row.line, fields, label, answer })
}

/// The right text: a string, or for answers that are lists also a list of strings.
fn answer(row: &RawRow, text: &FreeText, labels: Labels) -> Result<Option<String>, String> {
    let name = &text.field;
    let answer = match (row.values.get(name), &text.list) {
        (None | Some(Value::Null), _) => None,
        (Some(Value::Array(items)), Some(separator)) => {
            let item = |item: &Value| item.as_str().map(String::from);
            let items: Option<Vec<String>> = items.iter().map(item).collect();
            let items = items.ok_or_else(|| format!("`{name}` must be a list of strings"))?;
            if let Some(odd) = items.iter().find(|item| item.contains(separator.as_str())) {
                return Err(format!("`{name}`: item {odd:?} contains {separator:?}, which separates items"));
            }
            let spaced =
                format!("{}{}", separator, if separator.ends_with(char::is_whitespace) { "" } else { " " });
            Some(items.join(&spaced))
        }
        (Some(_), _) => string(row, name)?.map(String::from),
    };
    match answer {
        None if labels == Labels::Required => Err(missing(row, name)),
        other => Ok(other),
    }
}

fn label(row: &RawRow, task: &Task, labels: Labels) -> Result<Option<usize>, String> {
    let name = match row.values.get("label") {
        None | Some(Value::Null) if labels == Labels::Optional => return Ok(None),
        None | Some(Value::Null) => {
            return Err(format!("there is no field `label` (the row has: {})", names(row)));
        }
        Some(Value::String(name)) if name.is_empty() && labels == Labels::Optional => return Ok(None),
        Some(Value::String(name)) => name.clone(),
        // numeric labels are written as numbers by many tools
        Some(Value::Number(n)) if n.is_u64() || n.is_i64() => n.to_string(),
        Some(other) => {
            return Err(format!("`label` must be a string or a whole number, not {}", kind(other)));
        }
    };
    let index = task.label(&name);
    let unknown = || {
        format!("label `{name}` is not in the verbalizer of task `{}` ({})", task.name, task.label_names())
    };
    index.map(Some).ok_or_else(unknown)
}

fn pair(row: &RawRow) -> Result<Pair, String> {
    let has = |name: &str| row.values.contains_key(name);
    if has("mask_positions") || has("labels") {
        return Ok(Pair { line: row.line, content: masked(row)? });
    }
    let content = match (has("prompt") || has("completion"), has("prompt_ids") || has("completion_ids")) {
        (true, true) => return Err("it has both text and token ids; keep one of them".into()),
        (true, false) => {
            let text = |name| string(row, name)?.map(String::from).ok_or_else(|| missing(row, name));
            Content::Text { prompt: text("prompt")?, completion: text("completion")? }
        }
        (false, true) => {
            Content::Ids { prompt: ids(row, "prompt_ids")?, completion: ids(row, "completion_ids")? }
        }
        (false, false) => {
            let why = "needs `prompt` and `completion`, or `prompt_ids` and `completion_ids`, or, for a masked \
                       model, `ids`, `mask_positions` and `labels`";
            let has = names(row);
            return Err(format!(
                "a row {why} (it has: {has}); for rows with other fields give a --task file"
            ));
        }
    };
    let empty = match &content {
        Content::Text { completion, .. } => completion.is_empty(),
        Content::Ids { completion, .. } => completion.is_empty(),
        Content::Masked { masks, .. } => masks.is_empty(),
    };
    match empty {
        true => Err("the completion is empty; there is nothing to score".into()),
        false => Ok(Pair { line: row.line, content }),
    }
}

fn masked(row: &RawRow) -> Result<Content, String> {
    let (text, at, labels) = (ids(row, "ids")?, ids(row, "mask_positions")?, ids(row, "labels")?);
    if at.is_empty() || at.len() != labels.len() {
        let (n, m) = (at.len(), labels.len());
        return Err(format!("`mask_positions` has {n} entries and `labels` {m}; each mask needs its label"));
    }
    let masks: Vec<(usize, u32)> = at.iter().map(|&at| at as usize).zip(labels).collect();
    if let Some((outside, _)) = masks.iter().find(|&&(at, _)| at >= text.len()) {
        let last = text.len().saturating_sub(1);
        return Err(format!("`mask_positions` has {outside}, but the places in `ids` are 0 to {last}"));
    }
    let mut seen = std::collections::BTreeSet::new();
    if let Some((twice, _)) = masks.iter().find(|&&(at, _)| !seen.insert(at)) {
        return Err(format!("`mask_positions` has {twice} twice"));
    }
    Ok(Content::Masked { ids: text, masks })
}

fn string<'a>(row: &'a RawRow, name: &str) -> Result<Option<&'a str>, String> {
    match row.values.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{name}` must be a string, not {}", kind(other))),
    }
}

fn ids(row: &RawRow, name: &str) -> Result<Vec<u32>, String> {
    let wrong = |what: String| format!("`{name}` must be a list of token ids, as in [1, 2, 3], not {what}");
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| wrong(format!("a list with {value}")))
    };
    match row.values.get(name) {
        None => Err(missing(row, name)),
        Some(Value::Array(list)) => list.iter().map(id).collect(),
        Some(other) => Err(wrong(kind(other).into())),
    }
}

fn missing(row: &RawRow, name: &str) -> String {
    format!("there is no field `{name}` (the row has: {})", names(row))
}

fn names(row: &RawRow) -> String {
    match row.values.is_empty() {
        true => "nothing".into(),
        false => row.values.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
