//! Opening a model takes no memory of the model's size. Alone in its file: it reads numbers of the whole process.
#![cfg(target_os = "linux")]

mod common;

use common::synthetic::{Shape, Synthetic};
use prompt_tuning_model::LanguageModel;

/// Memory of the process that is not a file's, in bytes.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn opening_takes_less_than_a_twentieth_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let shape = Shape { d_model: 512, n_layers: 6, n_heads: 8, n_kv_heads: 4, d_ff: 1536, vocab_size: 8000 };
    Synthetic::llama(shape, 1).write(folder.path());
    let size = std::fs::metadata(folder.path().join("model.safetensors")).unwrap().len();
    assert!(size > 50_000_000);
    let before = anonymous();
    let model = LanguageModel::open(folder.path()).unwrap();
    let after = anonymous();
    assert!(after.saturating_sub(before) < size / 20, "{before} bytes before, {after} after");
    assert_eq!(model.checkpoint().copied_bytes(), 0);
}
