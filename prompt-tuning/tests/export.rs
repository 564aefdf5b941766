//! Prompts that leave in one format and come back in another.

mod fixture;

use std::path::Path;
use std::process::{Command, Output};

fn run(args: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-tuning"));
    command.args(args).output().expect("the program starts")
}

fn succeed(args: &[&Path]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Adapter to `.npy` to adapter: the same tensor file, and the same answers on the way.
#[test]
fn npy_and_back() {
    let model = fixture::folder("gpt2-tied-f32");
    let adapter = model.join("adapter");
    let folder = tempfile::tempdir().expect("a folder");
    let (npy, again) = (folder.path().join("p.npy"), folder.path().join("again"));
    let p = Path::new;
    let export = |from: &Path, to: &Path| {
        succeed(&[p("export"), p("--model"), &model, p("--prompt"), from, p("--to"), to, p("--json")])
    };
    assert!(export(&adapter, &npy).contains("\"virtual_tokens\":5"));
    export(&npy, &again);
    let bytes = |folder: &Path| std::fs::read(folder.join("adapter_model.safetensors")).expect("an adapter");
    assert_eq!(bytes(&again), bytes(&adapter));

    let rows = folder.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"prompt_ids\": [3, 4], \"completion_ids\": [5, 6]}\n").expect("a file");
    let score = |prompt: &Path| {
        succeed(&[p("score"), p("--model"), &model, p("--prompt"), prompt, p("--data"), &rows, p("--json")])
    };
    assert_eq!(score(&npy), score(&again));
    let similar = succeed(&[p("inspect"), p("--model"), &model, p("--prompt"), &npy, p("--with"), &again]);
    assert!(similar.contains("means  1.000"), "{similar}");

    let refused = run(&[p("export"), p("--model"), &model, p("--prompt"), &npy, p("--to"), &again]);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && stderr.contains("is there already"), "{stderr}");
}

fn refused(args: &[&Path], parts: &[&str]) {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(output.status.code() == Some(2) && errors.len() == 1, "{args:?}: {stderr}");
    parts.iter().for_each(|part| assert!(errors[0].contains(part), "{args:?}: {stderr}"));
}

/// A prefix of PEFT in every command; what makes no sense with one is an error that says so.
#[test]
fn a_prefix_in_every_command() {
    let (model, prefix) = (fixture::folder("gpt2-tied-f32"), fixture::of_peft("prefix").join("adapter"));
    let folder = tempfile::tempdir().expect("a folder");
    let to = |name: &str| folder.path().join(name);
    let rows = to("rows.jsonl");
    std::fs::write(&rows, "{\"prompt_ids\": [3, 4], \"completion_ids\": [5, 6]}\n").expect("a file");
    let p = Path::new;
    let with = |command: &'static str| [p(command), p("--model"), &model, p("--prompt"), &prefix];
    let score = |prompt: &Path| {
        succeed(&[p("score"), p("--model"), &model, p("--prompt"), prompt, p("--data"), &rows, p("--json")])
    };
    let generated = succeed(&[&with("generate")[..], &[p("--ids"), p("5,6"), p("--json")]].concat());
    assert!(generated.contains("token_ids"), "{generated}");
    succeed(&[&with("export")[..], &[p("--to"), &to("copy")]].concat());
    assert_eq!(score(&to("copy")), score(&prefix));

    refused(&[&with("export")[..], &[p("--to"), &to("p.npy")]].concat(), &["a prefix has no .npy form"]);
    refused(&with("inspect"), &["no vocabulary token is near"]);
    let soft = model.join("adapter");
    refused(&[&with("inspect")[..], &[p("--with"), &soft]].concat(), &["a soft prompt and a prefix"]);
    let train = [p("train"), p("--model"), &model, p("--train"), &rows, p("--steps"), p("1")];
    let start = [p("--prompt-length"), p("4"), p("--init"), &prefix];
    fn joined<'a>(args: &[&'a Path], more: &[&'a Path]) -> Vec<&'a Path> {
        [args, more].concat()
    }
    refused(
        &joined(&train, &[&start[..], &[p("--out"), &to("a")]].concat()),
        &["it is a prefix", "--method prefix"],
    );
    succeed(&joined(&train, &[&start[..], &[p("--method"), p("prefix"), p("--out"), &to("b")]].concat()));
    refused(
        &joined(&train, &[p("--encoder"), p("lstm"), p("--out"), &to("c")]),
        &["--encoder does nothing here"],
    );
    let long = [p("--method"), p("prefix"), p("--prompt-length"), p("4000000000"), p("--out")];
    refused(&joined(&train, &[&long[..], &[&to("d")]].concat()), &["leaves no room for text"]);

    let config = to("copy").join("adapter_config.json");
    let text = std::fs::read_to_string(&config).expect("a config");
    std::fs::write(&config, text.replace("\"num_layers\": 2", "\"num_layers\": 4").replace(": 48", ": 24"))
        .expect("a file");
    let copy = to("copy");
    let other = [p("score"), p("--model"), &model, p("--prompt"), &copy, p("--data"), &rows, p("--force")];
    refused(&other, &["`num_layers` 4", "has 2"]);
}

/// The prompt that a run starts from may be the one that it replaces.
#[test]
fn a_prompt_can_be_trained_on_in_its_own_folder() {
    let model = fixture::folder("t5-v1.1-gated-bf16");
    let folder = tempfile::tempdir().expect("a folder");
    let (rows, out) = (folder.path().join("rows.jsonl"), folder.path().join("out"));
    std::fs::write(&rows, "{\"prompt_ids\": [3, 4], \"completion_ids\": [5, 6]}\n").expect("a file");
    let p = Path::new;
    let args =
        [p("train"), p("--model"), &model, p("--train"), &rows, p("--steps"), p("2"), p("--out"), &out];
    let length = [p("--prompt-length"), p("3")];
    succeed(&[&args[..], &length].concat());
    succeed(&[&args[..], &length, &[p("--init"), &out, p("--overwrite")]].concat());
    assert!(out.join("adapter_model.safetensors").is_file());
    // a prefix of a decoder that is deeper than its encoder
    let (model, out) = (fixture::folder("t5-v1.0-relu-tied"), folder.path().join("prefix"));
    let prefix = [p("--method"), p("prefix"), p("--out"), &out];
    let args = [p("train"), p("--model"), &model, p("--train"), &rows, p("--steps"), p("1")];
    succeed(&[&args[..], &prefix, &length].concat());
    succeed(&[p("score"), p("--model"), &model, p("--prompt"), &out, p("--data"), &rows]);
}
