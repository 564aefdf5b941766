//! Whatever is wrong with the input, the program says so in one line and ends with a code of its own.

mod fixture;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        Case { folder: tempfile::tempdir().expect("a folder") }
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// A copy of a fixture that may be damaged.
    fn model(&self, name: &str) -> PathBuf {
        let to = self.folder.path().join("model");
        std::fs::create_dir(&to).expect("a folder");
        for entry in std::fs::read_dir(fixture::folder(name)).expect("a fixture") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
            }
        }
        to
    }
}

fn reviews(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/reviews").join(name)
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_prompt-tuning"))
}

/// The error must be one line on stderr that contains all of `parts`, and the exit code `code`.
fn refused(output: &Output, code: i32, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = stderr.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!((output.status.code(), errors.len()), (Some(code), 1), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for part in parts {
        assert!(errors[0].contains(part), "`{part}` is not in: {}", errors[0]);
    }
}

fn eval(model: &Path, data: &Path, task: &Path) -> Output {
    program()
        .arg("eval")
        .arg("--model")
        .arg(model)
        .arg("--data")
        .arg(data)
        .arg("--task")
        .arg(task)
        .output()
        .expect("it runs")
}

fn train(model: &Path, data: &Path, out: &Path, extra: &[&str]) -> Output {
    let mut command = program();
    command.arg("train").arg("--model").arg(model).arg("--train").arg(data).arg("--out").arg(out);
    command.args(["--steps", "2", "--batch", "2"]).args(extra).output().expect("it runs")
}

#[test]
fn data_rows_are_named_by_file_and_line() {
    let (case, model, task) = (Case::new(), fixture::folder("gpt2-text"), reviews("hard.toml"));
    let good = r#"{"text": "Fine.", "label": "positive"}"#;
    let cases = [
        ("{\"text\": \"Fine.\"", "JSON"),
        (r#"{"text": "", "label": "positive"}"#, "empty"),
        (r#"{"text": "Fine.", "label": "neutral"}"#, "neutral"),
        (r#"{"label": "positive"}"#, "text"),
        (r#"{"text": "Fine."}"#, "label"),
        (r#"{"text": 3, "label": "positive"}"#, "text"),
    ];
    for (row, expected) in cases {
        let data = case.file("data.jsonl", format!("{good}\n{row}\n"));
        refused(&eval(&model, &data, &task), 2, &["data.jsonl:2:", expected]);
    }
    let data = case.file("data.jsonl", "");
    refused(&eval(&model, &data, &task), 2, &["data.jsonl"]);
    refused(&eval(&model, &case.folder.path().join("none.jsonl"), &task), 2, &["none.jsonl"]);
}

#[test]
fn a_text_longer_than_the_context_window_is_refused_with_the_numbers() {
    let (case, model) = (Case::new(), fixture::folder("gpt2-text"));
    let text = "word ".repeat(400);
    let data = case.file("long.jsonl", json!({ "text": text, "label": "positive" }).to_string());
    refused(&eval(&model, &data, &reviews("hard.toml")), 2, &["long.jsonl:1:", "256"]);
}

#[test]
fn token_ids_outside_the_vocabulary_are_refused() {
    let (case, model) = (Case::new(), fixture::folder("gpt2-tied-f32"));
    let data = case.file("ids.jsonl", r#"{"prompt_ids": [1, 99999], "completion_ids": [2]}"#);
    refused(&train(&model, &data, &case.folder.path().join("out"), &[]), 2, &["ids.jsonl:1:", "99999"]);
}

#[test]
fn models_that_are_not_there_or_not_usable() {
    let (case, task, data) = (Case::new(), reviews("hard.toml"), reviews("dev.jsonl"));
    refused(&eval(Path::new("no/such/folder"), &data, &task), 2, &["no/such/folder"]);
    let empty = case.folder.path().join("empty");
    std::fs::create_dir(&empty).expect("a folder");
    refused(&eval(&empty, &data, &task), 2, &["config.json"]);

    let model = case.model("gpt2-text");
    let config: Value =
        serde_json::from_slice(&std::fs::read(model.join("config.json")).expect("a file")).expect("JSON");
    let with = |key: &str, value: Value| {
        let mut changed = config.clone();
        changed[key] = value;
        case.file("model/config.json", changed.to_string());
        eval(&model, &data, &task)
    };
    refused(&with("model_type", "rwkv".into()), 2, &["rwkv", "gpt2"]);
    refused(&with("n_head", 7.into()), 2, &["n_head", "7"]);
    refused(&with("n_layer", 5.into()), 2, &["h.", "tensor"]);
    refused(&with("vocab_size", 1000.into()), 2, &["wte.weight", "1000"]);
    refused(&with("n_embd", Value::Null), 2, &["n_embd"]);
    case.file("model/config.json", "{");
    refused(&eval(&model, &data, &task), 2, &["config.json"]);
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let (case, task, data) = (Case::new(), reviews("hard.toml"), reviews("dev.jsonl"));
    let model = case.model("gpt2-text");
    let path = model.join("model.safetensors");
    let whole = std::fs::read(&path).expect("a file");
    for (damaged, expected) in [
        (whole[..whole.len() - 100].to_vec(), "model.safetensors"),
        (whole[..4].to_vec(), "model.safetensors"),
        ([&u64::MAX.to_le_bytes()[..], &whole[8..]].concat(), "model.safetensors"),
        (Vec::new(), "model.safetensors"),
    ] {
        std::fs::write(&path, damaged).expect("a file");
        refused(&eval(&model, &data, &task), 2, &[expected]);
    }
}

#[test]
fn nan_in_any_weight_is_found_when_it_shows_and_named() {
    let (case, task, data) = (Case::new(), reviews("hard.toml"), reviews("dev.jsonl"));
    let model = case.model("gpt2-text");
    let path = model.join("model.safetensors");
    let whole = std::fs::read(&path).expect("a file");
    let (header, metadata) = safetensors::SafeTensors::read_metadata(&whole).expect("a header");
    for part in ["ln_f.weight", "h.0.attn.c_attn.weight", "h.0.mlp.c_proj.weight", "h.1.ln_1.bias"] {
        let name = metadata.offset_keys().into_iter().find(|name| name.ends_with(part)).expect("a tensor");
        let start = 8 + header + metadata.info(&name).expect("a tensor").data_offsets.0;
        let mut nan = whole.clone();
        nan[start..start + 2].fill(0xff); // one bf16 number
        std::fs::write(&path, nan).expect("a file");
        refused(&eval(&model, &data, &task), 1, &[part]);
    }
}

#[test]
fn an_adapter_for_another_model_is_refused() {
    let case = Case::new();
    let adapter = fixture::folder("gpt2-tied-f32").join("adapter");
    let ids = case.file("ids.jsonl", r#"{"prompt_ids": [1, 2], "completion_ids": [3]}"#);
    let score = |model: &str, prompt: &Path, extra: &[&str]| {
        let mut command = program();
        command.arg("score").arg("--model").arg(fixture::folder(model)).arg("--prompt").arg(prompt);
        command.arg("--data").arg(&ids).args(extra).output().expect("it runs")
    };
    refused(&score("gpt2-square", &adapter, &[]), 2, &["48", "32"]);

    // the same width, another fingerprint
    let out = case.folder.path().join("out");
    let made = train(&fixture::folder("gpt2-tied-f32"), &ids, &out, &["--prompt-length", "3"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    refused(&score("gpt2-tied-f16", &out, &[]), 2, &["gpt2-tied-f32", "gpt2-tied-f16", "--force"]);
    assert!(score("gpt2-tied-f16", &out, &["--force"]).status.success());
    assert!(score("gpt2-tied-f32", &out, &[]).status.success());
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_before_training() {
    let case = Case::new();
    let ids = case.file("ids.jsonl", r#"{"prompt_ids": [1, 2], "completion_ids": [3]}"#);
    let file = case.file("a-file", "");
    refused(&train(&fixture::folder("gpt2-tied-f32"), &ids, &file.join("out"), &[]), 1, &["a-file"]);
}

/// A limit on the size of files does what a full disk does: a write fails half-way.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing_that_was_there() {
    let case = Case::new();
    let ids = case.file("ids.jsonl", r#"{"prompt_ids": [1, 2], "completion_ids": [3]}"#);
    let (model, out) = (fixture::folder("gpt2-tied-f32"), case.folder.path().join("out"));
    assert!(train(&model, &ids, &out, &[]).status.success());
    let files = || {
        let read = |name: &str| std::fs::read(out.join(name)).expect("a file");
        ["adapter_config.json", "adapter_model.safetensors", "training_state.safetensors"].map(read)
    };
    let before = files();
    let limited = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_prompt-tuning")])
        .args(["train", "--resume", "--steps", "4", "--batch", "2", "--model"])
        .args([&model, Path::new("--train"), &ids, Path::new("--out"), &out])
        .output()
        .expect("it runs");
    refused(&limited, 1, &["cannot write"]);
    assert_eq!(files(), before);
}

/// One line, whatever is wrong with the GPU; a driver that answers with a code of its own is no reason to panic.
#[test]
fn why_there_is_no_gpu_is_said() {
    let case = Case::new();
    let model = fixture::folder("gpt2-text");
    let ask = |variable: &str, value: &Path| {
        let mut command = program();
        command.arg("generate").arg("--model").arg(&model).args(["--text", "a", "--device", "cuda"]);
        command.env(variable, value).output().expect("it runs")
    };
    let off = ask("PROMPT_TUNING_GPU", Path::new("off"));
    refused(&off, 2, &["--device cuda", "PROMPT_TUNING_GPU=off"]);
    refused(
        &ask("PROMPT_TUNING_GPU", Path::new("yes")),
        2,
        &["PROMPT_TUNING_GPU=yes", "off, auto or require"],
    );

    let functions = ["cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName"];
    let others = functions.into_iter().chain(["cuDeviceGetAttribute", "cuDeviceTotalMem_v2"]);
    let others: String = others.map(|name| format!("int {name}(void) {{ return 0; }}\n")).collect();
    let source = case.file("driver.c", format!("{others}int cuInit(unsigned flags) {{ return 9999; }}\n"));
    let library = case.folder.path().join("libcuda.so.1");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(compiled.expect("cc, which links every Rust program").success());
    refused(&ask("LD_LIBRARY_PATH", case.folder.path()), 2, &["--device cuda", "cuInit", "9999"]);
}

#[test]
fn full_fine_tuning_is_refused_what_belongs_to_prompts() {
    let case = Case::new();
    let ids = case.file("ids.jsonl", r#"{"prompt_ids": [1, 2], "completion_ids": [3]}"#);
    let model = fixture::folder("gpt2-tied-f32");
    let out = case.folder.path().join("out");
    let full = |options: &[&str]| train(&model, &ids, &out, &[&["--method", "full"], options].concat());
    refused(&full(&["--init", "zero"]), 2, &["--init"]);
    refused(&full(&["--prompt-length", "5"]), 2, &["--prompt-length"]);
    refused(&full(&["--weights", "no.such.*"]), 2, &["no.such.*", "wpe.weight"]);
    refused(&full(&["--weights", "last:0"]), 2, &["last:0"]);
    refused(&train(&model, &ids, &out, &["--weights", "all"]), 2, &["--weights", "--method full"]);
    let gguf = fixture::model_path("gguf-gpt2");
    refused(&train(&gguf, &ids, &out, &["--method", "full"]), 2, &["GGUF"]);
    assert!(!out.join("model.safetensors").exists());
}

/// Nor is the folder of another model: `--overwrite` replaces runs, not models.
#[test]
fn the_folder_of_another_model_is_not_overwritten() {
    let case = Case::new();
    let ids = case.file("ids.jsonl", r#"{"prompt_ids": [1, 2], "completion_ids": [3]}"#);
    let other = case.folder.path().join("other");
    std::fs::create_dir(&other).expect("a folder");
    std::fs::write(other.join("model.safetensors"), b"precious").expect("a file");
    let output = train(&fixture::folder("gpt2-tied-f32"), &ids, &other, &["--overwrite"]);
    refused(&output, 2, &["--overwrite", "model"]);
    assert_eq!(std::fs::read(other.join("model.safetensors")).expect("a file"), b"precious");
}

/// The model's own folder is never an output, whatever is asked for.
#[test]
fn the_folder_of_the_model_is_no_output() {
    let case = Case::new();
    let ids = case.file("ids.jsonl", r#"{"prompt_ids": [1, 2], "completion_ids": [3]}"#);
    let model = case.folder.path().join("model");
    std::fs::create_dir(&model).expect("a folder");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture::folder("gpt2-tied-f32").join(name), model.join(name)).expect("a copy");
    }
    let before = std::fs::read(model.join("model.safetensors")).expect("weights");
    for method in ["soft", "full"] {
        let output = train(&model, &ids, &model, &["--method", method, "--overwrite"]);
        refused(&output, 2, &["--out", "only read"]);
    }
    assert_eq!(before, std::fs::read(model.join("model.safetensors")).expect("weights"));
}

#[test]
fn an_instruction_set_that_is_not_here_is_refused_with_those_that_are() {
    let mut command = program();
    command.env("KERNELS_FORCE_ISA", "abacus").args(["score", "--model", "none", "--data", "none"]);
    refused(&command.output().expect("it runs"), 2, &["KERNELS_FORCE_ISA=abacus", "portable"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    let case = Case::new();
    let ids = case.file("ids.jsonl", r#"{"prompt_ids": [1, 2], "completion_ids": [3]}"#);
    let out = case.folder.path().join("out");
    let mut command = program();
    command
        .arg("train")
        .arg("--model")
        .arg(fixture::folder("gpt2-tied-f32"))
        .arg("--train")
        .arg(&ids)
        .arg("--out")
        .arg(&out);
    let child = command
        .args(["--steps", "100000000", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = child.spawn().expect("it starts");
    let mut first = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut stdout, &mut first).expect("a step");
    // reading goes on, or the pipe would fill up
    let rest = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
    let output = child.wait_with_output().expect("it ends");
    rest.join().expect("a thread").expect("a pipe");
    refused(&output, 1, &["interrupted after step", "--resume"]);
    assert!(out.join("training_state.safetensors").exists());
}
