//! CSV and TSV with a header line.

use serde_json::Value;

use super::RawRow;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Commas; fields may be quoted and then hold commas, quotes (doubled) and line ends (RFC 4180).
    Csv,
    /// Tabs; quotes are ordinary characters, as in the GLUE files.
    Tsv,
}

/// The rows of `text` under their header, or the line that is not one. Blank lines are skipped.
pub(super) fn rows(text: &str, dialect: Dialect) -> Result<Vec<RawRow>, (usize, String)> {
    let (delimiter, quoting) = match dialect {
        Dialect::Csv => (b',', true),
        Dialect::Tsv => (b'\t', false),
    };
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).quoting(quoting).from_reader(text.as_bytes());
    let mut lines = Lines { text: text.as_bytes(), at: 0, line: 1 };
    let header = reader.headers().map_err(|e| explained(&mut lines, &e))?.clone();
    check(&header)?;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| explained(&mut lines, &e))?;
        let line = lines.of(record.position());
        let value = |(name, field): (&str, &str)| (name.to_string(), Value::from(field));
        rows.push(RawRow { line, values: header.iter().zip(&record).map(value).collect() });
    }
    let last = &text[lines.at..];
    // a well-formed record has its quotes in pairs; an open one swallows the rest of the file
    if quoting && last.matches('"').count() % 2 == 1 && last.trim_end().contains('\n') {
        return Err((lines.line, "a quote that is opened here is never closed".into()));
    }
    Ok(rows)
}

/// Counts lines up to places in the text that come in ascending order.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line of the record at `position`, which may begin with blank lines.
    fn of(&mut self, position: Option<&csv::Position>) -> usize {
        let start = position.map_or(self.at, |p| p.byte() as usize).min(self.text.len());
        let blank = self.text[start..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let between = &self.text[self.at..start + blank];
        self.line += between.iter().filter(|&&b| b == b'\n').count();
        self.at = start + blank;
        self.line
    }
}

fn explained(lines: &mut Lines, error: &csv::Error) -> (usize, String) {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            (lines.of(pos.as_ref()), format!("it has {len} columns, the header has {expected_len}"))
        }
        _ => (lines.of(error.position()), error.to_string()),
    }
}

fn check(header: &csv::StringRecord) -> Result<(), (usize, String)> {
    for (i, name) in header.iter().enumerate() {
        if header.iter().take(i).any(|other| other == name) {
            return Err((1, format!("the header names column `{name}` twice")));
        }
    }
    Ok(())
}
