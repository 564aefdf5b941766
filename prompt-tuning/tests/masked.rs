//! The command line on masked models: the same commands and the same task file as for the others.

mod fixture;

use std::path::Path;
use std::process::{Command, Output};

use kernels::testing::{Tolerance, close};
use serde_json::{Value, json};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prompt-tuning")).args(args).output().expect("the program")
}

/// The JSON lines of a command that must succeed.
fn json_of(args: &[&str]) -> Vec<Value> {
    let output = run(&[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The one line of a command that must be refused.
fn refusal(args: &[&str]) -> String {
    let output = run(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{args:?}: {text}");
    text
}

fn model(name: &str) -> String {
    fixture::folder(name).to_string_lossy().into_owned()
}

fn numbers(list: &Value, key: &str) -> Vec<f64> {
    list.as_array().expect("a list").iter().map(|x| x[key].as_f64().expect("a number")).collect()
}

#[test]
fn masks_are_filled_as_transformers_does() {
    for name in ["bert-english", "bert-chinese"] {
        let expected = fixture::expected(name);
        let texts = expected["texts"].as_array().expect("texts");
        for text in texts.iter().filter(|t| t["masks"] != json!([])) {
            let written = text["text"].as_str().expect("a text");
            let filled = json_of(&["fill-mask", "--model", &model(name), "--text", written]).remove(0);
            let masks = filled["masks"].as_array().expect("masks");
            for (mask, recorded) in masks.iter().zip(text["fill"].as_array().expect("records")) {
                assert_eq!(
                    json!(numbers(mask, "id").iter().map(|&x| x as u64).collect::<Vec<_>>()),
                    recorded["ids"]
                );
                let recorded: Vec<f64> = recorded["probabilities"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .filter_map(Value::as_f64)
                    .collect();
                close(&numbers(mask, "probability"), &recorded, Tolerance::both(1e-4)).expect(name);
            }
            assert_eq!(masks.len(), text["masks"].as_array().expect("masks").len());
            let joint = &filled["filled"];
            assert!(!joint["text"].as_str().expect("a text").contains("[MASK]"));
            // the surest mask has its best token
            let best: Vec<f64> = masks.iter().map(|m| numbers(m, "probability")[0]).collect();
            let surest = (0..best.len()).max_by(|&a, &b| best[a].total_cmp(&best[b])).expect("a mask");
            assert_eq!(joint["token_ids"][surest], masks[surest][0]["id"]);
            if masks.len() == 1 {
                close(
                    &[joint["log_prob"].as_f64().expect("a number")],
                    &[best[0].ln()],
                    Tolerance::both(1e-5),
                )
                .expect("one mask");
            }
        }
    }
}

#[test]
fn scores_of_rows_with_masks_are_those_of_torch() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("rows.jsonl");
    let expected = fixture::expected("bert-untied");
    let rows = expected["batch"].as_array().expect("rows");
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(&data, lines.join("\n")).expect("a file");
    let scored = json_of(&["score", "--model", &model("bert-untied"), "--data", &data.to_string_lossy()]);
    assert_eq!(scored.len(), rows.len());
    for (scored, row) in scored.iter().zip(rows) {
        let list =
            |v: &Value| v.as_array().expect("a list").iter().filter_map(Value::as_f64).collect::<Vec<_>>();
        let tolerance = Tolerance { absolute: 1e-4, relative: 0.0 };
        close(&list(&scored["token_log_probs"]), &list(&row["base_log_probs"]), tolerance).expect("torch");
        assert_eq!(scored["token_ids"], row["labels"]);
    }
}

const TASK: &str = r#"
name = "reviews"
template = "{soft:3}Review: {text} It was {mask}."
[labels]
positive = ["good", "a fine film"]
negative = ["bad"]
"#;

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    path.to_string_lossy().into_owned()
}

#[test]
fn a_prompt_is_trained_evaluated_used_and_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let task = write(folder.path(), "task.toml", TASK);
    let rows: Vec<String> = ["fine", "dull", "great fun", "too long"]
        .iter()
        .enumerate()
        .map(|(i, text)| {
            let label = if i % 2 == 0 { "positive" } else { "negative" };
            json!({"text": text, "label": label}).to_string()
        })
        .collect();
    let data = write(folder.path(), "data.jsonl", &rows.join("\n"));
    let (model, out) = (model("bert-english"), folder.path().join("run").to_string_lossy().into_owned());
    let train =
        ["train", "--model", &model, "--task", &task, "--train", &data, "--dev", &data, "--out", &out];
    let steps = json_of(&[&train[..], &["--epochs", "30", "--lr", "0.05", "--recompute"]].concat());
    let losses: Vec<f64> = steps.iter().filter_map(|s| s["loss"].as_f64()).collect();
    assert!(losses.len() == 30 && losses[29] < 0.7 * losses[0], "{losses:?}");

    let config = std::fs::read_to_string(Path::new(&out).join("adapter_config.json")).expect("a config");
    assert!(config.contains("\"task_type\": \"FEATURE_EXTRACTION\""), "{config}");

    let with = ["--model", &model, "--task", &task, "--prompt", &out];
    let eval = json_of(&[&["eval", "--data", &data], &with[..]].concat()).remove(0);
    assert_eq!(eval["n"], 4);
    assert!(eval["accuracy"].as_f64().expect("a number") >= 0.75, "{eval}");
    let predict = |precision: &str| {
        json_of(&[&["predict", "--data", &data, "--precision", precision], &with[..]].concat())
    };
    let exact = predict("f32");
    let right = exact.iter().enumerate().filter(|(i, p)| p["label"] == ["positive", "negative"][i % 2]);
    assert_eq!(right.count() as f64 / 4.0, eval["accuracy"]);
    let probabilities =
        |p: &[Value]| p.iter().map(|p| p["probabilities"]["positive"].as_f64()).collect::<Option<Vec<_>>>();
    let (exact, rounded) =
        (probabilities(&exact).expect("numbers"), probabilities(&predict("bf16")).expect("numbers"));
    close(&rounded, &exact, Tolerance { absolute: 0.05, relative: 0.0 }).expect("bf16");
    assert_ne!(rounded, exact);
    let shown = json_of(&["inspect", "--model", &model, "--prompt", &out]);
    assert_eq!((shown.len(), shown[0]["nearest"].as_array().map(Vec::len)), (3, Some(5)));
    let fill = ["fill-mask", "--model", &model, "--text", "It was [MASK]."];
    let (base, prompted) = (json_of(&fill), json_of(&[&fill[..], &["--prompt", &out]].concat()));
    assert_ne!(base[0]["masks"], prompted[0]["masks"]);
}

#[test]
fn what_a_masked_model_cannot_do_is_said() {
    let (bert, gpt2) = (model("bert-english"), model("gpt2-text"));
    let why = refusal(&["generate", "--model", &bert, "--text", "It was"]);
    assert!(why.contains("masked language model") && why.contains("use fill-mask"), "{why}");
    let why = refusal(&["fill-mask", "--model", &gpt2, "--text", "It was [MASK]"]);
    assert!(why.contains("is not a masked language model"), "{why}");
    let why = refusal(&["fill-mask", "--model", &bert, "--text", "It was"]);
    assert!(why.contains("has no [MASK] to fill"), "{why}");
    let long = "a ".repeat(80) + "[MASK]";
    let why = refusal(&["fill-mask", "--model", &bert, "--text", &long]);
    assert!(why.contains("context window is 64"), "{why}");
    let folder = tempfile::tempdir().expect("a folder");
    let task = write(folder.path(), "task.toml", &TASK.replace("\"bad\"", "\"龘\"").replace("{soft:3}", ""));
    let why = refusal(&["predict", "--model", &bert, "--task", &task, "fine"]);
    assert!(
        why.contains("answer \"龘\" has a word or character that this vocabulary does not have"),
        "{why}"
    );
    // what this tokenizer does not tell apart is one answer of a label, and none of two
    let same = TASK.replace("[\"bad\"]", "[\"bad\", \" Bad\"]").replace("{soft:3}", "");
    let task = write(folder.path(), "task.toml", &same);
    assert_eq!(json_of(&["predict", "--model", &bert, "--task", &task, "fine"]).len(), 1);
    let task = write(folder.path(), "task.toml", &same.replace("\" Bad\"", "\"Good\""));
    let why = refusal(&["predict", "--model", &bert, "--task", &task, "fine"]);
    assert!(
        why.contains("\"Good\" of label `negative` has the same tokens") && why.contains("`positive`"),
        "{why}"
    );
    let rows = write(folder.path(), "rows.jsonl", r#"{"prompt": "a", "completion": "b"}"#);
    let why = refusal(&["score", "--model", &bert, "--data", &rows]);
    assert!(why.contains("rows.jsonl:1: the model is a masked one"), "{why}");
}
