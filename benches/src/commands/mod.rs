//! The commands: arguments in, text out.

pub(crate) mod generate;
pub(crate) mod gpu;
pub(crate) mod ladder;
pub(crate) mod roofline;
pub(crate) mod step;
pub(crate) mod table;

use std::io::Write;
use std::path::Path;

/// Prints a line. A reader that has gone (`| head`) is an error, not a panic.
fn say(line: &str) -> Result<(), String> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(|e| format!("cannot print: {e}"))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Replaces the part of `path` between the markers of `name` by `text`.
fn write_between(path: &Path, name: &str, text: &str) -> Result<(), String> {
    let new = prompt_tuning_benches::markdown::replace(&read(path)?, name, text)
        .map_err(|why| format!("{}: {why}", path.display()))?;
    write(path, &new)
}
