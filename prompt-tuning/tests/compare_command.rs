//! `compare` and `perplexity`, as a user runs them.

mod fixture;
mod program;

use std::path::{Path, PathBuf};

use program::{Case, TASK, json_lines, refusal, run};
use serde_json::{Value, json};

const WORDS: [&str; 8] = ["good", "bad", "sad", "long", "mad", "glad", "dull", "odd"];
const PLAN: &str = r#"
[[method]]
name = "zero-shot"
shots = 0
[[method]]
name = "few-shot 2"
shots = 2
[[method]]
name = "hard prompt"
wordings = true
[[method]]
name = "soft 3"
train = "--method soft --prompt-length 3"
[[method]]
name = "full"
train = "--method full --lr 0.01"
[[method]]
name = "head"
train = "--method full --head --lr 0.01"
"#;
const WORDINGS: &str = "[templates]\nother = \"so {text} {mask}\"\n";

fn rows(prefix: &str, n: usize) -> String {
    let row = |i: usize| {
        let label = if i.is_multiple_of(2) { "positive" } else { "negative" };
        json!({ "text": format!("{prefix} {} {}", WORDS[i % 8], i / 8), "label": label }).to_string()
    };
    (0..n).map(|i| row(i) + "\n").collect()
}

struct Bench {
    case: Case,
    model: PathBuf,
}

impl Bench {
    fn new(model: &str) -> Bench {
        let case = Case::new();
        case.file("task.toml", TASK.to_string() + WORDINGS);
        case.file("train.jsonl", rows("it was", 24));
        case.file("dev.jsonl", rows("so", 10));
        case.file("plan.toml", PLAN);
        case.file("text.txt", "it was a long day\n\nand a sad one, so it was odd and bad");
        Bench { case, model: fixture::folder(model) }
    }

    fn args(&self, extra: &[&str]) -> Vec<String> {
        let path = |name: &str| self.case.path(name).display().to_string();
        let mut args = vec!["compare".into(), "--model".into(), self.model.display().to_string()];
        for (option, name) in [
            ("--task", "task.toml"),
            ("--train", "train.jsonl"),
            ("--data", "dev.jsonl"),
            ("--plan", "plan.toml"),
            ("--text", "text.txt"),
            ("--out", "out"),
        ] {
            args.extend([option.into(), path(name)]);
        }
        args.extend(["--other".into(), format!("{}={}", path("task.toml"), path("train.jsonl"))]);
        args.extend(["--steps", "3", "--batch", "4"].map(String::from));
        args.extend(extra.iter().map(|word| word.to_string()));
        args
    }

    fn compare(&self, extra: &[&str]) -> Value {
        let args = self.args(&[extra, &["--json"]].concat());
        json_lines(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let read = |name: &str| std::fs::read(self.case.path("out").join(name)).expect("a file");
        let page = String::from_utf8(read("report.html")).expect("UTF-8");
        assert!(page.starts_with("<!DOCTYPE html>") && !page.contains("NaN"), "{page}");
        serde_json::from_slice(&read("compare.json")).expect("JSON")
    }

    fn refused(&self, extra: &[&str]) -> String {
        let args = self.args(extra);
        refusal(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn cells<'a>(found: &'a Value, method: &str) -> Vec<&'a Value> {
    found["cells"].as_array().expect("cells").iter().filter(|cell| cell["method"] == method).collect()
}

#[test]
fn every_method_is_measured_and_a_cell_is_not_measured_twice() {
    let bench = Bench::new("gpt2-text");
    let two = ["--sizes", "4,8", "--seeds", "2"];
    let found = bench.compare(&two);
    let counts = ["zero-shot", "few-shot 2", "hard prompt", "soft 3", "full"].map(|m| cells(&found, m).len());
    assert_eq!(counts, [1, 2, 4, 4, 4]);
    for cell in cells(&found, "full").into_iter().chain(cells(&found, "soft 3")) {
        let training = &cell["training"];
        assert_eq!((&training["steps"], cell["predicted"].as_array().unwrap().len()), (&json!(3), 10));
        assert!(training["flops"].as_f64().unwrap() > 0.0 && training["stored_bytes"].as_u64().unwrap() > 0);
        assert!(cell["after"]["perplexity"].as_f64().unwrap() > 1.0);
        assert_eq!(cell["after"]["others"].as_array().unwrap().len(), 1);
    }
    // a classifier says nothing of other tasks
    assert_eq!(cells(&found, "head").len(), 4);
    assert_eq!(cells(&found, "head")[0]["after"]["others"], json!([]));
    // the prompt is kept, the trained model is not
    let kept = |method: &str, file: &str| {
        let folders = std::fs::read_dir(bench.case.path("out/cells")).unwrap().flatten().map(|e| e.path());
        folders
            .filter(|p| p.is_dir() && p.display().to_string().contains(method) && p.join(file).exists())
            .count()
    };
    assert_eq!((kept("soft-3", "adapter_model.safetensors"), kept("full", "model.safetensors")), (4, 0));
    // continued with one more seed: what is there is read, not measured again
    let marked = bench.case.path("out/cells/before.json");
    std::fs::write(&marked, r#"{"perplexity":123.0,"others":[0.5]}"#).unwrap();
    let more = bench.compare(&["--sizes", "4,8", "--seeds", "3", "--resume"]);
    assert_eq!((cells(&more, "soft 3").len(), &more["before"]["perplexity"]), (6, &json!(123.0)));
    assert_eq!(cells(&more, "soft 3")[..2], cells(&found, "soft 3")[..2]);
}

#[test]
fn one_seed_gives_the_same_twice_and_a_masked_model_is_compared_too() {
    let bench = Bench::new("bert-english");
    let once = ["--sizes", "4", "--seeds", "1", "--overwrite"];
    let [first, second] = [(); 2].map(|()| bench.compare(&once));
    let predicted = |found: &Value| -> Vec<Value> {
        found["cells"].as_array().unwrap().iter().map(|cell| cell["predicted"].clone()).collect()
    };
    assert_eq!(predicted(&first), predicted(&second));
    assert_eq!(first["cells"][4]["after"], second["cells"][4]["after"]);
}

#[test]
fn rows_that_methods_learn_from_are_not_measured() {
    let bench = Bench::new("gpt2-text");
    bench.case.file("dev.jsonl", rows("so", 10) + &rows("it was", 3));
    let found = bench.compare(&["--methods", "zero-shot", "--sizes", "4", "--seeds", "1"]);
    assert_eq!(found["gold"].as_array().expect("labels").len(), 10);
    bench.case.file("dev.jsonl", rows("it was", 6));
    let why = bench.refused(&["--methods", "zero-shot", "--overwrite"]);
    assert!(why.contains("all of its rows are among those that methods learn from"), "{why}");
}

#[test]
fn a_method_that_the_model_has_nothing_for_is_found_before_the_first_cell() {
    let bench = Bench::new("gguf-llama/model.gguf");
    let args = bench.args(&["--methods", "zero-shot", "full"]);
    let why = refusal(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(why.contains("method `full`") && why.contains("GGUF"), "{why}");
    let plan = "[[method]]\nname = \"a\"\ntrain = \"--method soft --lenght 3\"\n";
    let bench = Bench::new("gpt2-text");
    bench.case.file("plan.toml", plan);
    let why = bench.refused(&[]);
    assert!(why.contains("method `a`") && why.contains("--lenght"), "{why}");
    assert!(!bench.case.path("out").exists());
}

#[test]
fn comparisons_that_cannot_be() {
    let bench = Bench::new("gpt2-text");
    let why = bench.refused(&["--methods", "soft 4"]);
    assert!(why.contains("--methods soft 4: there are zero-shot, few-shot 2"), "{why}");
    bench.compare(&["--methods", "zero-shot"]);
    assert!(bench.refused(&["--methods", "zero-shot"]).contains("--resume"));
    let other = bench.refused(&["--methods", "zero-shot", "--resume", "--max-rows", "5"]);
    assert!(other.contains("another model, task, data, text or budget"), "{other}");
    bench.case.file("text.txt", "");
    assert!(bench.refused(&["--overwrite"]).contains("there is no text in it"));
    bench.case.file("text.txt", "it was a long day");
    bench.case.file("task.toml", TASK.replace("{text}", "{soft:2}{text}"));
    assert!(bench.refused(&["--overwrite"]).contains("soft tokens"));
    bench.case.file("task.toml", TASK);
    let why = bench.refused(&["--overwrite", "--methods", "hard prompt"]);
    assert!(why.contains("no other wordings"), "{why}");
}

/// A training that fails ends the comparison with what it said, and the cells before it stay.
#[test]
fn a_cell_that_fails_says_why() {
    let bench = Bench::new("gpt2-text");
    bench.case.file("plan.toml", PLAN.replace("--prompt-length 3", "--prompt-length 4000"));
    let args = bench.args(&["--sizes", "4", "--seeds", "1"]);
    let output = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("`prompt-tuning train "), "{said}");
    assert!(said.contains("context window") && !said.contains("panicked"), "{said}");
    let kept: Value =
        serde_json::from_slice(&std::fs::read(bench.case.path("out/compare.json")).unwrap()).unwrap();
    assert_eq!(kept["cells"].as_array().unwrap().len(), 3);
}

fn perplexity(model: &Path, text: &Path, extra: &[&str]) -> Value {
    let path = |path: &Path| path.display().to_string();
    let (model, text) = (path(model), path(text));
    let args = [&["perplexity", "--model", &model, "--text", &text, "--json"], extra].concat();
    json_lines(&args).remove(0)
}

#[test]
fn perplexity_is_that_of_the_tokens_scored_one_by_one() {
    let case = Case::new();
    let model = fixture::folder("gpt2-text");
    let text = case.file("text.txt", "it was a long day");
    let found = perplexity(&model, &text, &[]);
    // the same tokens as raw ids: all but the first are scored, and the end of the text
    let tokenizer = model::Tokenizer::open(&model).unwrap();
    let mut ids = tokenizer.encode("it was a long day", false).unwrap();
    ids.push(tokenizer.eos().unwrap());
    let row = json!({ "prompt_ids": ids[..1], "completion_ids": ids[1..] }).to_string();
    let rows = case.file("rows.jsonl", row);
    let (model, rows) = (model.display().to_string(), rows.display().to_string());
    let scored = json_lines(&["score", "--model", &model, "--data", &rows, "--json"]).remove(0);
    let loss = -scored["log_prob"].as_f64().unwrap() / (ids.len() - 1) as f64;
    assert!((found["loss"].as_f64().unwrap() - loss).abs() < 1e-5, "{found} {loss}");
    assert_eq!(found["tokens"], ids.len() - 1);
}

#[test]
fn perplexity_of_masked_models_and_of_none() {
    let case = Case::new();
    let text = case.file("text.txt", "it was a long day\n\nso bad");
    let found = perplexity(&fixture::folder("bert-english"), &text, &[]);
    assert!(found["perplexity"].as_f64().unwrap() > 1.0 && found["tokens"].as_u64().unwrap() >= 1);
    let t5 = fixture::folder("t5-v1.1-gated-bf16").display().to_string();
    let text = text.display().to_string();
    let why = refusal(&["perplexity", "--model", &t5, "--text", &text]);
    assert!(why.contains("causal and masked"), "{why}");
}

/// A prompt goes forward and backward through every matrix; all weights cost their own gradient, too.
#[test]
fn arithmetic_is_counted() {
    let bench = Bench::new("gpt2-text");
    let config: Value =
        serde_json::from_slice(&std::fs::read(bench.model.join("config.json")).unwrap()).unwrap();
    let number = |name: &str| config[name].as_f64().unwrap();
    let (d, layers) = (number("n_embd"), number("n_layer"));
    let (matrices, head) = (12.0 * d * d * layers, number("vocab_size") * d);
    let path = |name: &str| bench.case.path(name).display().to_string();
    for (method, passes) in [("soft", 2.0), ("full", 3.0)] {
        let model = bench.model.display().to_string();
        let (task, train, out) = (path("task.toml"), path("train.jsonl"), path(method));
        let mut args = vec!["train", "--model", &model, "--task", &task, "--train", &train, "--out", &out];
        args.extend(["--method", method, "--steps", "2", "--batch", "4", "--no-state", "--json"]);
        let lines = json_lines(&args);
        let (summary, steps) = lines.split_last().unwrap();
        let sum = |name: &str| steps.iter().map(|step| step[name].as_f64().unwrap()).sum::<f64>();
        let expected = 2.0 * passes * (matrices * sum("computed_tokens") + head * sum("scored_tokens"));
        assert_eq!(summary["flops"].as_f64().unwrap(), expected, "{method}");
        assert!(summary["seconds_per_step"].as_f64().unwrap() > 0.0);
        assert!(!std::path::Path::new(&out).join("state.safetensors").exists());
    }
}
