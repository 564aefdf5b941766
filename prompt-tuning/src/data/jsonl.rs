//! One JSON object a line.

use serde_json::{Map, Value};

use super::RawRow;

/// The rows of `text`, or the line that is not one. Blank lines are skipped.
pub(super) fn rows(text: &str) -> Result<Vec<RawRow>, (usize, String)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| row(line).map(|values| RawRow { line: i + 1, values }).map_err(|why| (i + 1, why)))
        .collect()
}

fn row(line: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(line) {
        Ok(Value::Object(values)) => Ok(values),
        Ok(other) => {
            Err(format!("a row must be an object, as in {{\"text\": …}}, not {}", super::kind(&other)))
        }
        Err(_) if line.trim_start().starts_with('[') => {
            Err("this looks like one JSON list; write one object a line (JSONL)".into())
        }
        // the line in serde's message is always 1; the column is of use
        Err(e) => {
            let message = e.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            Err(format!("invalid JSON at column {}: {message}", e.column()))
        }
    }
}
