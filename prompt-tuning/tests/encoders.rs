//! Prompt encoders against PEFT: the losses of ten steps, and what is trained after them.

mod fixture;

use std::collections::BTreeMap;
use std::path::Path;

use kernels::testing::{Tolerance, close};
use model::generate::Options;
use model::{Hooks, LanguageModel, Row, Source, generate};
use prompt_tuning::adapter::{Adapter, AdapterConfig, BaseModel, PeftInit};
use prompt_tuning::evaluate;
use prompt_tuning::prompt_encoder::{Method, PromptEncoder};
use prompt_tuning::soft_prompt::{Kind, SoftPrompt, Widths};
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

const CASES: [(&str, Method); 5] = [
    ("p-tuning-mlp", Method::Mlp { hidden: 12 }),
    ("p-tuning-lstm", Method::Lstm { hidden: 6, layers: 2 }),
    ("prefix", Method::Prefix),
    ("prefix-gqa", Method::Prefix),
    ("prefix-projected", Method::ProjectedPrefix { hidden: 10 }),
];

impl Recorded {
    fn read((name, method): (&'static str, Method)) -> Recorded {
        let text = std::fs::read_to_string(fixture::of_peft(name).join("expected.json")).expect("a fixture");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        Recorded {
            name,
            method,
            base: json["model"].as_str().unwrap_or_default().into(),
            losses: json["losses"].as_array().expect("losses").iter().filter_map(|x| x.as_f64()).collect(),
            lr: json["lr"].as_f64().expect("a learning rate") as f32,
            n_virtual: json["n_virtual"].as_u64().expect("a size") as usize,
        }
    }

    fn rows(&self) -> Vec<Row> {
        fixture::rows_behind(&self.base, if self.method.is_prefix() { 0 } else { self.n_virtual })
    }

    fn settings(&self, batch: usize) -> Settings {
        let (lr, method) = (self.lr, self.method);
        Settings { steps: 10, batch, lr, shuffle: false, method, ..Settings::default() }
    }

    fn tensor(&self, tensor: &str) -> Vec<f32> {
        fixture::tensor_of(&fixture::of_peft(self.name), tensor)
    }

    /// The encoder with the parameters that PEFT's had `when`.
    fn encoder(&self, when: &str, widths: Widths) -> PromptEncoder {
        let kind = if self.method.is_prefix() { Kind::Prefix } else { Kind::Soft };
        let table = self.tensor(&format!("{when}.embedding.weight"));
        let table = SoftPrompt::new(self.n_virtual, table.len() / self.n_virtual, table);
        let mut encoder = PromptEncoder::new(self.method, table, widths.get(kind), 0);
        for p in &mut encoder.parameters {
            let values = self.tensor(&format!("{when}.{}", p.name));
            assert_eq!(values.len(), p.values().len(), "{}: {}", self.name, p.name);
            p.values_mut().copy_from_slice(&values);
        }
        encoder
    }
}

#[test]
fn ten_steps_are_those_of_peft() {
    for case in CASES {
        let recorded = Recorded::read(case);
        let model = LanguageModel::open(&fixture::folder(&recorded.base)).expect("a model");
        let (rows, widths) = (recorded.rows(), Widths::of(model.config()));
        let settings = recorded.settings(rows.len());
        let mut trainer = Trainer::new(&model, &rows, settings, recorded.encoder("init", widths));
        let losses: Vec<f64> = (0..10).map(|_| trainer.step().expect("a step").loss).collect();
        let name = recorded.name;
        close(&losses, &recorded.losses, Tolerance::both(1e-4)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let last = recorded.encoder("final", widths);
        for (ours, theirs) in trainer.state().learner.parameters().iter().zip(&last.parameters) {
            close(ours.values(), theirs.values(), Tolerance::both(2e-4))
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

/// PEFT gives a prefix to the decoder of an encoder-decoder, in an order of its own.
#[test]
fn a_prefix_of_an_encoder_decoder_is_that_of_peft() {
    let recorded = Recorded::read(("prefix-t5", Method::Prefix));
    let folder = fixture::of_peft(recorded.name);
    let model = LanguageModel::open(&folder.join("model")).expect("a model");
    let text = std::fs::read_to_string(folder.join("expected.json")).expect("a fixture");
    let batch: Vec<BTreeMap<String, Vec<u32>>> = serde_json::from_value(
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["batch"].take(),
    )
    .expect("a batch");
    let row = |ids: &BTreeMap<String, Vec<u32>>| {
        let text = |ids: &[u32]| ids.iter().map(|&id| Source::Text(id)).collect::<Vec<_>>();
        let decoder = text(&[&[0], &*ids["completion_ids"]].concat());
        Row { encoder: text(&ids["prompt_ids"]), ..Row::causal(decoder, 1, 1.0) }
    };
    let rows: Vec<Row> = batch.iter().map(row).collect();
    let encoder = recorded.encoder("init", Widths::of(model.config()));
    let mut trainer = Trainer::new(&model, &rows, recorded.settings(rows.len()), encoder);
    let losses: Vec<f64> = (0..10).map(|_| trainer.step().expect("a step").loss).collect();
    close(&losses, &recorded.losses, Tolerance::both(1e-4)).expect("PEFT's losses");
    let saved = Adapter::read(&folder.join("adapter")).expect("an adapter").prompt;
    close(&trainer.best().prompt().expect("a prompt").values, &saved.values, Tolerance::both(2e-4))
        .expect("PEFT's prefix");
    assert_eq!(saved.kind, Kind::Prefix);
}

#[test]
fn adapters_of_every_method_are_read_and_written_byte_for_byte() {
    for case in CASES {
        let recorded = Recorded::read(case);
        let folder = fixture::of_peft(recorded.name).join("adapter");
        let adapter = Adapter::read(&folder).expect("PEFT wrote it");
        let again = tempfile::tempdir().expect("a folder");
        adapter.write(again.path()).expect("it can be written");
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            let bytes = |folder: &Path| std::fs::read(folder.join(file)).expect("a file");
            assert_eq!(bytes(again.path()), bytes(&folder), "{}: {file}", recorded.name);
        }
        // what we would have written ourselves
        let model = LanguageModel::open(&fixture::folder(&recorded.base)).expect("a model");
        let base = BaseModel::of(model.config(), &recorded.base);
        let ours = AdapterConfig::new(recorded.n_virtual, &base, recorded.method, PeftInit::Random);
        assert_eq!(adapter.config, ours, "{}", recorded.name);
    }
}

#[test]
fn an_adapter_gives_the_logits_that_peft_gives() {
    for case in CASES {
        let recorded = Recorded::read(case);
        let model = LanguageModel::open(&fixture::folder(&recorded.base)).expect("a model");
        let adapter = Adapter::read(&fixture::of_peft(recorded.name).join("adapter")).expect("an adapter");
        let soft = (0..adapter.prompt.n_soft() as u32).map(Source::Soft);
        let rows = fixture::expected(&recorded.base)["rows"].as_array().expect("rows").clone();
        for (i, ids) in rows.iter().enumerate() {
            let ids: Vec<u32> = serde_json::from_value(ids.clone()).expect("ids");
            let vocab = model.config().vocab_size;
            let logits = recorded.tensor(&format!("logits.{i}"));
            let last = &logits[logits.len() - vocab..];
            // the log-probability of every token after the last one
            let row = |next: u32| {
                let text = ids.iter().chain([&next]).map(|&id| Source::Text(id));
                let tokens: Vec<Source> = soft.clone().chain(text).collect();
                let end = tokens.len() - 1;
                Row::causal(tokens, end, 1.0)
            };
            let all: Vec<Row> = (0..vocab as u32).map(row).collect();
            let ours = evaluate::token_log_probs(&model, Some(&adapter.prompt), &all).concat();
            let max = last.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = last.iter().map(|x| f64::from(x - max).exp()).sum();
            let theirs: Vec<f64> = last.iter().map(|x| f64::from(x - max) - sum.ln()).collect();
            close(&ours, &theirs, Tolerance::both(1e-4))
                .unwrap_or_else(|e| panic!("{}, row {i}: {e}", recorded.name));
        }
    }
}

#[test]
fn recomputing_changes_no_bit() {
    for case in CASES {
        let recorded = Recorded::read(case);
        let model = LanguageModel::open(&fixture::folder(&recorded.base)).expect("a model");
        let (rows, widths) = (recorded.rows(), Widths::of(model.config()));
        let run = |recompute| {
            let settings = Settings { recompute, ..recorded.settings(rows.len()) };
            let mut trainer = Trainer::new(&model, &rows, settings, recorded.encoder("init", widths));
            for _ in 0..3 {
                trainer.step().expect("a step");
            }
            trainer.state().learner.clone()
        };
        assert_eq!(run(false), run(true), "{}", recorded.name);
    }
}

/// A prefix is in the cache before the first token; without a cache it is computed with everything else.
#[test]
fn a_prefix_generates_with_and_without_cache() {
    for name in ["prefix", "prefix-gqa"] {
        let recorded = Recorded::read((name, Method::Prefix));
        let model = LanguageModel::open(&fixture::folder(&recorded.base)).expect("a model");
        let prompt = recorded.encoder("final", Widths::of(model.config())).prompt().constant();
        let text = |ids: &[u32]| ids.iter().map(|&id| Source::Text(id)).collect::<Vec<_>>();
        let rows = [text(&[5, 6, 7]), text(&[5, 6]), text(&[9])];
        let generated = |use_cache| {
            let options = Options { max_new_tokens: 10, use_cache, ..Options::default() };
            let all = generate(&model, &rows, Some(&prompt), &options, Hooks::default()).expect("tokens");
            all.into_iter().map(|g| g.tokens).collect::<Vec<_>>()
        };
        assert_eq!(generated(true), generated(false), "{name}");
        let plain = generate(&model, &rows, None, &Options::default(), Hooks::default()).expect("tokens");
        assert_ne!(generated(true)[0], plain[0].tokens[..10], "{name}: the prefix does nothing");
    }
}

/// The keys and values of a soft prompt, as a prefix, give what the soft prompt gives.
#[test]
fn a_soft_prompt_becomes_a_prefix() {
    for name in ["gpt2-tied-f32", "llama-gqa-tied-bf16"] {
        let model = LanguageModel::open(&fixture::folder(name)).expect("a model");
        let soft = fixture::initial_prompt(name);
        let prefix = model.prefix_like(&soft.constant()).expect("a prefix");
        let prefix = SoftPrompt {
            kind: Kind::Prefix,
            ..SoftPrompt::new(prefix.rows(), prefix.width(), prefix.f32s().to_vec())
        };
        let of = |prompt: &SoftPrompt| {
            let rows = fixture::rows_behind(name, prompt.n_soft());
            evaluate::token_log_probs(&model, Some(prompt), &rows).concat()
        };
        close(&of(&prefix), &of(&soft), Tolerance::both(1e-5)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn networks_start_as_those_of_pytorch_do() {
    let table = SoftPrompt::new(3, 8, vec![0.25; 24]);
    let encoder = PromptEncoder::new(Method::Lstm { hidden: 4, layers: 2 }, table.clone(), 8, 1);
    assert_eq!(encoder.parameters[0].values(), table.values);
    for p in &encoder.parameters[1..] {
        // uniform within 1/sqrt(inputs), or of the width for an LSTM
        let bound = if p.name.starts_with("mlp") { 8f32 } else { 4.0 }.sqrt().recip();
        let largest = p.values().iter().fold(0f32, |a, x| a.max(x.abs()));
        assert!(largest <= bound && largest > bound / 2.0, "{}: {largest} of {bound}", p.name);
    }
    assert_eq!(encoder, PromptEncoder::new(encoder.method(), table.clone(), 8, 1));
    assert_ne!(encoder, PromptEncoder::new(encoder.method(), table, 8, 2));
}
