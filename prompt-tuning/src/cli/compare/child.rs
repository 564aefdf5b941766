//! Another command of this program in a process of its own.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::cli::INTERRUPTED;
use crate::error::{Error, Result};

/// Arguments of a command, in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Words(pub(super) Vec<OsString>);

impl Words {
    /// The command itself.
    pub(in crate::cli) fn of(command: &str) -> Words {
        Words(vec![command.into()])
    }

    /// One more word.
    pub(in crate::cli) fn word(mut self, word: impl Into<OsString>) -> Words {
        self.0.push(word.into());
        self
    }

    /// An option and its value.
    pub(in crate::cli) fn option(self, name: &str, value: impl Into<OsString>) -> Words {
        self.word(name).word(value)
    }

    /// The same, where there is a value.
    pub(in crate::cli) fn maybe(self, name: &str, value: Option<impl Into<OsString>>) -> Words {
        match value {
            Some(value) => self.option(name, value),
            None => self,
        }
    }
}

/// A process that does not outlive its owner.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        // both fail when it has ended, as it mostly has
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs this program with these arguments and `--json`; every line that it prints goes to `each`.
///
/// # Errors
/// The process cannot be started or fails: what it said.
pub(in crate::cli) fn run(words: &Words, mut each: impl FnMut(&Value)) -> Result<Vec<Value>> {
    let failed = |why: String| {
        let line: Vec<_> = words.0.iter().map(|word| word.to_string_lossy()).collect();
        Error::Failure(format!("`prompt-tuning {}`: {why}", line.join(" ")))
    };
    let program = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
    let mut command = Command::new(program);
    command.args(&words.0).arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Child(command.spawn().map_err(|e| failed(e.to_string()))?);
    let mut errors = child.0.stderr.take().expect("it is piped");
    // read beside stdout: a full pipe would stop the child
    let said = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    });
    let mut lines = Vec::new();
    for line in BufReader::new(child.0.stdout.take().expect("it is piped")).lines() {
        let line = line.map_err(|e| failed(e.to_string()))?;
        let value = serde_json::from_str(&line).map_err(|e| failed(format!("{e} in {line:?}")))?;
        each(&value);
        lines.push(value);
    }
    let status = child.0.wait().map_err(|e| failed(e.to_string()))?;
    let said = said.join().unwrap_or_default();
    match status.success() {
        true => Ok(lines),
        // Ctrl-C reaches the child as well, and what it says then is not what matters
        false if INTERRUPTED.load(Ordering::Relaxed) => {
            Err(Error::Interrupted("interrupted; finished cells are kept, continue with --resume".into()))
        }
        false => Err(failed(said.trim().trim_start_matches("error: ").to_string())),
    }
}
