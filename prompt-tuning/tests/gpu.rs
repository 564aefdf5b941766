//! `--device cuda` as a user runs it, with a stand-in for NVIDIA's driver that computes with the GPU's kernels on the CPU
//! (`kernels/tests/shim/driver.cpp`).
#![cfg(feature = "cuda")]

#[path = "../../kernels/tests/shim/compile.rs"]
mod compile;
mod fixture;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use kernels::testing::{Tolerance, close};
use serde_json::Value;
use tempfile::TempDir;

/// The folder of the stand-in, if it can be compiled.
fn stand_in() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<TempDir>> = OnceLock::new();
    FOLDER
        .get_or_init(|| compile::library("libcuda.so.1", &["shim.cpp", "driver.cpp"]))
        .as_ref()
        .map(TempDir::path)
}

/// The program with these words, on the stand-in or on the CPU.
fn program(gpu: Option<&Path>, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-tuning"));
    command.args(words);
    if let Some(folder) = gpu {
        command.args(["--device", "cuda"]).env("LD_LIBRARY_PATH", folder);
    }
    command
}

fn reviews(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/reviews").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A training run of so many steps into `out`.
fn train(gpu: Option<&Path>, steps: usize, out: &Path, more: &[&str]) -> Command {
    // a template with soft tokens is none for training weights
    let task = reviews(if more.contains(&"full") { "hard.toml" } else { "task.toml" });
    let (model, data) = (fixture::folder("gpt2-text"), reviews("train.jsonl"));
    let steps = steps.to_string();
    let run = ["train", "--json", "--model", text(&model), "--task", text(&task), "--train", text(&data)];
    let settings = ["--out", text(out), "--steps", &steps, "--batch", "4", "--lr", "0.01"];
    program(gpu, &[&run, settings.as_slice(), more].concat())
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Losses of the steps in the log of a run.
fn losses(out: &Path) -> Vec<f32> {
    let log = std::fs::read_to_string(out.join("metrics.jsonl")).expect("a log");
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter_map(|line| Some(line["loss"].as_f64()? as f32)).collect()
}

#[test]
fn training_goes_the_way_it_goes_on_the_cpu() {
    let Some(gpu) = stand_in() else { return };
    let methods: [&[&str]; 4] = [
        &["--clip", "1"],
        &["--method", "prefix", "--recompute"],
        &["--method", "full", "--clip", "1"],
        &["--method", "full", "--optimizer", "adafactor"],
    ];
    for method in methods {
        let folder = tempfile::tempdir().expect("a folder");
        let (here, there) = (folder.path().join("here"), folder.path().join("there"));
        succeed(&mut train(None, 6, &here, method));
        succeed(&mut train(Some(gpu), 6, &there, method));
        let (here, there) = (losses(&here), losses(&there));
        assert_eq!(here.len(), 6, "{method:?}");
        close(&there, &here, Tolerance { absolute: 1e-5, relative: 1e-4 })
            .unwrap_or_else(|e| panic!("{method:?}: {e}"));
    }
}

#[test]
fn a_prompt_answers_and_continues_as_on_the_cpu() {
    let Some(gpu) = stand_in() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let prompt = folder.path().join("prompt");
    succeed(&mut train(Some(gpu), 3, &prompt, &[]));
    let (model, task, data) = (fixture::folder("gpt2-text"), reviews("task.toml"), reviews("dev.jsonl"));
    let model = ["--model", text(&model), "--prompt", text(&prompt), "--json"];
    let predict = [&["predict", "--task", text(&task), "--data", text(&data)], model.as_slice()].concat();
    let labels = |gpu| -> Vec<String> {
        let lines = succeed(&mut program(gpu, &predict));
        let label = |line: &str| {
            serde_json::from_str::<Value>(line).expect("JSON")["label"].as_str().map(str::to_string)
        };
        lines.lines().filter_map(label).collect()
    };
    assert!(labels(None).len() > 10);
    assert_eq!(labels(Some(gpu)), labels(None));
    let generate = [&["generate", "--text", "a film", "--max-new-tokens", "8"], model.as_slice()].concat();
    assert_eq!(succeed(&mut program(Some(gpu), &generate)), succeed(&mut program(None, &generate)));
}

/// The one line of a run that must end with code 1.
fn failure(output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    errors[0].to_string()
}

/// A run that a kernel ends names what failed, and goes on from its last checkpoint with the bits of one that was left alone.
#[test]
fn a_broken_gpu_ends_a_run_that_can_be_resumed() {
    let Some(gpu) = stand_in() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let often = ["--save-every", "2"];
    succeed(&mut train(Some(gpu), 6, &whole, &often));
    // more than three steps, and less than six
    let launches = 3 * launches_of_a_step(gpu, folder.path());
    let ended =
        train(Some(gpu), 6, &broken, &often).env("STAND_IN_LAUNCHES", launches.to_string()).output().unwrap();
    let why = failure(ended);
    assert!(why.contains("the GPU failed") && why.contains("CUDA_ERROR_LAUNCH_FAILED (719)"), "{why}");
    assert!(losses(&broken).len() < 6);
    succeed(&mut train(Some(gpu), 6, &broken, &["--save-every", "2", "--resume"]));
    assert_eq!(losses(&broken), losses(&whole));
    let adapter = |out: &Path| std::fs::read(out.join("adapter_model.safetensors")).expect("an adapter");
    assert_eq!(adapter(&broken), adapter(&whole));
}

/// Launches of a run of one step, or up to twice as many.
fn launches_of_a_step(gpu: &Path, folder: &Path) -> usize {
    let succeeds = |n: &usize| {
        let mut run = train(Some(gpu), 1, &folder.join(format!("one-{n}")), &[]);
        run.env("STAND_IN_LAUNCHES", n.to_string()).output().expect("it runs").status.success()
    };
    (3..).map(|power| 1 << power).find(succeeds).expect("some number is enough")
}

/// The last launch of all changes a weight: if it fails, so does the run, and nothing is written in the name of a result.
#[test]
fn a_failure_in_the_last_step_of_an_optimizer_is_one() {
    let Some(gpu) = stand_in() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let run = |n: usize, name: &str| {
        let mut run = train(Some(gpu), 1, &folder.path().join(name), &["--method", "full", "--no-state"]);
        run.env("STAND_IN_LAUNCHES", n.to_string()).output().expect("it runs")
    };
    let (mut too_few, mut enough) = (0, 1 << 12);
    while enough - too_few > 1 {
        let n = (enough + too_few) / 2;
        match run(n, &format!("{n}")).status.success() {
            true => enough = n,
            false => too_few = n,
        }
    }
    assert!(failure(run(too_few, "last")).contains("the GPU failed"));
    assert!(!folder.path().join("last/model.safetensors").exists());
    assert!(run(enough, "all").status.success() && folder.path().join("all/model.safetensors").exists());
}

#[test]
fn too_little_memory_is_said_with_its_sizes() {
    let Some(gpu) = stand_in() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let run = |bytes: usize| {
        train(Some(gpu), 2, &out, &[]).env("STAND_IN_MEMORY", bytes.to_string()).output().expect("it runs")
    };
    let why = String::from_utf8_lossy(&run(10_000).stderr).into_owned();
    assert!(why.contains("MB of GPU memory") && why.contains("are free"), "{why}");
    let weights = std::fs::metadata(fixture::folder("gpt2-text").join("model.safetensors")).unwrap().len();
    let why = failure(run(weights as usize + 100_000));
    assert!(why.contains("the loss of step 1 is NaN: the GPU failed"), "{why}");
    assert!(why.contains("smaller batches need less memory"), "{why}");
}
