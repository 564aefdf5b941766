//! Models on a GPU against the same models on the CPU. The GPU is a stand-in that computes with the GPU's kernels on the CPU
//! (`kernels/tests/shim/driver.cpp`): what is tested is which kernel gets which memory, not a GPU.
#![cfg(feature = "cuda")]

mod common;
#[path = "../../kernels/tests/shim/compile.rs"]
mod compile;

use std::sync::OnceLock;

use autograd::{Tape, Value};
use common::{Fixture, MASKED, forest_logits, loss_and_gradient, model_path, sources};
use kernels::matmul::Precision;
use kernels::testing::{Rng, Tolerance, close};
use libloading::Library;
use prompt_tuning_model::generate::Options;
use prompt_tuning_model::{
    Forest, Hooks, LanguageModel, PackedBatch, Prompt, Row, Source, Trained, generate,
};
use tensor::{Device, Tensor, device};

const CLOSE: Tolerance = Tolerance { absolute: 2e-5, relative: 2e-4 };

/// Whether there is a GPU now.
fn there_is_a_gpu() -> bool {
    static LOADED: OnceLock<bool> = OnceLock::new();
    *LOADED.get_or_init(|| {
        let Some(folder) = compile::library("libcuda.so.1", &["shim.cpp", "driver.cpp"]) else {
            return false;
        };
        // SAFETY: its initialisers only note the names of the kernels
        let stand_in = unsafe { Library::new(folder.path().join("libcuda.so.1")) }.expect("a library");
        std::mem::forget(stand_in);
        true
    })
}

/// The model of a fixture on the GPU.
fn on_gpu(f: &Fixture) -> LanguageModel {
    let model = LanguageModel::open_on(&model_path(f.name), Device::Cuda).expect("the stand-in has a GPU");
    assert_eq!(model.head().matrix().tensor.device(), Device::Cuda, "{}", f.name);
    model
}

fn check(what: &str, f: &Fixture, there: &[f32], here: &[f32]) {
    device::check().unwrap_or_else(|e| panic!("{} {what}: {e}", f.name));
    close(there, here, CLOSE).unwrap_or_else(|e| panic!("{} {what}: {e}", f.name));
}

fn rows(f: &Fixture, n_soft: usize) -> Vec<Row> {
    let n_scored: usize = f.batch(0, 1.0).iter().map(|row| row.scored.len()).sum();
    f.batch(n_soft, 1.0 / n_scored as f32)
}

#[test]
fn losses_and_gradients_of_soft_prompts() {
    if !there_is_a_gpu() {
        return;
    }
    for f in common::all().chain(MASKED.map(Fixture::open)) {
        let (rows, prompt) = (rows(&f, f.n_virtual()), f.tensor("prompt.init"));
        let here = loss_and_gradient(&f.model, &rows, &prompt);
        let there = loss_and_gradient(&on_gpu(&f), &rows, &prompt);
        check("loss", &f, &[there.0], &[here.0]);
        check("log p", &f, &there.1.concat(), &here.1.concat());
        check("gradient", &f, &there.2, &here.2);
        assert!(here.2.iter().any(|&g| g != 0.0));
    }
}

/// Only what the loss needs comes back: `lse` and the scores of the targets for each block of logits, and the gradient.
#[test]
fn a_step_reads_little_back() {
    if !there_is_a_gpu() {
        return;
    }
    for name in ["gpt2-tied-f32", "llama-gqa-tied-bf16"] {
        let f = Fixture::open(name);
        let (model, rows, prompt) = (on_gpu(&f), rows(&f, f.n_virtual()), f.tensor("prompt.init"));
        let before = device::read_back_here();
        loss_and_gradient(&model, &rows, &prompt);
        assert_eq!(device::read_back_here() - before, 3, "{name}");
    }
}

/// The loss, and the gradient of a prefix.
fn of_prefix(model: &LanguageModel, rows: &[Row], prefix: &Tensor) -> (f32, Vec<f32>) {
    let tape = Tape::new();
    let leaf = tape.parameter(prefix.clone());
    let batch = PackedBatch::from_rows(model.family(), rows);
    let loss = model.score(&tape, &batch, Some(&Prompt::Prefix(leaf.clone()))).loss;
    let gradient = tape.backward(&loss).take(&leaf);
    (loss.tensor().f32s()[0], gradient.f32s().to_vec())
}

#[test]
fn gradients_of_prefixes() {
    if !there_is_a_gpu() {
        return;
    }
    for name in ["gpt2-tied-f32", "llama-gqa-tied-bf16", "bert-english"] {
        let f = Fixture::open(name);
        let config = f.model.config();
        let shape = [3, 2 * config.n_prefix_layers() * config.prefix_width()];
        let prefix = Tensor::from_vec(&shape, Rng(3).normals(shape[0] * shape[1]));
        let (rows, model) = (rows(&f, 0), on_gpu(&f));
        let (here, there) = (of_prefix(&f.model, &rows, &prefix), of_prefix(&model, &rows, &prefix));
        check("loss", &f, &[there.0], &[here.0]);
        check("gradient", &f, &there.1, &here.1);
    }
}

/// The gradient of every weight, by name.
fn of_weights(model: &LanguageModel, rows: &[Row]) -> Vec<(String, Vec<f32>)> {
    let tape = Tape::new();
    let leaf = |name: &String| {
        let tensor = model.checkpoint().tensor_of_any_shape(name).unwrap().tensor().widened();
        let copy = Tensor::from_vec(tensor.shape(), tensor.f32s().to_vec());
        (name.clone(), tape.parameter(copy.on(tensor.device()).unwrap()))
    };
    let leaves: Vec<(String, Value)> = model.weight_names().iter().map(leaf).collect();
    let trained: Trained = leaves.iter().cloned().collect();
    let batch = PackedBatch::from_rows(model.family(), rows);
    let loss = model.with(&trained).score(&tape, &batch, None).loss;
    let mut gradients = tape.backward(&loss);
    leaves.into_iter().map(|(name, leaf)| (name, gradients.take(&leaf).f32s().to_vec())).collect()
}

#[test]
fn gradients_of_weights() {
    if !there_is_a_gpu() {
        return;
    }
    for name in ["gpt2-tied-f32", "qwen2-bias-tied", "bert-english", "t5-v1.1-gated-bf16"] {
        let f = Fixture::open(name);
        let rows = rows(&f, 0);
        let all = of_weights(&f.model, &rows).into_iter().zip(of_weights(&on_gpu(&f), &rows));
        for ((name, here), (_, there)) in all {
            check(&name, &f, &there, &here);
        }
    }
}

#[test]
fn products_rounded_to_bf16_change_the_third_digit() {
    if !there_is_a_gpu() {
        return;
    }
    for name in ["gpt2-tied-f32", "llama-gqa-tied-bf16"] {
        let f = Fixture::open(name);
        let (mut model, rows, prompt) = (on_gpu(&f), rows(&f, f.n_virtual()), f.tensor("prompt.init"));
        let (exact, ..) = loss_and_gradient(&model, &rows, &prompt);
        model.set_precision(Precision::Bf16);
        let (rounded, ..) = loss_and_gradient(&model, &rows, &prompt);
        device::check().expect("nothing fails");
        let change = ((rounded - exact) / exact).abs();
        assert!(change > 0.0 && change < 1e-2, "{name}: {exact} {rounded}");
    }
}

#[test]
fn logits_and_generated_tokens() {
    if !there_is_a_gpu() {
        return;
    }
    for name in ["gpt2-tied-f32", "gpt2-tied-f16", "llama-gqa-tied-bf16", "gguf-llama"] {
        let f = Fixture::open(name);
        let (model, prompt) = (on_gpu(&f), f.constant_prompt());
        let rows: Vec<Vec<Source>> = f.rows().iter().map(|row| sources(f.n_virtual(), row)).collect();
        let forest = Forest::from_rows(rows.iter().map(Vec::as_slice));
        let [here, there] = [&f.model, &model].map(|model| forest_logits(model, &forest, Some(&prompt)));
        check("logits", &f, there.f32s(), here.f32s());
        let options = Options { max_new_tokens: 6, ..Options::default() };
        let [here, there] = [&f.model, &model]
            .map(|model| generate(model, &rows, Some(&prompt), &options, Hooks::default()).unwrap());
        assert_eq!(here, there, "{name}");
    }
}
