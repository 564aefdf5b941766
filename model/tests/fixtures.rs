//! Against what transformers and PEFT compute with the same checkpoints.

mod common;

use autograd::Tape;
use common::{
    FIXTURES, Fixture, MASKED, floats, forest_logits, ids, largest, loss_and_gradient, sources, take_rows,
};
use kernels::testing::{Tolerance, close};
use prompt_tuning_model::generate::Options;
use prompt_tuning_model::{Config, Forest, Hooks, LanguageModel, PackedBatch, generate};

const ABSOLUTE: Tolerance = Tolerance { absolute: 1e-4, relative: 0.0 };

fn check(name: &str, actual: &[f32], expected: &[f32], tolerance: Tolerance) {
    close(actual, expected, tolerance).unwrap_or_else(|e| panic!("{name}: {e}"));
}

/// All rows without and with the prompt: alone, and all together in one forest.
#[test]
fn logits() {
    for f in FIXTURES.map(Fixture::open) {
        let (prompt, n) = (f.constant_prompt(), f.n_virtual());
        let kinds = [("base", 0), ("prompted", n)];
        let rows: Vec<_> = kinds
            .iter()
            .flat_map(|&(kind, n)| {
                f.rows().into_iter().enumerate().map(move |(i, r)| (kind, i, sources(n, &r)))
            })
            .collect();
        let all = Forest::from_rows(rows.iter().map(|(.., row)| row.as_slice()));
        assert!(
            all.len() < rows.iter().map(|(.., row)| row.len()).sum(),
            "{}: rows share beginnings",
            f.name
        );
        let packed = forest_logits(&f.model, &all, Some(&prompt));
        for (j, (kind, i, row)) in rows.iter().enumerate() {
            let expected = f.tensor(&format!("{kind}.logits.{i}"));
            let alone = forest_logits(&f.model, &Forest::from_rows([row.as_slice()]), Some(&prompt));
            check(&format!("{} {kind} {i} alone", f.name), alone.f32s(), &expected, ABSOLUTE);
            let in_forest = take_rows(&packed, all.path(j));
            check(&format!("{} {kind} {i} packed", f.name), &in_forest, &expected, ABSOLUTE);
        }
    }
}

#[test]
fn loss_log_probabilities_and_prompt_gradient() {
    for f in common::all().chain(MASKED.map(Fixture::open)) {
        let n_scored: usize = f.batch(0, 1.0).iter().map(|row| row.scored.len()).sum();
        let rows = f.batch(f.n_virtual(), 1.0 / n_scored as f32);
        let (loss, log_probs, gradient) = loss_and_gradient(&f.model, &rows, &f.tensor("prompt.init"));
        let expected = f.expected["loss"].as_f64().unwrap();
        check(f.name, &[loss], &[expected as f32], Tolerance { absolute: 0.0, relative: 1e-4 });
        let d_prompt = f.tensor("prompt.grad");
        check(f.name, &gradient, &d_prompt, Tolerance { absolute: 1e-4 * largest(&d_prompt), relative: 0.0 });
        for (i, item) in f.expected["batch"].as_array().unwrap().iter().enumerate() {
            let name = format!("{} row {i}", f.name);
            check(&name, &log_probs[i], &floats(&item["prompted_log_probs"]), ABSOLUTE);
        }
    }
}

/// Scoring without a prompt records nothing.
#[test]
fn log_probabilities_of_the_base_model() {
    for f in common::all().chain(MASKED.map(Fixture::open)) {
        let tape = Tape::new();
        let batch = PackedBatch::from_rows(f.model.family(), &f.batch(0, 1.0));
        let scored = f.model.score(&tape, &batch, None);
        assert!(tape.is_empty());
        for (targets, item) in batch.row_targets.iter().zip(f.expected["batch"].as_array().unwrap()) {
            let log_probs: Vec<f32> = targets.iter().map(|&t| scored.log_probs[t as usize]).collect();
            check(f.name, &log_probs, &floats(&item["base_log_probs"]), ABSOLUTE);
        }
    }
}

#[test]
fn greedy_generation_without_and_with_the_prompt() {
    for f in common::all() {
        let items = f.expected["generate"].as_array().unwrap();
        let prompt = f.constant_prompt();
        for (kind, n_soft) in [("base", 0), ("prompted", f.n_virtual())] {
            let rows: Vec<_> = items.iter().map(|item| sources(n_soft, &ids(&item["ids"]))).collect();
            let expected: Vec<Vec<u32>> = items.iter().map(|item| ids(&item[kind])).collect();
            for use_cache in [true, false] {
                let options = Options { max_new_tokens: expected[0].len(), use_cache, ..Options::default() };
                let all = generate(&f.model, &rows, Some(&prompt), &options, Hooks::default()).unwrap();
                let tokens: Vec<_> = all.into_iter().map(|g| g.tokens).collect();
                assert_eq!(tokens, expected, "{} {kind}, cache: {use_cache}", f.name);
            }
        }
    }
}

/// `rope_parameters` says the same as `rope_theta` and `rope_scaling`.
#[test]
fn both_generations_of_config_are_the_same_model() {
    let copy = common::copy("llama3-rope");
    let old = Config::open(copy.path()).unwrap();
    std::fs::rename(copy.path().join("config.v5.json"), copy.path().join("config.json")).unwrap();
    assert_eq!(Config::open(copy.path()).unwrap(), old);
    LanguageModel::open(copy.path()).unwrap();
}

#[test]
fn fingerprints_tell_models_apart_and_not_folders() {
    let prints: Vec<String> = FIXTURES.iter().map(|name| Fixture::open(name).model.fingerprint()).collect();
    assert!(prints.iter().all(|p| p.len() == 64));
    let mut unique = prints.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), prints.len());
    let copy = common::copy(FIXTURES[0]);
    assert_eq!(LanguageModel::open(copy.path()).unwrap().fingerprint(), prints[0]);

    let weights = copy.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    assert_ne!(LanguageModel::open(copy.path()).unwrap().fingerprint(), prints[0]);
}
