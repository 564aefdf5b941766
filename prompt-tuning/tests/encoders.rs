//! Prompt encoders against PEFT: the losses of ten steps, and what is trained after them.

mod fixture;

use kernels::testing::{Tolerance, close};
use model::LanguageModel;
use prompt_tuning::SoftPrompt;
use prompt_tuning::prompt_encoder::{Method, PromptEncoder};
use prompt_tuning::train::{Settings, Trainer};

/// What PEFT recorded about one method.
struct Recorded {
    name: &'static str,
    method: Method,
    base: String,
    losses: Vec<f64>,
    lr: f32,
    n_virtual: usize,
}

const CASES: [(&str, Method); 2] =
    [("p-tuning-mlp", Method::Mlp { hidden: 12 }), ("p-tuning-lstm", Method::Lstm { hidden: 6, layers: 2 })];

impl Recorded {
    fn read((name, method): (&'static str, Method)) -> Recorded {
        let text = std::fs::read_to_string(fixture::of_peft(name).join("expected.json")).expect("a fixture");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        Recorded {
            name,
            method,
            base: json["model"].as_str().expect("a model").into(),
            losses: json["losses"].as_array().expect("losses").iter().filter_map(|x| x.as_f64()).collect(),
            lr: json["lr"].as_f64().expect("a learning rate") as f32,
            n_virtual: json["n_virtual"].as_u64().expect("a size") as usize,
        }
    }

    fn tensor(&self, tensor: &str) -> Vec<f32> {
        fixture::tensor_of(&fixture::of_peft(self.name), tensor)
    }

    /// The encoder with the parameters that PEFT's had `when`.
    fn encoder(&self, when: &str, d_model: usize) -> PromptEncoder {
        let table = self.tensor(&format!("{when}.embedding.weight"));
        let table = SoftPrompt::new(self.n_virtual, table.len() / self.n_virtual, table);
        let mut encoder = PromptEncoder::new(self.method, table, d_model, 0);
        for p in &mut encoder.parameters {
            let values = self.tensor(&format!("{when}.{}", p.name));
            assert_eq!(values.len(), p.values.len(), "{}: {}", self.name, p.name);
            p.values = values;
        }
        encoder
    }
}

#[test]
fn ten_steps_are_those_of_peft() {
    for case in CASES {
        let recorded = Recorded::read(case);
        let model = LanguageModel::open(&fixture::folder(&recorded.base)).expect("a model");
        let rows = fixture::rows_behind(&recorded.base, recorded.n_virtual);
        let d_model = model.config().d_model;
        let settings = Settings {
            steps: 10,
            batch: rows.len(),
            lr: recorded.lr,
            shuffle: false,
            method: recorded.method,
            ..Settings::default()
        };
        let mut trainer = Trainer::new(&model, &rows, settings, recorded.encoder("init", d_model));
        let losses: Vec<f64> = (0..10).map(|_| trainer.step().expect("a step").loss).collect();
        let name = recorded.name;
        close(&losses, &recorded.losses, Tolerance::both(1e-4)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let last = recorded.encoder("final", d_model);
        for (ours, theirs) in trainer.state().encoder.parameters.iter().zip(&last.parameters) {
            close(&ours.values, &theirs.values, Tolerance::both(2e-4))
                .unwrap_or_else(|e| panic!("{name}: {}: {e}", ours.name));
        }
        // the exported prompt is what PEFT saved
        let saved = fixture::file_tensor(
            &fixture::of_peft(name).join("adapter/adapter_model.safetensors"),
            "prompt_embeddings",
        );
        close(&last.prompt().values, &saved, Tolerance::both(1e-5)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn networks_start_as_those_of_pytorch_do() {
    let table = SoftPrompt::new(3, 8, vec![0.25; 24]);
    let encoder = PromptEncoder::new(Method::Lstm { hidden: 4, layers: 2 }, table.clone(), 8, 1);
    assert_eq!(encoder.parameters[0].values, table.values);
    for p in &encoder.parameters[1..] {
        // uniform within 1/sqrt(inputs), or of the width for an LSTM
        let bound = if p.name.starts_with("mlp") { 8f32 } else { 4.0 }.sqrt().recip();
        let largest = p.values.iter().fold(0f32, |a, x| a.max(x.abs()));
        assert!(largest <= bound && largest > bound / 2.0, "{}: {largest} of {bound}", p.name);
    }
    assert_eq!(encoder, PromptEncoder::new(encoder.method(), table.clone(), 8, 1));
    assert_ne!(encoder, PromptEncoder::new(encoder.method(), table, 8, 2));
}
