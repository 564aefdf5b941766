//! The fixture checkpoints and what the tests do with them again and again.
#![allow(dead_code, missing_docs, unreachable_pub)] // each test file uses a part

use std::path::{Path, PathBuf};
use std::sync::Arc;

use autograd::{Tape, Value};
use prompt_tuning_model::{Forest, LanguageModel, PackedBatch, Prediction, Prompt, Row, Source, Step};
use tensor::{Checkpoint, Tensor};

pub const FIXTURES: [&str; 11] = [
    "gpt2-tied-f32",
    "gpt2-tied-f16",
    "gpt2-square",
    "gpt2-text",
    "llama-gqa-tied-bf16",
    "llama-untied-sharded-f32",
    "llama3-rope",
    "qwen2-bias-tied",
    "gguf-llama",
    "gguf-qwen2",
    "gguf-gpt2",
];

/// BERTs: soft tokens in front of `[CLS]`, rows with masks.
pub const MASKED: [&str; 3] = ["bert-english", "bert-chinese", "bert-untied"];
pub const T5: [&str; 2] = ["t5-v1.0-relu-tied", "t5-v1.1-gated-bf16"];

/// Every family that is scored by the token before.
pub fn all() -> impl Iterator<Item = Fixture> {
    FIXTURES.into_iter().chain(T5).map(Fixture::open)
}

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The model of a fixture: its GGUF file, or its folder.
pub fn model_path(name: &str) -> PathBuf {
    let file = folder(name).join("model.gguf");
    if file.is_file() { file } else { folder(name) }
}

pub struct Fixture {
    pub name: &'static str,
    pub model: LanguageModel,
    pub expected: serde_json::Value,
    tensors: Checkpoint,
}

impl Fixture {
    pub fn open(name: &'static str) -> Fixture {
        let folder = folder(name);
        let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        Fixture {
            name,
            model: LanguageModel::open(&model_path(name)).unwrap(),
            expected: serde_json::from_str(&expected).unwrap(),
            tensors: Checkpoint::open_file(&folder.join("expected.safetensors")).unwrap(),
        }
    }

    pub fn tensor(&self, name: &str) -> Vec<f32> {
        self.tensors.tensor_of_any_shape(name).unwrap().f32s().to_vec()
    }

    pub fn n_virtual(&self) -> usize {
        self.expected["n_virtual"].as_u64().unwrap() as usize
    }

    /// The soft prompt of the fixture as a leaf of `tape`.
    pub fn prompt(&self, tape: &Tape) -> Value {
        tape.leaf(&[self.n_virtual(), self.model.config().d_model], self.tensor("prompt.init"))
    }

    pub fn constant_prompt(&self) -> Prompt {
        let shape = [self.n_virtual(), self.model.config().d_model];
        let constant = Value::constant(Tensor::from_vec(&shape, self.tensor("prompt.init")));
        Prompt::Soft(constant)
    }

    /// The tokens that a decoder is fed behind its start token, up to the last, which is only predicted.
    pub fn labels(&self) -> Vec<u32> {
        ids(&self.expected["labels"])
    }

    pub fn rows(&self) -> Vec<Vec<u32>> {
        self.expected["rows"].as_array().unwrap().iter().map(ids).collect()
    }

    /// The rows of `batch`, each scored token weighing `weight`.
    pub fn batch(&self, n_soft: usize, weight: f32) -> Vec<Row> {
        let row = |item: &serde_json::Value| {
            if item["ids"].is_array() {
                return masked_row(item, n_soft, weight);
            }
            let (prompt, completion) = (ids(&item["prompt_ids"]), ids(&item["completion_ids"]));
            if let Some(start) = self.model.config().seq2seq.map(|s| s.decoder_start_token_id) {
                let tokens = sources(0, &[&[start], completion.as_slice()].concat());
                return Row { encoder: sources(n_soft, &prompt), ..Row::causal(tokens, 1, weight) };
            }
            let tokens = sources(n_soft, &[prompt.as_slice(), &completion].concat());
            Row::causal(tokens, n_soft + prompt.len(), weight)
        };
        self.expected["batch"].as_array().unwrap().iter().map(row).collect()
    }
}

fn masked_row(item: &serde_json::Value, n_soft: usize, weight: f32) -> Row {
    let prediction = |(at, token)| Prediction { at: n_soft + at as usize, token };
    let scored = ids(&item["mask_positions"]).into_iter().zip(ids(&item["labels"])).map(prediction);
    let tokens = sources(n_soft, &ids(&item["ids"]));
    Row { encoder: Vec::new(), tokens, scored: scored.collect(), weight }
}

pub fn ids(list: &serde_json::Value) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

pub fn floats(list: &serde_json::Value) -> Vec<f32> {
    list.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

/// `n_soft` rows of the prompt, then text.
pub fn sources(n_soft: usize, ids: &[u32]) -> Vec<Source> {
    (0..n_soft as u32).map(Source::Soft).chain(ids.iter().map(|&id| Source::Text(id))).collect()
}

/// Logits at every token of a forest, `[T, V]`.
pub fn forest_logits(model: &LanguageModel, forest: &Forest, prompt: Option<&Prompt>) -> Tensor {
    let tape = Tape::new();
    let embeds = model.embed(&tape, &forest.sources, prompt.and_then(Prompt::soft));
    let step =
        Step { positions: &forest.positions, mask: &forest.mask, outputs: None, cache: None, encoded: None };
    model.logits(model.hidden(&tape, &embeds, step).tensor())
}

/// Rows `rows` of a matrix, in order.
pub fn take_rows(matrix: &Tensor, rows: &[u32]) -> Vec<f32> {
    rows.iter()
        .flat_map(|&r| matrix.f32s()[r as usize * matrix.width()..][..matrix.width()].to_vec())
        .collect()
}

/// Loss, log-probabilities by row, and gradient of the prompt (`[n, d_model]`).
pub fn loss_and_gradient(
    model: &LanguageModel,
    rows: &[Row],
    prompt: &[f32],
) -> (f32, Vec<Vec<f32>>, Vec<f32>) {
    let tape = Tape::new();
    let d_model = model.config().d_model;
    let prompt = tape.leaf(&[prompt.len() / d_model, d_model], prompt);
    let batch = PackedBatch::from_rows(model.family(), rows);
    let scored = model.score(&tape, &batch, Some(&Prompt::Soft(prompt.clone())));
    let of_row = |row: &Vec<u32>| row.iter().map(|&t| scored.log_probs[t as usize]).collect();
    let log_probs = batch.row_targets.iter().map(of_row).collect();
    let gradient = tape.backward(&scored.loss).take(&prompt);
    (scored.loss.tensor().f32s()[0], log_probs, gradient.f32s().to_vec())
}

/// `Σ log p` of each of `answers` after `row`, or of the decoder's answer to it.
pub fn all_log_probs(f: &Fixture, row: &[Source], answers: &[Vec<u32>]) -> Vec<f64> {
    let answered = |answer: &Vec<u32>| match f.model.config().seq2seq {
        Some(decoder) => {
            let tokens = sources(0, &[&[decoder.decoder_start_token_id], answer.as_slice()].concat());
            Row { encoder: row.to_vec(), ..Row::causal(tokens, 1, 1.0) }
        }
        None => Row::causal([row, &sources(0, answer)].concat(), row.len(), 1.0),
    };
    let batch = PackedBatch::from_rows(f.model.family(), &answers.iter().map(answered).collect::<Vec<_>>());
    let scored = f.model.score(&Tape::new(), &batch, Some(&f.constant_prompt()));
    let sum = |targets: &Vec<u32>| targets.iter().map(|&t| f64::from(scored.log_probs[t as usize])).sum();
    batch.row_targets.iter().map(sum).collect()
}

/// Copies a fixture's folder, without what was recorded.
pub fn copy(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder(name)).unwrap().map(|f| f.unwrap().path()) {
        let name = file.file_name().unwrap().to_str().unwrap().to_string();
        if file.is_file() && !name.starts_with("expected") {
            std::fs::copy(&file, copy.path().join(name)).unwrap();
        }
    }
    copy
}

/// Opens a folder that must be refused, and says why.
pub fn refusal(folder: &Path) -> String {
    let why = LanguageModel::open(folder).expect_err("the folder must be refused").to_string();
    assert!(!why.contains('\n'), "one line: {why}");
    why
}

/// Largest absolute number.
pub fn largest(x: &[f32]) -> f64 {
    x.iter().fold(0.0, |m, x| m.max(f64::from(x.abs())))
}

/// Shares an id list.
pub fn shared<T: Clone>(items: &[T]) -> Arc<[T]> {
    items.into()
}

pub mod synthetic;
