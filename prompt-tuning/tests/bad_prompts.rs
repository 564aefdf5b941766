//! Prompts that cannot be: task files, demonstrations and options that are refused in one line.

mod fixture;
mod program;

use std::path::{Path, PathBuf};

use program::{Case, TASK, json_lines, refusal, refused, run};

const TRAIN: &str = r#"{"text": "it was good", "label": "positive"}
{"text": "it was bad", "label": "negative"}
{"text": "it was sad", "label": "negative"}
"#;
const DATA: &str = r#"{"text": "so good", "label": "positive"}
{"text": "so bad", "label": "negative"}
"#;

/// A command whose files can be replaced.
struct Try {
    case: Case,
    model: PathBuf,
    task: PathBuf,
    train: PathBuf,
    data: PathBuf,
}

impl Try {
    fn on(model: &str) -> Try {
        let case = Case::new();
        let (task, train) = (case.file("task.toml", TASK), case.file("train.jsonl", TRAIN));
        Try { model: fixture::folder(model), task, train, data: case.file("data.jsonl", DATA), case }
    }

    fn new() -> Try {
        Try::on("gpt2-text")
    }

    fn with_task(text: &str) -> Try {
        let new = Try::new();
        new.case.file("task.toml", text);
        new
    }

    fn args<'a>(&'a self, command: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
        let path = |path: &'a Path| path.to_str().expect("UTF-8");
        let mut args = vec![command, "--model", path(&self.model), "--task", path(&self.task)];
        args.extend(["--data", path(&self.data), "--train", path(&self.train)]);
        args.extend(extra);
        args
    }

    /// What few-shot says, which must contain all of `parts`.
    fn few_shot(&self, extra: &[&str], parts: &[&str]) {
        has(&refusal(&self.args("few-shot", extra)), parts);
    }

    /// What eval says.
    fn eval(&self, extra: &[&str], parts: &[&str]) {
        has(&refusal(&self.args("eval", extra)), parts);
    }

    /// What both say.
    fn both(&self, parts: &[&str]) {
        self.few_shot(&["--shots", "1"], parts);
        self.eval(&["--shots", "1"], parts);
    }
}

fn has(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn fields_and_labels_that_are_not_there() {
    Try::with_task(&TASK.replace("{text}", "{txet}")).both(&["data.jsonl:1:", "txet", "text"]);
    let bad = Try::new();
    bad.case.file("train.jsonl", TRAIN.replace("\"negative\"", "\"neutral\""));
    bad.both(&["train.jsonl:2:", "neutral", "positive, negative"]);
    let bad = Try::new();
    bad.case.file("train.jsonl", TRAIN.replace("text", "txet"));
    bad.both(&["train.jsonl:1:", "text", "txet"]);
}

#[test]
fn templates_that_no_model_can_answer() {
    Try::with_task(&TASK.replace(" {mask}", "")).both(&["task `t`", "{label}"]);
    Try::with_task(&TASK.replace("{mask}", "{mask} it was")).both(&["task `t`", "end"]);
    Try::with_task(&TASK.replace("{text}", "{text")).both(&["task.toml", "character 6"]);
    Try::with_task(&TASK.replace("{text}", "{soft:4}{text}")).both(&["task `t`", "--prompt"]);
    let wordings = format!("{TASK}[templates]\nother = \"{{text}}{{soft:2}}{{label}}\"\n");
    Try::with_task(&wordings).few_shot(&[], &["task `t`", "--prompt"]);
    Try::with_task(&wordings.replace("other", "default"))
        .few_shot(&[], &["task.toml", "[templates] default"]);
    Try::new().few_shot(&["--templates", "question"], &["--templates question", "default"]);
}

#[test]
fn answers_that_the_vocabulary_does_not_have() {
    // BERT's normalisation leaves nothing of a control character
    let bad = Try::on("bert-english");
    bad.case.file("task.toml", TASK.replace("\" negative\"", "\"\\u0001\""));
    bad.both(&["task `t`", "\\u{1}", "no tokens"]);
    bad.case.file("task.toml", TASK.replace("\" negative\"", "\"%\""));
    bad.both(&["task `t`", "\"%\"", "vocabulary"]);
    bad.case.file("task.toml", TASK.replace("\" negative\"", "\" Positive\""));
    bad.both(&["task `t`", "same tokens"]);
}

#[test]
fn demonstrations_that_there_are_not_enough_of() {
    let all = Try::new();
    all.few_shot(&["--shots", "4", "--choice", "random"], &["4 demonstrations", "3 different texts"]);
    all.eval(&["--shots", "4", "--choice", "nearest"], &["4 demonstrations", "3 different texts"]);
    let twice = Try::new();
    twice.case.file("train.jsonl", TRAIN.to_string() + TRAIN);
    twice.eval(&["--shots", "4", "--choice", "first"], &["3 different texts"]);
    // of one class there are not as many as a balanced choice needs
    let one = Try::new();
    one.case.file("train.jsonl", TRAIN.replace("negative", "positive"));
    one.eval(&["--shots", "2"], &["label `negative`", "training data has 0", "--choice random"]);
    assert!(run(&one.args("eval", &["--shots", "2", "--choice", "random"])).status.success());
}

#[test]
fn data_that_has_one_class_only() {
    let bad = Try::new();
    bad.case.file("data.jsonl", DATA.replace("negative", "positive"));
    bad.few_shot(&["--shots", "1"], &["data.jsonl", "label `positive`", "two labels"]);
    bad.case.file("data.jsonl", "");
    bad.few_shot(&["--shots", "1"], &["data.jsonl", "no rows"]);
}

#[test]
fn options_that_contradict_each_other() {
    let all = Try::new();
    all.few_shot(&["--order", "nearest-last", "--choice", "random"], &["nearest-last", "random"]);
    all.few_shot(&["--order", "all", "--shots", "8"], &["--order all", "8", "at most 5"]);
    all.few_shot(&["--seed", "18446744073709551615"], &["--seed 18446744073709551615"]);
    for command in ["eval", "few-shot"] {
        let mut args = all.args(command, &["--shots", "4"]);
        let at = args.iter().position(|arg| *arg == "--train").expect("an option");
        args.drain(at..at + 2);
        has(&refusal(&args), &["--shots", "--train"]);
    }
    for extra in [["--shots", "33"], ["--choice", "best"], ["--order", "none"], ["--calibration", "more"]] {
        has(&refusal(&all.args("few-shot", &extra)), &extra);
    }
}

#[test]
fn tasks_whose_answers_are_texts() {
    let task =
        "name = \"t\"\ntemplate = \"{text} {label}\"\n[answer]\nfield = \"label\"\nmax_new_tokens = 2\n";
    let bad = Try::with_task(task);
    bad.eval(&["--calibration", "contextual"], &["task.toml", "--calibration contextual", "texts"]);
    bad.few_shot(&[], &["task.toml", "texts", "eval --shots"]);
    assert_eq!(json_lines(&bad.args("eval", &["--shots", "1", "--choice", "first", "--json"])).len(), 1);
}

#[test]
fn text_with_nul_is_text_and_what_is_not_utf8_is_named() {
    let odd = Try::new();
    odd.case.file("train.jsonl", TRAIN.replace("was", r"w\u0000as"));
    odd.case.file("data.jsonl", DATA.replace("so", r"so\u0000"));
    let metrics = json_lines(&odd.args("eval", &["--shots", "2", "--json"]));
    assert_eq!(metrics[0]["n"], 2);
    let mut raw = TRAIN.as_bytes().to_vec();
    let at = TRAIN.find("sad").expect("a word");
    raw[at] = 0xff;
    odd.case.file("train.jsonl", raw);
    odd.both(&["train.jsonl:3:", "UTF-8"]);
    let mut raw = TASK.as_bytes().to_vec();
    let at = TASK.find(" positive").expect("a word");
    raw[at] = 0xff;
    odd.case.file("task.toml", raw);
    odd.both(&["task.toml", "UTF-8"]);
}

#[test]
fn a_study_that_cannot_be_written_is_refused_before_it_runs() {
    let all = Try::new();
    let out = all.case.file("a-file", "").join("out");
    has(&refused(&all.args("few-shot", &["--out", out.to_str().expect("UTF-8")]), 1), &["a-file"]);
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_unicode_is_a_path() {
    use std::os::unix::ffi::OsStrExt;
    let all = Try::new();
    let out = all.case.path("").join(std::ffi::OsStr::from_bytes(b"out-\xff"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_prompt-tuning"));
    command.args(all.args("few-shot", &["--shots", "0", "--out"])).arg(&out);
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.join("study.json").is_file());
}

#[test]
fn a_search_needs_every_label_and_words() {
    let all = Try::new();
    let dev = all.data.to_str().expect("UTF-8");
    let (model, task) = (all.model.to_str().expect("UTF-8"), all.task.to_str().expect("UTF-8"));
    let train = all.train.to_str().expect("UTF-8");
    let args = ["search-labels", "--model", model, "--task", task, "--train", train, "--dev", dev];
    has(&refusal(&[&args[..], &["--examples", "1"]].concat()), &["train.jsonl", "label `", "--examples"]);
    all.case.file("train.jsonl", TRAIN.replace("positive", "negative"));
    has(&refusal(&args), &["train.jsonl", "label `positive`"]);
}
