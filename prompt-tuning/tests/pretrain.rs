//! `pretrain` and `train --method full` as a user runs them.

mod fixture;
mod program;

use std::path::Path;

use program::{Case, json_lines, run};
use serde_json::Value;

/// A text with something to learn: which word follows which.
fn text() -> String {
    let line = |i: usize| match i % 3 {
        0 => format!("The cat number {i} sat on the mat and was very happy about it.\n\n"),
        1 => format!("房间{i}很安静，早餐也不错，下次还来。\n\n"),
        _ => format!("A dog number {i} ran after the ball and was very tired of it.\n\n"),
    };
    (0..300).map(line).collect()
}

fn pretrain_args(text: &Path, architecture: &str, out: &Path, steps: &str) -> Vec<String> {
    let args = [
        ["pretrain", "--architecture", architecture, "--text", text.to_str().expect("a path")],
        ["--out", out.to_str().expect("a path"), "--json", "--vocab-size", "400"],
        ["--d-model", "32", "--layers", "2", "--heads"],
        ["2", "--context", "32", "--batch", "8"],
        ["--valid-fraction", "0.1", "--warmup", "10", "--lr"],
        ["0.003", "--schedule", "constant", "--steps", steps],
    ];
    args.iter().flatten().map(|word| word.to_string()).collect()
}

fn pretrain(case: &Case, architecture: &str, out: &Path, steps: &str, extra: &[&str]) -> Vec<Value> {
    let args = pretrain_args(&case.file("text.txt", text()), architecture, out, steps);
    json_lines(&args.iter().map(String::as_str).chain(extra.iter().copied()).collect::<Vec<_>>())
}

#[test]
fn a_model_of_either_kind_learns_its_text_and_is_a_model_as_any_other() {
    // a masked model scores a sixth of the tokens and stays long at what words are frequent, perplexity 70
    for (architecture, steps, bound) in [("gpt2", "60", 40.0), ("bert", "500", 50.0)] {
        let case = Case::new();
        let out = case.path("model");
        let lines = pretrain(&case, architecture, &out, steps, &["--eval-every", "50"]);
        let summary = lines.last().expect("a summary");
        let perplexity = summary["valid"]["perplexity"].as_f64().expect("a perplexity");
        assert!(perplexity < bound, "{architecture}: {perplexity}");
        assert_eq!(summary["steps"].to_string(), steps);
        for file in ["config.json", "model.safetensors", "tokenizer.json", "metrics.jsonl", "training.svg"] {
            assert!(out.join(file).is_file(), "{architecture}: {file}");
        }
        let model = out.to_str().expect("a path");
        let (command, text) = match architecture {
            "gpt2" => ("generate", "The cat number"),
            _ => ("fill-mask", "The cat number 3 sat on the [MASK] and was very happy."),
        };
        let output = run(&[command, "--model", model, "--text", text, "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_resumed_run_has_the_bits_of_one_that_was_not_interrupted() {
    for architecture in ["gpt2", "bert"] {
        let (whole, parts) = (Case::new(), Case::new());
        let (a, b) = (whole.path("model"), parts.path("model"));
        pretrain(&whole, architecture, &a, "12", &[]);
        pretrain(&parts, architecture, &b, "7", &[]);
        pretrain(&parts, architecture, &b, "12", &["--resume"]);
        let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).expect("weights");
        assert!(weights(&a) == weights(&b), "{architecture}");
        // another text, or other arithmetic, is another run
        let other = parts.file("other.txt", text().replace("cat", "cow"));
        let same = pretrain_args(&parts.file("text.txt", text()), architecture, &b, "14");
        let another = pretrain_args(&other, architecture, &b, "14");
        for (args, extra) in [(&another, vec!["--resume"]), (&same, vec!["--resume", "--precision", "bf16"])]
        {
            let args: Vec<&str> = args.iter().map(String::as_str).chain(extra).collect();
            let output = run(&args);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(2) && stderr.contains("the data, --init"), "{stderr}");
        }
    }
}

#[test]
fn a_model_goes_on_with_other_text_and_stays_what_it_was() {
    for (architecture, folder) in [("gpt2", "gpt2-text"), ("bert", "bert-english")] {
        let case = Case::new();
        let (base, out) = (fixture::folder(folder), case.path("model"));
        let text = case.file("text.txt", text());
        let [base_path, text, out_path] = [&base, &text, &out].map(|p| p.to_str().expect("a path"));
        let before = std::fs::read(base.join("model.safetensors")).expect("weights");
        let args = ["pretrain", "--model", base_path, "--text", text, "--out", out_path, "--json"];
        let more =
            ["--batch", "8", "--context", "16", "--lr", "0.003", "--warmup", "5", "--valid-fraction", "0.1"];
        let lines = json_lines(&[&args[..], &more, &["--steps", "40", "--schedule", "constant"]].concat());
        let loss = |line: &Value| line["loss"].as_f64().expect("a loss");
        let steps: Vec<f64> = lines.iter().filter(|line| line["loss"].is_number()).map(loss).collect();
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        assert!(mean(&steps[35..]) < mean(&steps[..5]) - 0.3, "{architecture}: {steps:?}");
        assert!(before == std::fs::read(base.join("model.safetensors")).expect("weights"), "{architecture}");
        let tokenizer = |folder: &Path| std::fs::read(folder.join("tokenizer.json")).expect("a tokenizer");
        assert!(tokenizer(&base) == tokenizer(&out), "{architecture}");
        // the model that is read is never written
        let there = run(&[
            "pretrain",
            "--model",
            out_path,
            "--text",
            text,
            "--out",
            out_path,
            "--steps",
            "1",
            "--overwrite",
        ]);
        assert_eq!(there.status.code(), Some(2), "{}", String::from_utf8_lossy(&there.stderr));
        assert!(out.join("model.safetensors").is_file(), "{architecture}");
        // its shape is its own
        let output = run(&[&args[..], &["--steps", "1", "--layers", "3"]].concat());
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn what_cannot_be_trained_on_plain_text_is_refused_in_one_line() {
    let refused: [(&str, &[&str], &str); 3] = [
        ("t5-v1.0-relu-tied", &[], "encoder-decoder"),
        ("gpt2-classifier", &[], "classifier"),
        ("gpt2-text", &["--mask-probability", "0.3"], "--mask-probability"),
    ];
    for (folder, extra, why) in refused {
        let case = Case::new();
        let (text, out) = (case.file("text.txt", text()), case.path("model"));
        let [text, out_path] = [&text, &out].map(|p| p.to_str().expect("a path"));
        let model = fixture::folder(folder);
        let model = model.to_str().expect("a path");
        let args = ["pretrain", "--model", model, "--text", text, "--out", out_path, "--steps", "1"];
        let output = run(&[&args, extra].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{folder}: {stderr}");
        assert!(stderr.contains(why), "{stderr}");
        assert!(!out.exists());
    }
}

#[test]
fn text_that_is_too_little_is_refused_in_one_line() {
    let case = Case::new();
    let (tiny, out) = (case.file("tiny.txt", "one\n\ntwo\n\nthree"), case.path("model"));
    let output = run(&[
        "pretrain",
        "--text",
        tiny.to_str().expect("a path"),
        "--out",
        out.to_str().expect("a path"),
        "--steps",
        "1",
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(!out.exists());
}

/// Full fine-tuning from the command line: resumed with the same bits, the model in its folder answers as on dev.
#[test]
fn fine_tuning_is_resumed_and_its_folder_evaluates_as_its_best_step() {
    let case = Case::new();
    let rows: String = (0..24)
        .map(|i| match i % 2 {
            0 => format!("{{\"text\": \"good thing {i}\", \"label\": \"positive\"}}\n"),
            _ => format!("{{\"text\": \"bad thing {i}\", \"label\": \"negative\"}}\n"),
        })
        .collect();
    let (task, data) = (case.file("t.toml", program::TASK), case.file("rows.jsonl", rows));
    let model = fixture::folder("gpt2-text");
    let [task, data, model] = [&task, &data, &model].map(|p| p.to_str().expect("a path"));
    let train = |out: &Path, steps: &str, extra: &[&str]| {
        let out = out.to_str().expect("a path");
        let args =
            ["train", "--method", "full", "--model", model, "--task", task, "--train", data, "--dev", data];
        let more =
            ["--out", out, "--steps", steps, "--batch", "8", "--lr", "0.001", "--eval-every", "2", "--json"];
        json_lines(&[&args[..], &more, extra].concat())
    };
    let (a, b) = (case.path("a"), case.path("b"));
    let lines = train(&a, "6", &[]);
    train(&b, "3", &[]);
    train(&b, "6", &["--resume"]);
    let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).expect("weights");
    assert!(weights(&a) == weights(&b));
    let best = &lines.last().expect("a summary")["dev"]["accuracy"];
    let eval = json_lines(&[
        "eval",
        "--model",
        a.to_str().expect("a path"),
        "--task",
        task,
        "--data",
        data,
        "--json",
    ]);
    assert_eq!(&eval[0]["accuracy"], best);
}
