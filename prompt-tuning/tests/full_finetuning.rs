//! Training all weights, against torch: gradients, the losses of ten steps, what is written, and what must not change.

mod fixture;
mod program;

use std::collections::HashMap;

use autograd::{Tape, Value};
use kernels::testing::{Tolerance, close};
use model::{LanguageModel, PackedBatch, Row};
use prompt_tuning::checkpoint_folder::{self, SaveDtype};
use prompt_tuning::train::optimizer::Kind;
use prompt_tuning::train::{Settings, Trainer};
use prompt_tuning::trained_weights::{Selection, TrainedWeights};
use prompt_tuning::{Learner, evaluate};
use safetensors::SafeTensors;
use serde_json::Value as Json;

const CASES: [&str; 12] = [
    "gpt2-tied-f32",
    "gpt2-square",
    "llama-gqa-tied-bf16",
    "llama-untied-sharded-f32",
    "qwen2-bias-tied",
    "bert-english",
    "bert-untied",
    "t5-v1.0-relu-tied",
    "t5-v1.1-gated-bf16",
    "gpt2-classifier",
    "llama-classifier",
    "bert-classifier",
];

fn recorded(case: &str, kind: &str) -> std::path::PathBuf {
    fixture::of_peft("full").join(format!("{case}.{kind}"))
}

fn json(case: &str) -> Json {
    serde_json::from_slice(&std::fs::read(recorded(case, "json")).expect("a fixture")).expect("JSON")
}

fn open(case: &str) -> (LanguageModel, Vec<Row>) {
    let model = LanguageModel::open(&fixture::model_path(case)).expect("a model");
    (model, fixture::rows_behind(case, 0))
}

fn all(model: &LanguageModel) -> TrainedWeights {
    TrainedWeights::of(model, &Selection::default()).expect("weights")
}

/// The gradient of the mean loss with respect to every weight, by name.
fn gradients(model: &LanguageModel, rows: &[Row], tape: Tape) -> HashMap<String, Vec<f32>> {
    let scored: usize = rows.iter().map(|row| row.scored.len()).sum();
    let rows: Vec<Row> = rows.iter().map(|row| Row { weight: 1.0 / scored as f32, ..row.clone() }).collect();
    let weights = all(model);
    let leaves: Vec<Value> = weights.parameters.iter().map(|p| tape.parameter(p.tensor.clone())).collect();
    let trained = weights.model(model, &leaves);
    let loss = trained.score(&tape, &PackedBatch::from_rows(model.family(), &rows), None).loss;
    let mut grads = tape.backward(&loss);
    let named = weights.parameters.iter().zip(&leaves);
    named.map(|(p, leaf)| (p.name.clone(), grads.take(leaf).f32s().to_vec())).collect()
}

#[test]
fn gradients_of_every_weight_are_those_of_torch() {
    for case in CASES {
        let (model, rows) = open(case);
        let ours = gradients(&model, &rows, Tape::new());
        let file = std::fs::read(recorded(case, "safetensors")).expect("a fixture");
        let theirs = SafeTensors::deserialize(&file).expect("safetensors");
        assert_eq!(ours.len(), theirs.len(), "{case}: every weight, and no other");
        for (name, view) in theirs.iter() {
            let expected: Vec<f32> =
                view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let actual = ours.get(name).unwrap_or_else(|| panic!("{case}: no gradient of `{name}`"));
            let largest = expected.iter().fold(0f32, |a, x| a.max(x.abs()));
            // a bias of keys moves no softmax: its gradient is rounding
            if largest < 1e-6 {
                assert!(actual.iter().all(|x| x.abs() < 2e-6), "{case}: {name} should be zero");
                continue;
            }
            let tol = Tolerance { absolute: 1e-5 * f64::from(largest).max(1e-2), relative: 1e-4 };
            close(actual, &expected, tol).unwrap_or_else(|e| panic!("{case}: {name}: {e}"));
        }
    }
}

#[test]
fn ten_steps_are_those_of_torch() {
    let mut wrong = Vec::new();
    for case in CASES {
        let (model, rows) = open(case);
        let recorded = json(case);
        for (kind, key) in [(Kind::Adamw, "adamw"), (Kind::Sgd, "sgd")] {
            let lr = recorded["optimizers"][key]["lr"].as_f64().expect("a learning rate") as f32;
            let settings = Settings {
                steps: 10,
                batch: rows.len(),
                optimizer: kind,
                lr,
                shuffle: false,
                weights: Some(Selection::default()),
                ..Settings::default()
            };
            let mut trainer = Trainer::new(&model, &rows, settings, all(&model));
            let losses: Vec<f64> = (0..10).map(|_| trainer.step().expect("a step").loss).collect();
            let expected: Vec<f64> =
                recorded["losses"][key].as_array().expect("losses").iter().filter_map(Json::as_f64).collect();
            let check = close(&losses, &expected, Tolerance::both(1e-4));
            wrong.extend(check.err().map(|e| format!("{case}, {key}: {e}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn recomputing_changes_no_bit() {
    for case in
        ["gpt2-tied-f32", "llama-gqa-tied-bf16", "bert-english", "t5-v1.0-relu-tied", "bert-classifier"]
    {
        let (model, rows) = open(case);
        let (kept, again) =
            (gradients(&model, &rows, Tape::new()), gradients(&model, &rows, Tape::recomputing()));
        assert!(kept == again, "{case}");
    }
}

/// After training the base gives the bits it gave before; the trained model gives others, also from its folder.
#[test]
fn the_base_stays_and_the_folder_is_the_trained_model() {
    for case in CASES {
        let (model, rows) = open(case);
        let before = evaluate::token_log_probs(&model, None, &rows);
        let settings = Settings {
            steps: 3,
            batch: rows.len(),
            weights: Some(Selection::default()),
            lr: 1e-3,
            ..Settings::default()
        };
        let mut trainer = Trainer::new(&model, &rows, settings, all(&model));
        for _ in 0..3 {
            trainer.step().expect("a step");
        }
        assert_eq!(before, evaluate::token_log_probs(&model, None, &rows), "{case}: the base has changed");
        let Learner::Weights(weights) = trainer.best() else { panic!("weights") };
        let adapted = trainer.best().adapted(&model);
        let after = evaluate::token_log_probs(&adapted.model, None, &rows);
        assert_ne!(before, after, "{case}: nothing was learned");

        let folder = tempfile::tempdir().expect("a folder");
        let base = fixture::model_path(case);
        checkpoint_folder::write(folder.path(), (&base, &model), weights, SaveDtype::F32).expect("written");
        let read = LanguageModel::open(folder.path()).expect("a model");
        assert_eq!(
            after,
            evaluate::token_log_probs(&read, None, &rows),
            "{case}: the folder is another model"
        );
        let rounded = tempfile::tempdir().expect("a folder");
        checkpoint_folder::write(rounded.path(), (&base, &model), weights, SaveDtype::Bf16).expect("written");
        let read = LanguageModel::open(rounded.path()).expect("a model");
        let (a, b) = (after.concat(), evaluate::token_log_probs(&read, None, &rows).concat());
        close(&b, &a, Tolerance { absolute: 0.1, relative: 0.1 }).unwrap_or_else(|e| panic!("{case}: {e}"));
    }
}

#[test]
fn only_the_selected_weights_change() {
    let (model, rows) = open("gpt2-tied-f32");
    let selection: Selection = "bitfit".parse().expect("a selection");
    let weights = TrainedWeights::of(&model, &selection).expect("weights");
    assert!(weights.parameters.iter().all(|p| p.name.ends_with(".bias")));
    let settings =
        Settings { steps: 1, batch: rows.len(), weights: Some(selection), lr: 1e-3, ..Settings::default() };
    let mut trainer = Trainer::new(&model, &rows, settings, weights.clone());
    trainer.step().expect("a step");
    let moved = trainer.state().learner.parameters().iter().zip(&weights.parameters);
    let still: Vec<&str> = moved.filter(|(a, b)| a.values() == b.values()).map(|(a, _)| &*a.name).collect();
    assert!(still.is_empty(), "{still:?}");
}
