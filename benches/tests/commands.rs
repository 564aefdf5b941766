//! The program itself, on little work.

use std::process::{Command, Output};

use prompt_tuning_benches::data::Dtype;
use prompt_tuning_benches::generation::GenerationRun;
use prompt_tuning_benches::report::Roofline;
use prompt_tuning_benches::step::report::StepRun;
use prompt_tuning_benches::step::shape::{self, Family, Shape};

fn program(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prompt-tuning-benches")).args(args).output().expect("the program starts")
}

fn succeed(args: &[&str]) -> String {
    let output = program(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

const TINY: Shape = Shape {
    family: Family::Llama,
    d_model: 32,
    n_layers: 2,
    n_heads: 4,
    n_kv_heads: 2,
    d_ff: 48,
    vocab_size: 100,
    n_positions: 128,
    dtype: Dtype::Bf16,
};

#[test]
fn roofline_measures_draws_and_writes_its_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (svg, readme, json) = (path("roof.svg"), path("README.md"), path("roof.json"));
    std::fs::write(&readme, "# Title\n<!-- roofline:begin -->\n<!-- roofline:end -->\nrest\n").unwrap();
    let out = succeed(&[
        "roofline", "--quick", "--json", "--kernel", "add 820", "--svg", &svg, "--readme", &readme,
    ]);
    let run: Roofline = serde_json::from_str(&out).expect("the report");
    assert_eq!(run.measurements.len(), kernels::Isa::available().len());
    assert!(run.measurements.iter().all(|m| m.seconds.best > 0.0 && m.share.best > 0.0));
    assert!(run.ceilings.arithmetic.iter().all(|peak| peak.gflops >= peak.gflops_one_core * 0.1));
    assert!(std::fs::read_to_string(&svg).unwrap().contains("<circle"));
    let page = std::fs::read_to_string(&readme).unwrap();
    assert!(page.contains("| add | 820x768 |") && page.ends_with("rest\n"), "{page}");

    std::fs::write(&json, &out).unwrap();
    let again = succeed(&["table", "--json-file", &json, "--json-file", &json]);
    assert_eq!(again.matches("820x768").count(), run.measurements.len());
}

#[test]
fn step_counts_and_measures() {
    let folder = tempfile::tempdir().unwrap();
    shape::write(&TINY, folder.path(), 20, 0).unwrap();
    let model = folder.path().to_str().unwrap();
    let out = succeed(&["step", "--model", model, "--steps", "2", "--batch", "8", "--prompt", "4", "--json"]);
    let run: StepRun = serde_json::from_str(&out).expect("the report");
    assert_eq!(run.steps.len(), 2);
    let step = &run.steps[0];
    assert_eq!(step.examples, 8);
    // the prompt is computed once, and the completions are only predicted
    assert!(step.computed_tokens <= step.tokens - 7 * 4 - 8, "{step:?}");
    assert!(step.gflop > 0.0 && step.loss > 0.0);
}

#[test]
fn generation_is_measured_and_shown_again() {
    let folder = tempfile::tempdir().unwrap();
    shape::write(&TINY, folder.path(), 1, 0).unwrap();
    let model = folder.path().to_str().unwrap();
    let out =
        succeed(&["generate", "--model", model, "--batch", "2", "--prompt", "3", "--new", "4", "--json"]);
    let run: GenerationRun = serde_json::from_str(&out).expect("the report");
    assert!(run.tokens_per_s[0] > 0.0 && run.bound()[0] > run.bound()[1] * 0.99);
    let file = folder.path().join("runs.jsonl");
    std::fs::write(&file, out.repeat(2)).unwrap();
    let table = succeed(&["generate", "--from", file.to_str().unwrap()]);
    assert_eq!(table.matches("| 2 | 3 |").count(), 2, "{table}");
}

#[test]
fn mistakes_are_one_line() {
    for args in [
        &["roofline", "--kernel", "nonsense"][..],
        &["roofline", "--tier", "nonsense"],
        &["step", "--model", "nowhere"],
        &["generate", "--model", "nowhere"],
        &["generate", "--model", "nowhere", "--new", "1"],
        &["table", "--json-file", "nowhere"],
    ] {
        let output = program(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && stderr.lines().count() == 1, "{args:?}: {stderr}");
    }
}
