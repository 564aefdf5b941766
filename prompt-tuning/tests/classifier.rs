//! `--head`: logits as transformers computes them, a run and its folder as a user has them, and what is refused.
//! Gradients and losses are in `full_finetuning`.

mod fixture;
mod program;

use std::path::{Path, PathBuf};

use autograd::Tape;
use kernels::testing::{Tolerance, close};
use model::{LanguageModel, PackedBatch};
use program::{Case, json_lines, refusal};
use prompt_tuning::head;
use prompt_tuning::trained_weights::{Selection, TrainedWeights};
use serde_json::{Value, json};

#[test]
fn logits_are_those_of_transformers() {
    for case in ["gpt2-classifier", "llama-classifier", "bert-classifier"] {
        let model = LanguageModel::open(&fixture::folder(case)).expect("a model");
        let batch = PackedBatch::from_rows(model.family(), &fixture::rows_behind(case, 0));
        let states = model.states(&Tape::new(), &batch.forest, None, (Some(&batch.outputs), None));
        let logits = model.logits(states.tensor());
        let expected = &fixture::expected(case)["batch"];
        for (row, targets) in expected.as_array().expect("rows").iter().zip(&batch.row_targets) {
            let at = batch.targets[targets[0] as usize].row as usize;
            let ours = &logits.f32s()[at * logits.width()..][..logits.width()];
            let theirs = row["logits"].as_array().expect("logits").iter();
            let theirs: Vec<f32> = theirs.filter_map(Value::as_f64).map(|x| x as f32).collect();
            close(ours, &theirs, Tolerance::both(1e-5)).unwrap_or_else(|e| panic!("{case}: {e}"));
        }
    }
}

fn labels() -> Vec<String> {
    ["a", "b", "c"].map(String::from).to_vec()
}

#[test]
fn a_new_head_comes_from_the_seed() {
    for (name, weights) in [("gpt2-text", 1), ("llama-gqa-tied-bf16", 1), ("bert-english", 4)] {
        let base = LanguageModel::open(&fixture::folder(name)).expect("a model");
        let with_head = |seed| {
            let model = head::on(&base, &labels(), seed).expect("a head");
            TrainedWeights::of(&model, &"head".parse::<Selection>().expect("a selection")).expect("weights")
        };
        let first = with_head(1);
        assert_eq!(first.parameters.len(), weights, "{name}");
        assert_eq!(first, with_head(1));
        assert_ne!(first, with_head(2));
        for p in &first.parameters {
            let n = p.values().len() as f32;
            let std = (p.values().iter().map(|x| x * x).sum::<f32>() / n).sqrt();
            match p.name.ends_with(".bias") {
                true => assert_eq!(std, 0.0),
                // three standard errors
                false => {
                    assert!((std / 0.02 - 1.0).abs() < 3.0 / (2.0 * n).sqrt(), "{name}: {}: {std}", p.name)
                }
            }
        }
    }
}

/// What pretraining has already made of a BERT's pooler is used.
#[test]
fn the_pooler_of_the_checkpoint_stays() {
    let base = LanguageModel::open(&fixture::folder("bert-chinese")).expect("a model");
    let model = head::on(&base, &labels(), 0).expect("a head");
    let name = "bert.pooler.dense.weight";
    let theirs = base.checkpoint().tensor_of_any_shape(name).expect("a pooler").widened();
    assert_eq!(model.weight(name).expect("a weight").f32s(), theirs.f32s());
}

/// A run on words that say their label.
struct Run {
    case: Case,
    model: PathBuf,
    task: PathBuf,
    data: PathBuf,
}

impl Run {
    fn on(model: &str) -> Run {
        let case = Case::new();
        let row = |i: usize| match i % 2 {
            0 => format!("{{\"text\": \"good thing {i}\", \"label\": \"positive\"}}\n"),
            _ => format!("{{\"text\": \"bad thing {i}\", \"label\": \"negative\"}}\n"),
        };
        let data = case.file("rows.jsonl", (0..24).map(row).collect::<String>());
        let task = case.file("t.toml", program::TASK);
        Run { model: fixture::folder(model), task, data, case }
    }

    fn train(&self, model: &Path, out: &Path, extra: &[&str]) -> Vec<Value> {
        let [model, task, data, out] =
            [model, &self.task, &self.data, out].map(|p| p.to_str().expect("a path"));
        let what = ["train", "--method", "full", "--head", "--model", model, "--task", task, "--train", data];
        let how = ["--dev", data, "--out", out, "--batch", "8", "--eval-every", "5", "--json"];
        json_lines(&[&what[..], &how, extra].concat())
    }

    /// The last line of `eval`, or the lines of `predict`.
    fn ask(&self, command: &str, model: &Path, task: &Path) -> Vec<Value> {
        let [model, task, data] = [model, task, &self.data].map(|p| p.to_str().expect("a path"));
        json_lines(&[command, "--model", model, "--task", task, "--data", data, "--json"])
    }
}

/// Of the last line of `train` and that of `eval`, which reads more rows at a time.
fn same_loss(trained: &Value, evaluated: &Value, name: &str) {
    let losses = [&trained["dev"]["loss"], &evaluated["loss"]].map(|loss| loss.as_f64().expect("a loss"));
    assert!((losses[0] - losses[1]).abs() < 1e-6, "{name}: {losses:?}");
}

fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("model.safetensors")).expect("weights")
}

fn config(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("config.json")).expect("a file")).expect("JSON")
}

#[test]
fn a_classifier_is_trained_resumed_evaluated_and_trained_again() {
    for name in ["gpt2-text", "bert-english"] {
        let run = Run::on(name);
        let (base, whole, parts) = (weights(&run.model), run.case.path("whole"), run.case.path("parts"));
        let lines = run.train(&run.model, &whole, &["--steps", "30", "--lr", "0.002"]);
        let summary = lines.last().expect("a summary");
        assert!(summary["dev"]["accuracy"].as_f64() >= Some(0.9), "{name}: {summary}");
        assert!(base == weights(&run.model), "{name}: the base has changed");
        run.train(&run.model, &parts, &["--steps", "13", "--lr", "0.002"]);
        run.train(&run.model, &parts, &["--steps", "30", "--lr", "0.002", "--resume"]);
        assert!(weights(&whole) == weights(&parts), "{name}: resumed, it is another model");

        let eval = run.ask("eval", &whole, &run.task).remove(0);
        assert_eq!(eval["accuracy"], summary["dev"]["accuracy"], "{name}");
        same_loss(summary, &eval, name);
        let predicted = run.ask("predict", &whole, &run.task);
        assert_eq!(predicted[0]["label"], "positive", "{name}: {}", predicted[0]);

        // labels belong to their names; what a classifier was taught it goes on from
        let mut lines: Vec<&str> = program::TASK.trim().lines().rev().collect();
        lines[..2].reverse();
        lines.reverse();
        let swapped = run.case.file("swapped.toml", lines.join("\n"));
        assert_eq!(run.ask("eval", &whole, &swapped)[0]["accuracy"], eval["accuracy"], "{name}");
        let again = run.train(&whole, &run.case.path("again"), &["--steps", "1", "--lr", "0"]);
        same_loss(again.last().expect("a summary"), &eval, name);
    }
}

#[test]
fn the_folder_is_one_that_transformers_reads() {
    for (name, class, head, prefix) in [
        ("gpt2-text", "GPT2ForSequenceClassification", &["score.weight"][..], "transformer."),
        (
            "bert-english",
            "BertForSequenceClassification",
            &["bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.bias", "classifier.weight"],
            "bert.",
        ),
    ] {
        let (run, before) = (Run::on(name), LanguageModel::open(&fixture::folder(name)).expect("a model"));
        let out = run.case.path("out");
        run.train(&run.model, &out, &["--steps", "2", "--weights", "head"]);
        let config = config(&out);
        assert_eq!(config["architectures"][0], class);
        assert_eq!(config["id2label"], json!({"0": "positive", "1": "negative"}));
        assert_eq!(config["label2id"], json!({"positive": 0, "negative": 1}));
        assert!(config["num_labels"] == 2 && config["pad_token_id"].is_u64(), "{config}");
        assert_eq!(config["problem_type"], "single_label_classification");
        let after = LanguageModel::open(&out).expect("a model");
        let names: Vec<&str> = after.checkpoint().names().collect();
        assert!(names.iter().all(|n| n.starts_with(prefix) || head.contains(n)), "{names:?}");
        assert!(head.iter().all(|n| names.contains(n)), "{names:?}");
        // a linear probe: nothing else has moved
        for name in names.iter().filter(|name| !head.contains(name)) {
            assert_eq!(
                before.weight(name).expect("it").f32s(),
                after.weight(name).expect("it").f32s(),
                "{name}"
            );
        }
    }
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let (case, run) = (Case::new(), Run::on("gpt2-text"));
    let text = |path: &Path| path.to_str().expect("a path").to_string();
    let (task, data, out) = (text(&run.task), text(&run.data), text(&case.path("out")));
    let refused = |model: &Path, task: &str, options: &[&str], parts: &[&str]| {
        let model = text(model);
        let args = ["train", "--model", &model, "--task", task, "--train", &data, "--out", &out];
        let why = refusal(&[&args[..], options].concat());
        assert!(parts.iter().all(|part| why.contains(part)), "{options:?}: {why}");
    };
    let head = &["--method", "full", "--head"][..];
    let classifier = fixture::folder("gpt2-classifier");
    refused(&run.model, &task, &["--head"], &["--head does nothing here", "--method full"]);
    let probe = ["--method", "full", "--weights", "head"];
    refused(&run.model, &task, &probe, &["--weights head does nothing here", "with --head"]);
    refused(&fixture::folder("t5-v1.0-relu-tied"), &task, head, &["encoder-decoder", "no classifier"]);
    refused(&fixture::model_path("gguf-gpt2"), &task, head, &["GGUF"]);
    refused(&classifier, &task, &["--method", "full"], &["classifier of 3 labels", "label words", "--head"]);
    refused(&classifier, &task, &[], &["classifier of 3 labels", "label words", "--head"]);

    let file = |name: &str, text: &str| run.case.file(name, text).to_str().expect("a path").to_string();
    let middle = file("middle.toml", &program::TASK.replace("{text} {mask}", "{mask}: {text}"));
    refused(&run.model, &middle, head, &["something follows `{mask}`", "causal"]);
    let one = file("one.toml", "name = \"t\"\ntemplate = \"{text}{label}\"\n[labels]\npositive = \"p\"\n");
    refused(&run.model, &one, head, &["at least two [labels]", "has 1"]);
    let texts =
        file("texts.toml", "name = \"t\"\ntemplate = \"{text}{label}\"\n[answer]\nfield = \"label\"\n");
    refused(&run.model, &texts, head, &["at least two [labels]", "has 0"]);

    let no_task = [
        "train",
        "--method",
        "full",
        "--head",
        "--model",
        &text(&run.model),
        "--train",
        &data,
        "--out",
        &out,
    ];
    assert!(refusal(&no_task).contains("--head says which label of a task; give the task file with --task"));

    // a classifier predicts no tokens
    let model = text(&classifier);
    for args in [
        &["generate", "--text", "a"][..],
        &["fill-mask", "--text", "a"],
        &["score", "--data", &data],
        &["inspect", "--prompt", &out],
        &["eval", "--task", &task, "--data", &data, "--prompt", &out],
        &["few-shot", "--task", &task, "--train", &data, "--data", &data, "--out", &out],
    ] {
        let why = refusal(&[args, &["--model", &model]].concat());
        assert!(why.contains("is a classifier of 3 labels and predicts no tokens"), "{args:?}: {why}");
    }
    assert!(!Path::new(&out).exists());
}
