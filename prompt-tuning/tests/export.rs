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
