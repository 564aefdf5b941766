//! The program as a user runs it, on files of a folder that goes away.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// A task that the small models with a tokenizer of their own can read, masked ones too.
pub(crate) const TASK: &str = r#"
name = "t"
template = "{text} {mask}"
separator = "\n"
[labels]
positive = " positive"
negative = " negative"
"#;

/// A folder of its own.
pub(crate) struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    pub(crate) fn new() -> Case {
        Case { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }
}

pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prompt-tuning")).args(args).output().expect("the program")
}

/// The JSON lines of a command that must succeed.
pub(crate) fn json_lines(args: &[&str]) -> Vec<Value> {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The one line of a command that must be refused as bad input.
pub(crate) fn refusal(args: &[&str]) -> String {
    refused(args, 2)
}

/// The one line of a command that must end with `code`.
pub(crate) fn refused(args: &[&str], code: i32) -> String {
    let output = run(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!((output.status.code(), errors.len()), (Some(code), 1), "{args:?}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    errors[0].to_string()
}
