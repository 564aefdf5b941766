//! Masked language models against what transformers computes, and the forms in which their files come.

mod common;

use std::path::Path;

use autograd::Tape;
use common::{Fixture, MASKED, copy, folder, ids, refusal, take_rows};
use kernels::testing::{Tolerance, close};
use prompt_tuning_model::generate::Options;
use prompt_tuning_model::{Forest, Hooks, LanguageModel, Prompt, Row, Source, Tokenizer, generate};
use serde_json::Value as Json;

const ABSOLUTE: Tolerance = Tolerance { absolute: 1e-4, relative: 0.0 };

/// Logits at every token of some rows.
fn logits(model: &LanguageModel, forest: &Forest, prompt: Option<&Prompt>) -> tensor::Tensor {
    model.logits(model.states(&Tape::new(), forest, prompt, (None, None)).tensor())
}

fn at_masks(row: &Row, path: &[u32]) -> Vec<u32> {
    row.scored.iter().map(|p| path[p.at]).collect()
}

/// Logits at the masks, without and with the prompt: each row alone, and all in one batch.
#[test]
fn logits_at_the_masks() {
    for f in MASKED.map(Fixture::open) {
        let prompt = f.constant_prompt();
        let kinds = [("base", 0), ("prompted", f.n_virtual())];
        let rows: Vec<(String, Row)> = kinds
            .into_iter()
            .flat_map(|(kind, n)| {
                f.batch(n, 1.0).into_iter().enumerate().map(move |(i, r)| (format!("{kind}.logits.{i}"), r))
            })
            .collect();
        let all = Forest::segments(rows.iter().map(|(_, row)| row.tokens.as_slice()));
        let packed = logits(&f.model, &all, Some(&prompt));
        for (j, (name, row)) in rows.iter().enumerate() {
            let expected = f.tensor(name);
            let one = Forest::segments([row.tokens.as_slice()]);
            let alone = logits(&f.model, &one, Some(&prompt));
            for (kind, actual) in [
                ("alone", take_rows(&alone, &at_masks(row, one.path(0)))),
                ("packed", take_rows(&packed, &at_masks(row, all.path(j)))),
            ] {
                close(&actual, &expected, ABSOLUTE)
                    .unwrap_or_else(|e| panic!("{} {name} {kind}: {e}", f.name));
            }
        }
    }
}

/// The tokens and the five likeliest fillings that transformers gives for some texts.
#[test]
fn texts_are_tokenized_and_filled_as_transformers_does() {
    for name in ["bert-english", "bert-chinese"] {
        let f = Fixture::open(name);
        let tokenizer = Tokenizer::open(&folder(name)).unwrap();
        let texts = f.expected["texts"].as_array().unwrap();
        assert_eq!(texts.iter().filter(|t| ids(&t["masks"]).len() > 1).count(), 1);
        for text in texts {
            let tokens = tokenizer.encode(text["text"].as_str().unwrap(), true).unwrap();
            assert_eq!(tokens, ids(&text["ids"]), "{name} {}", text["text"]);
            let masks: Vec<u32> =
                (0..tokens.len() as u32).filter(|&i| Some(tokens[i as usize]) == tokenizer.mask()).collect();
            assert_eq!(masks, ids(&text["masks"]));
            let row: Vec<Source> = tokens.into_iter().map(Source::Text).collect();
            let all = logits(&f.model, &Forest::segments([row.as_slice()]), None);
            let width = all.width();
            for (at, top) in masks.iter().zip(text["fill"].as_array().unwrap()) {
                let logits = take_rows(&all, &[*at]);
                let total: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
                let mut order: Vec<u32> = (0..width as u32).collect();
                order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
                assert_eq!(order[..5], ids(&top["ids"]));
                let probability = |&id: &u32| (f64::from(logits[id as usize]).exp() / total) as f32;
                let actual: Vec<f32> = order[..5].iter().map(probability).collect();
                close(&actual, &common::floats(&top["probabilities"]), ABSOLUTE).unwrap();
            }
        }
    }
}

/// Rewrites the header of a weight file; sizes and order of the tensors stay.
fn rename(folder: &Path, change: impl Fn(&str) -> Option<String>) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Json> = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
    let header: serde_json::Map<String, Json> =
        header.into_iter().map(|(name, v)| (change(&name).unwrap_or(name), v)).collect();
    let header = Json::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + n..]].concat();
    std::fs::write(&path, file).unwrap();
}

fn score(model: &LanguageModel, f: &Fixture) -> Vec<f32> {
    let batch = prompt_tuning_model::PackedBatch::from_rows(model.family(), &f.batch(0, 1.0));
    model.score(&Tape::new(), &batch, None).log_probs
}

#[test]
fn the_prefix_and_the_old_names_of_norms_change_nothing() {
    let f = Fixture::open("bert-english");
    let expected = score(&f.model, &f);
    let renamed = |change: &dyn Fn(&str) -> Option<String>| {
        let copy = copy("bert-english");
        rename(copy.path(), change);
        score(&LanguageModel::open(copy.path()).unwrap(), &f)
    };
    assert_eq!(renamed(&|name| name.strip_prefix("bert.").map(String::from)), expected);
    let old = |name: &str| {
        let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
        Some(name.replace("LayerNorm.bias", "LayerNorm.beta"))
    };
    assert_eq!(renamed(&old), expected);
}

#[test]
fn weights_without_the_head_are_refused_with_the_reason() {
    let refused = |change: &dyn Fn(&str) -> Option<String>| {
        let copy = copy("bert-english");
        rename(copy.path(), change);
        refusal(copy.path())
    };
    let lost = |name: &str| name.strip_prefix("cls.").map(|rest| format!("pooler.{rest}"));
    let why = refused(&lost);
    assert!(why.contains("no masked-language-model head") && why.contains("gives embeddings"), "{why}");
    let classifier = |name: &str| name.strip_prefix("cls.").map(|rest| format!("classifier.{rest}"));
    let why = refused(&classifier);
    assert!(why.contains("classifier (`classifier."), "{why}");
    let no_bias = |name: &str| (name == "cls.predictions.bias").then(|| "other".into());
    assert!(refused(&no_bias).contains("`cls.predictions.bias`"));
}

#[test]
fn a_masked_model_does_not_continue_texts() {
    let f = Fixture::open("bert-untied");
    let why = generate(&f.model, &[vec![Source::Text(1)]], None, &Options::default(), Hooks::default());
    let why = why.expect_err("it is refused").to_string();
    assert_eq!(
        why,
        "`bert-untied` is a masked language model, which fills masks and does not continue texts; use fill-mask"
    );
}

#[test]
fn a_vocabulary_that_is_none_is_named() {
    let copy = copy("bert-chinese");
    std::fs::write(copy.path().join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\nthe\n").unwrap();
    let why = Tokenizer::open(copy.path()).expect_err("it is refused").to_string();
    assert!(why.contains("vocab.txt`: it has no [SEP]"), "{why}");
    std::fs::write(copy.path().join("vocab.txt"), b"\xff\xfe\n").unwrap();
    assert!(Tokenizer::open(copy.path()).is_err());
}
