//! The examples of `data/examples` on a small model: every task file is read, every row asked, everything is measured.

mod fixture;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kernels::testing::{Tolerance, close};
use serde_json::{Value, json};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data").join(name)
}

fn program(command: &str, task: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_prompt-tuning"));
    program.arg(command).arg("--model").arg(fixture::folder("gpt2-text")).arg("--task").arg(task);
    program
}

fn ran(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout);
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The folders that have data of their own.
fn with_data() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(data("examples")).expect("examples");
    let mut folders: Vec<PathBuf> = folders.map(|entry| entry.expect("an entry").path()).collect();
    folders.retain(|folder| folder.join("test.jsonl").exists());
    folders.sort();
    folders
}

#[test]
fn every_example_is_asked_and_measured() {
    let folders = with_data();
    assert!(folders.len() >= 5, "{folders:?}");
    for folder in folders {
        let task = folder.join("task.toml");
        let file = std::fs::read_to_string(&task).expect("a task");
        let metric =
            file.lines().find_map(|line| line.strip_prefix("metric = ")).map(|m| m.trim_matches('"'));
        let is_text = file.contains("[answer]");
        let mut eval = program("eval", &task);
        eval.arg("--data").arg(folder.join("test.jsonl")).arg("--train").arg(folder.join("train.jsonl"));
        eval.args(["--shots", "0,1", "--policy", "drop-farthest", "--max-rows", "3", "--json"]);
        let measured = ran(&eval.output().expect("it runs"));
        assert_eq!(measured.len(), 2, "{}", folder.display());
        for one in measured {
            assert_eq!(one["n"], 3, "{}", folder.display());
            let metric = metric.unwrap_or(if is_text { "exact_match" } else { "accuracy" });
            let share = one[metric].as_f64().unwrap_or_else(|| panic!("{}: no {metric}", folder.display()));
            assert!((0.0..=1.0).contains(&share), "{}: {metric} {share}", folder.display());
            // a model of random weights knows nothing: about as many choices as it has tokens
            let perplexity = one.get("perplexity").map(|p| p.as_f64().expect("a number"));
            assert_eq!(perplexity.is_some(), is_text, "{}", folder.display());
            assert!(perplexity.is_none_or(|p| p > 1.0), "{}: {perplexity:?}", folder.display());
        }
    }
}

#[test]
fn virtual_tokens_within_the_text_are_trained_and_measured() {
    for (task, rows) in [("mixed/task.toml", "reviews"), ("en-fr/soft.toml", "examples/en-fr")] {
        let (out, task) = (tempfile::tempdir().expect("a folder"), data("examples").join(task));
        let (prompt, rows) = (out.path().join("prompt"), data(rows));
        let mut train = program("train", &task);
        train.arg("--train").arg(rows.join("train.jsonl")).arg("--out").arg(&prompt);
        let steps = ran(&train.args(["--steps", "2", "--batch", "4", "--json"]).output().expect("it runs"));
        assert_eq!(steps.last().expect("an end")["steps"], 2);
        let mut eval = program("eval", &task);
        eval.arg("--data").arg(rows.join("test.jsonl")).arg("--prompt").arg(&prompt);
        let measured = ran(&eval.args(["--max-rows", "4", "--json"]).output().expect("it runs"));
        assert_eq!(measured[0]["n"], 4);
    }
}

/// Perplexity is that of the same texts, written out by hand, by `score`.
#[test]
fn perplexity_is_over_all_tokens_of_the_right_texts() {
    let out = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = out.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let asked = file(
        "test.jsonl",
        "{\"en\": \"the dog\", \"fr\": \"le chien\"}\n{\"en\": \"Yes\", \"fr\": \"Oui\"}\n",
    );
    let shown = file("train.jsonl", "{\"en\": \"Hello\", \"fr\": \"Bonjour\"}\n");
    let task = data("examples/en-fr/task.toml");
    let say = "Translate English to French:";
    for (shots, before) in [("0", String::new()), ("1", format!("{say} Hello → Bonjour\n"))] {
        let mut eval = program("eval", &task);
        eval.arg("--data").arg(&asked).arg("--train").arg(&shown);
        eval.args(["--shots", shots, "--choice", "first", "--batch", "1", "--json"]);
        let perplexity = ran(&eval.output().expect("it runs"))[0]["perplexity"].as_f64().expect("a number");

        let row = |en: &str, fr: &str| json!({ "prompt": format!("{before}{say} {en} →"), "completion": format!(" {fr}\n") });
        let pairs = file("pairs.jsonl", &format!("{}\n{}\n", row("the dog", "le chien"), row("Yes", "Oui")));
        let mut score = Command::new(env!("CARGO_BIN_EXE_prompt-tuning"));
        score.arg("score").arg("--model").arg(fixture::folder("gpt2-text")).arg("--data").arg(&pairs);
        let scored = ran(&score.arg("--json").output().expect("it runs"));
        let log_probs = scored.iter().flat_map(|row| row["token_log_probs"].as_array().expect("a list"));
        let log_probs: Vec<f64> = log_probs.map(|p| p.as_f64().expect("a number")).collect();
        let by_hand = (-log_probs.iter().sum::<f64>() / log_probs.len() as f64).exp();
        close(&[perplexity], &[by_hand], Tolerance::both(1e-5)).expect(shots);
    }
}
