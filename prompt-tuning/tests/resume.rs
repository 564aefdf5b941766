//! A run that is killed and resumed ends with the bits of one that was not.

mod fixture;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

const STEPS: u64 = 9;

const SOFT: &[&str] = &[];

fn train(out: &Path, resume: bool) -> Command {
    train_by(SOFT, out, resume)
}

fn train_by(method: &[&str], out: &Path, resume: bool) -> Command {
    let reviews = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/reviews");
    let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-tuning"));
    command.arg("train").arg("--model").arg(fixture::folder("gpt2-text"));
    command.arg("--task").arg(reviews.join("task.toml")).arg("--train").arg(reviews.join("train.jsonl"));
    command.arg("--dev").arg(reviews.join("dev.jsonl")).arg("--out").arg(out);
    command.args(["--batch", "8", "--lr", "0.02", "--schedule", "cosine", "--warmup", "2", "--clip", "1"]);
    command.args(["--steps", &STEPS.to_string(), "--eval-every", "4", "--save-every", "2", "--json"]);
    command.args(method);
    command.args(if resume { &["--resume"][..] } else { &[] });
    command
}

/// Runs until the line of step `step` is printed, then kills the process.
fn killed_after(step: u64, method: &[&str], out: &Path, resume: bool) {
    let mut child = train_by(method, out, resume).stdout(Stdio::piped()).spawn().expect("the program starts");
    for line in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
        let line: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        if line["step"].as_u64() >= Some(step) {
            break;
        }
    }
    child.kill().expect("SIGKILL"); // on Unix this is SIGKILL: nothing can be saved on the way out
    child.wait().expect("it ends");
}

/// The log without what depends on the clock.
fn log(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).expect("a log");
    let without_time = |line: &str| {
        let mut value: Value = serde_json::from_str(line).expect("JSON");
        value.as_object_mut().expect("an object").remove("seconds");
        value
    };
    text.lines().map(without_time).collect()
}

/// Killed after each of `steps`, and a second time on the way, further on.
fn same_bits(method: &[&str], steps: impl IntoIterator<Item = u64>) {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("whole");
    let done = train_by(method, &whole, false).output().expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let adapter = |out: &Path| std::fs::read(out.join("adapter_model.safetensors")).expect("an adapter");
    assert!(!adapter(&whole).is_empty());

    for step in steps {
        let out = folder.path().join(format!("killed-{step}"));
        killed_after(step, method, &out, false);
        killed_after((step + 3).min(STEPS - 1), method, &out, true);
        let resumed = train_by(method, &out, true).output().expect("it runs");
        assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
        assert_eq!(adapter(&out), adapter(&whole), "{method:?} killed after step {step}");
        assert_eq!(log(&out), log(&whole), "{method:?} killed after step {step}");
    }
}

#[test]
fn killed_at_any_step_and_resumed_the_prompt_has_the_same_bits() {
    same_bits(SOFT, 1..STEPS);
}

#[test]
fn networks_and_prefixes_are_resumed_with_the_same_bits() {
    same_bits(&["--method", "p-tuning", "--encoder", "lstm", "--encoder-hidden", "8"], [3]);
    same_bits(&["--method", "prefix", "--init", "text:is it good", "--optimizer", "adafactor"], [5]);
    same_bits(&["--method", "prefix", "--prefix-projection", "--init", "zero"], [4]);
}

#[test]
fn another_run_is_neither_resumed_nor_overwritten_by_accident() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    assert!(train(&out, false).output().expect("it runs").status.success());
    let again = train(&out, false).output().expect("it runs");
    assert_eq!(again.status.code(), Some(2));
    let message = String::from_utf8_lossy(&again.stderr).to_string();
    assert!(
        message.contains("--resume") && message.contains("--overwrite") && message.lines().count() == 1,
        "{message}"
    );

    let other = train(&out, true).args(["--seed", "7"]).output().expect("it runs");
    let message = String::from_utf8_lossy(&other.stderr).to_string();
    assert_eq!(other.status.code(), Some(2));
    assert!(message.contains("seed = 0, not 7"), "{message}");
    let other = train_by(&["--method", "p-tuning"], &out, true).output().expect("it runs");
    let message = String::from_utf8_lossy(&other.stderr).to_string();
    assert!(other.status.code() == Some(2) && message.contains("method = "), "{message}");
}
