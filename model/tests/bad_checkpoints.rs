//! Weight files that lie, are cut off, or lack something: one line each, never a panic.

mod common;

use std::path::Path;

use autograd::Tape;
use common::{Fixture, copy, forest_logits, refusal, sources};
use prompt_tuning_model::{Forest, LanguageModel};
use proptest::prelude::*;
use serde_json::{Value, json};

const GPT2: &str = "gpt2-tied-f32";
const SHARDED: &str = "llama-untied-sharded-f32";

fn header(bytes: &[u8]) -> (Value, &[u8]) {
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + n]).unwrap(), &bytes[8 + n..])
}

fn assemble(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn weights(folder: &Path) -> std::path::PathBuf {
    folder.join("model.safetensors")
}

/// Why the fixture is refused when its weight file is changed.
fn changed(change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
    let copy = copy(GPT2);
    let bytes = std::fs::read(weights(copy.path())).unwrap();
    std::fs::write(weights(copy.path()), change(bytes)).unwrap();
    refusal(copy.path())
}

/// The same for a change of the header.
fn changed_header(change: impl FnOnce(&mut Value)) -> String {
    changed(|bytes| {
        let (mut header, data) = header(&bytes);
        change(&mut header);
        assemble(&header.to_string(), data)
    })
}

fn is_invalid(why: &str) {
    assert!(why.contains("model.safetensors` is not a valid safetensors file"), "{why}");
}

#[test]
fn truncated_files() {
    let len = std::fs::metadata(weights(&common::folder(GPT2))).unwrap().len() as usize;
    for keep in [0, 4, 8, 9, 100, 3000, len / 2, len - 1] {
        is_invalid(&changed(|bytes| bytes[..keep].to_vec()));
    }
    is_invalid(&changed(|bytes| [bytes.as_slice(), b"more"].concat()));
}

#[test]
fn lying_headers() {
    for length in [0, 1, 1 << 20, 1 << 40, u64::MAX] {
        is_invalid(&changed(|mut bytes| {
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            bytes
        }));
    }
    is_invalid(&changed(|bytes| assemble("{\"a\": 3}", &bytes[8..])));
    is_invalid(&changed(|bytes| assemble("not json", &bytes[8..])));
    let name = "transformer.wte.weight";
    is_invalid(&changed_header(|h| h[name]["data_offsets"] = json!([0, u64::MAX])));
    is_invalid(&changed_header(|h| h[name]["data_offsets"] = json!([8, 4])));
    is_invalid(&changed_header(|h| h[name]["shape"] = json!([131, 49])));
    is_invalid(&changed_header(|h| h[name]["shape"] = json!([u64::MAX, u64::MAX, 4])));
    is_invalid(&changed_header(|h| h[name]["dtype"] = json!("F99")));
}

#[test]
fn overlapping_tensors() {
    is_invalid(&changed_header(|h| {
        h["transformer.ln_f.bias"]["data_offsets"] = h["transformer.ln_f.weight"]["data_offsets"].clone();
    }));
}

#[test]
fn missing_misshaped_and_strange_tensors() {
    let why = changed_header(|h| {
        let bias = h.as_object_mut().unwrap().remove("transformer.h.1.mlp.c_fc.bias").unwrap();
        h["transformer.h.1.mlp.c_fc.offset"] = bias;
    });
    assert!(
        why.contains("tensor `transformer.h.1.mlp.c_fc.bias` is not in `") && why.contains("28 tensors"),
        "{why}"
    );
    let why = changed_header(|h| h["transformer.h.1.mlp.c_fc.weight"]["shape"] = json!([192, 48]));
    assert!(
        why.contains("`transformer.h.1.mlp.c_fc.weight` has shape [192, 48]") && why.contains("[48, 192]"),
        "{why}"
    );
    let why = changed_header(|h| h["transformer.ln_f.weight"]["dtype"] = json!("I32"));
    assert!(why.contains("`transformer.ln_f.weight` has dtype I32; only F32, F16 and BF16"), "{why}");
}

/// Real files begin their data at any byte. Such tensors are copied, and counted.
#[test]
fn unaligned_data_works() {
    let f = Fixture::open(GPT2);
    let copy = copy(GPT2);
    let bytes = std::fs::read(weights(copy.path())).unwrap();
    let (header, data) = header(&bytes);
    let mut header = header.to_string();
    while header.len() % 4 != 1 {
        header.push(' ');
    }
    std::fs::write(weights(copy.path()), assemble(&header, data)).unwrap();
    let unaligned = LanguageModel::open(copy.path()).unwrap();
    assert_eq!(f.model.checkpoint().copied_bytes(), 0);
    assert_eq!(unaligned.checkpoint().copied_bytes(), data.len());
    let row = sources(0, &f.rows()[0]);
    let logits = |model: &LanguageModel| forest_logits(model, &Forest::from_rows([row.as_slice()]), None);
    assert_eq!(logits(&unaligned).f32s(), logits(&f.model).f32s());
}

#[test]
fn shard_indices() {
    let refused = |index: &str| {
        let copy = copy(SHARDED);
        std::fs::write(copy.path().join("model.safetensors.index.json"), index).unwrap();
        let why = refusal(copy.path());
        assert!(why.contains("model.safetensors.index.json`") || why.contains("cannot read"), "{why}");
        why
    };
    let map = |file: &str| json!({"weight_map": {"model.norm.weight": file}}).to_string();
    for file in ["../model-00001-of-00003.safetensors", "/etc/hostname", "a/../../b", "", "."] {
        let why = refused(&map(file));
        assert!(why.contains(&format!("`{file}` leaves the model folder")), "{why}");
    }
    assert!(refused(&map("model-00001-of-00003.safetensors")).contains("where it is not"));
    assert!(refused(&map("model-00009-of-00003.safetensors")).contains("model-00009-of-00003.safetensors"));
    assert!(refused("{}").contains("no `weight_map`"));
    assert!(refused("{\"weight_map\": {\"a\": 3}}").contains("`a` is not a string"));
    refused("not json");
    // an index that names too few tensors
    let why = refusal(&{
        let copy = copy(SHARDED);
        let index = map("model-00003-of-00003.safetensors");
        std::fs::write(copy.path().join("model.safetensors.index.json"), index).unwrap();
        copy.keep()
    });
    assert!(why.contains("tensor `model.layers.0.input_layernorm.weight` is not in"), "{why}");
}

#[test]
fn no_weights() {
    let copy = copy(GPT2);
    std::fs::remove_file(weights(copy.path())).unwrap();
    assert!(refusal(copy.path()).contains("neither model.safetensors nor"));
    std::fs::write(copy.path().join("pytorch_model.bin"), "x").unwrap();
    assert!(refusal(copy.path()).contains("PyTorch pickles"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Whatever is in the header, opening refuses or works; it does not panic, and what opens computes.
    #[test]
    fn damaged_headers_never_panic(places in prop::collection::vec((0usize..4000, any::<u8>()), 1..4), cut in 0usize..3000) {
        let copy = copy(GPT2);
        let mut bytes = std::fs::read(weights(copy.path())).unwrap();
        places.iter().for_each(|&(at, byte)| bytes[at] = byte);
        if cut < 1500 {
            bytes.drain(cut..cut + 1);
        }
        std::fs::write(weights(copy.path()), bytes).unwrap();
        match LanguageModel::open(copy.path()) {
            Ok(model) => {
                let sources = sources(0, &[1, 2]).into();
                model.embed(&Tape::new(), &sources, None);
            }
            Err(why) => prop_assert!(!why.to_string().contains('\n'), "{why}"),
        }
    }
}
