//! `few-shot` and `eval` with demonstrations, as a user runs them.

mod fixture;
mod program;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use model::{LanguageModel, Tokenizer};
use program::{Case, TASK, json_lines, refusal, run};
use prompt_tuning::few_shot::embed::{Embeddings, embed};
use serde_json::{Value, json};

const ADJECTIVES: [&str; 8] = ["good", "bad", "sad", "long", "mad", "glad", "dull", "odd"];

/// Labelled texts, none of which is another's.
fn rows(prefix: &str, n: usize) -> String {
    let row = |i: usize| {
        let text = format!("{prefix} {} {}", ADJECTIVES[i % 8], i / 8);
        json!({ "text": text, "label": if i.is_multiple_of(2) { "positive" } else { "negative" } })
            .to_string()
    };
    (0..n).map(|i| row(i) + "\n").collect()
}

struct Study {
    case: Case,
    train: PathBuf,
    data: PathBuf,
    task: PathBuf,
}

impl Study {
    fn new() -> Study {
        let case = Case::new();
        let (train, data) = (rows("it was", 12), rows("so", 6));
        let task = case.file("task.toml", TASK);
        Study { train: case.file("train.jsonl", train), data: case.file("data.jsonl", data), task, case }
    }

    fn args<'a>(&'a self, command: &'a str, model: &'a Path, extra: &[&'a str]) -> Vec<&'a str> {
        let path = |path: &'a Path| path.to_str().expect("UTF-8");
        let mut args = vec![command, "--model", path(model), "--task", path(&self.task)];
        args.extend(["--data", path(&self.data), "--train", path(&self.train)]);
        args.extend(extra);
        args
    }

    /// The `study.json` that few-shot writes.
    fn study(&self, model: &str, extra: &[&str]) -> Value {
        let (model, out) = (fixture::folder(model), self.case.path("out"));
        let extra = [extra, &["--out", out.to_str().expect("UTF-8"), "--json"]].concat();
        json_lines(&self.args("few-shot", &model, &extra));
        let page = std::fs::read_to_string(out.join("report.html")).expect("a page");
        assert!(page.starts_with("<!DOCTYPE html>") && !page.contains("NaN"), "{page}");
        serde_json::from_slice(&std::fs::read(out.join("study.json")).expect("a file")).expect("JSON")
    }
}

fn runs(study: &Value) -> &Vec<Value> {
    study["runs"].as_array().expect("runs")
}

#[test]
fn the_same_command_finds_the_same_twice() {
    let study = Study::new();
    let extra = ["--shots", "0,2,3", "--seeds", "2", "--orders", "2", "--batch", "5"];
    let [first, second] = [(); 2].map(|()| {
        let mut found = study.study("gpt2-text", &extra);
        assert!(found["seconds"].as_f64().expect("seconds") > 0.0);
        found["seconds"] = Value::Null;
        found
    });
    assert_eq!(first, second);
    // zero shots once; two seeds and two orders of each other number; each with and without calibration
    assert_eq!(runs(&first).len(), 2 * (1 + 2 * 2 + 2 * 2));
    let other = study.study("gpt2-text", &[&extra[..], &["--seed", "7"]].concat());
    assert_ne!(runs(&other), runs(&first));
}

#[test]
fn the_batch_does_not_change_what_is_answered() {
    let study = Study::new();
    for model in ["gpt2-text", "bert-english"] {
        let of_batch = |n: &str| {
            let found =
                study.study(model, &["--shots", "1", "--batch", n, "--calibration", "none,pmi,contextual"]);
            let answers = |run: &Value| (run["predicted"].clone(), run["demonstration_labels"].clone());
            let probabilities = |run: &Value| numbers(&run["probability"]);
            let runs = runs(&found);
            (
                runs.iter().map(answers).collect::<Vec<_>>(),
                runs.iter().flat_map(probabilities).collect::<Vec<f64>>(),
            )
        };
        let ((answers, p), (same_answers, q)) = (of_batch("1"), of_batch("64"));
        assert_eq!(answers, same_answers);
        let most = p.iter().zip(&q).map(|(p, q)| (p - q).abs()).fold(0.0, f64::max);
        assert!(p.len() == q.len() && most < 1e-5, "{model}: {most}");
    }
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

#[test]
fn what_is_asked_is_never_shown() {
    let mut study = Study::new();
    // three texts of its own, and all those that are asked, with other white space and other labels
    let copied = rows("so", 6).replace("so ", " so  ").replace("positive", "x");
    let copied = copied.replace("negative", "positive").replace("\"x\"", "\"negative\"");
    study.train = study.case.file("copied.jsonl", copied + &rows("it was", 3));
    for choice in ["first", "random", "nearest", "bm25", "mmr"] {
        let extra = ["--shots", "3", "--choice", choice, "--seeds", "4"];
        let found = study.study("gpt2-text", &extra);
        for run in runs(&found) {
            let labels = &run["demonstration_labels"];
            let shared = if labels[0].is_array() {
                labels.as_array().expect("rows").clone()
            } else {
                vec![labels.clone()]
            };
            for labels in shared {
                let n =
                    |label: u64| labels.as_array().expect("labels").iter().filter(|l| **l == label).count();
                assert_eq!((n(0), n(1)), (2, 1), "{choice}: {labels}");
            }
        }
        let model = fixture::folder("gpt2-text");
        let refused = refusal(&study.args("few-shot", &model, &["--shots", "4", "--choice", choice]));
        assert!(refused.contains("has 3 different texts that are not among those asked"), "{refused}");
    }
}

#[test]
fn demonstrations_that_do_not_fit_are_an_error_or_fewer() {
    let mut study = Study::new();
    // of the window of 256 tokens the second text leaves room for fewer demonstrations than the first
    let long = format!("so {}", "good bad ".repeat(40));
    let texts = [("so good", "positive"), (long.as_str(), "negative"), ("so dull", "negative")];
    let data: String =
        texts.map(|(text, label)| json!({ "text": text, "label": label }).to_string() + "\n").concat();
    study.data = study.case.file("long.jsonl", data);
    let model = fixture::folder("gpt2-text");
    let policy = |p| ["--shots", "8", "--policy", p, "--choice", "first"];

    for command in ["few-shot", "eval"] {
        let refused = refusal(&study.args(command, &model, &policy("error")));
        assert!(refused.contains("long.jsonl:2:") && refused.contains("256"), "{refused}");
    }
    let of = |p| study.study("gpt2-text", &policy(p));
    let (dropped, largest) = (of("drop-farthest"), of("largest-fit"));
    let rows = runs(&dropped)[0]["demonstration_labels"].as_array().expect("rows").clone();
    let count = |i: usize| rows[i].as_array().expect("labels").len();
    assert_eq!((count(0), count(2)), (8, 8));
    let fewest = count(1);
    assert!((1..8).contains(&fewest), "{fewest}");
    // the last ones are kept: the first of the file are 0 1 0 1 …
    assert_eq!(rows[1], json!((8 - fewest..8).map(|i| i % 2).collect::<Vec<_>>()));
    for study in [&dropped, &largest] {
        for run in runs(study) {
            assert_eq!((&run["shots"], &run["requested_shots"]), (&json!(fewest), &json!(8)));
        }
    }
    assert_eq!(runs(&largest)[0]["demonstration_labels"], rows[1]);

    for (p, reduced) in [("drop-farthest", 1), ("largest-fit", 3)] {
        let extra = [&policy(p)[..], &["--json"]].concat();
        let metrics = json_lines(&study.args("eval", &model, &extra)).remove(0);
        assert_eq!(metrics["shots"], fewest, "{metrics}");
        assert_eq!(
            (&metrics["rows_with_fewer_shots"], &metrics["shots_requested"]),
            (&json!(reduced), &json!(8))
        );
    }
    let extra = [&policy("drop-farthest")[..], &["--json", "--shots", "2"]].concat();
    let metrics = json_lines(&study.args("eval", &model, &extra)).pop().expect("metrics");
    assert_eq!((&metrics["shots"], &metrics["rows_with_fewer_shots"]), (&json!(2), &Value::Null));
}

#[test]
fn the_nearest_are_those_of_the_models_own_embeddings() {
    let study = Study::new();
    for name in ["gpt2-text", "bert-english"] {
        let texts = |path: &Path| -> Vec<Value> {
            let text = std::fs::read_to_string(path).expect("a file");
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
        };
        let (train, data) = (texts(&study.train), texts(&study.data));
        let folder = fixture::folder(name);
        let (model, tokenizer) =
            (LanguageModel::open(&folder).expect("it"), Tokenizer::open(&folder).expect("it"));
        let embedded = |rows: &[Value]| -> Embeddings {
            let texts: Vec<String> =
                rows.iter().map(|row| row["text"].as_str().expect("a text").into()).collect();
            embed(&model, &tokenizer, &texts, 1, |_| ()).expect("embeddings")
        };
        let (of_train, of_data) = (embedded(&train), embedded(&data));
        let nearest = |i: usize| {
            let cosine = |j: usize| -> f64 {
                of_data.row(i).iter().zip(of_train.row(j)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let mut order: Vec<usize> = (0..train.len()).collect();
            order.sort_by(|&a, &b| cosine(b).total_cmp(&cosine(a)));
            let label = |&j: &usize| u64::from(train[j]["label"] == "negative");
            order[..3].iter().rev().map(label).collect::<Vec<_>>()
        };
        let expected: Vec<Vec<u64>> = (0..data.len()).map(nearest).collect();
        assert!(expected.iter().collect::<HashSet<_>>().len() > 1, "{expected:?}");
        let found = study.study(name, &["--shots", "3", "--choice", "nearest", "--calibration", "none"]);
        assert_eq!(runs(&found).len(), 1);
        assert_eq!(runs(&found)[0]["demonstration_labels"], json!(expected), "{name}");
        assert_eq!(runs(&found)[0]["ordering"], "nearest-last");
    }
}

#[test]
fn orders_are_ranked_by_texts_that_only_some_models_can_write() {
    let study = Study::new();
    for order in ["global-e", "local-e"] {
        let extra = ["--shots", "3", "--order", order, "--orders", "2", "--seeds", "1"];
        let found = study.study("gpt2-text", &extra);
        let permutations: HashSet<String> =
            runs(&found).iter().map(|r| r["permutation"].to_string()).collect();
        assert_eq!((runs(&found).len(), permutations.len()), (4, 2));
        let refused = refusal(&study.args("few-shot", &fixture::folder("bert-english"), &extra));
        assert!(refused.contains("continues texts"), "{refused}");
    }
}

#[test]
fn without_demonstrations_no_training_data_is_needed() {
    let study = Study::new();
    let model = fixture::folder("gpt2-text");
    let mut args = study.args("few-shot", &model, &["--shots", "0", "--json"]);
    let at = args.iter().position(|arg| *arg == "--train").expect("an option");
    args.drain(at..at + 2);
    assert_eq!(json_lines(&args)[0]["runs"], 2);
    let out = run(&[&args[..], &["--shots", "1"]].concat());
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("--train"));
}
