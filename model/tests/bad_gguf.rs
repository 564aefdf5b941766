//! GGUF files that lie, are cut off, or hold what is not supported: one line each, never a panic.

mod common;

use std::path::Path;

use common::{refusal, sources};
use kernels::testing::Rng;
use prompt_tuning_model::{Config, Forest, LanguageModel, Tokenizer};

const LLAMA: &str = "gguf-llama";

fn original(name: &str) -> Vec<u8> {
    std::fs::read(common::model_path(name)).unwrap()
}

/// Why a file of these bytes is refused.
fn refused(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    refusal(&path)
}

/// Where `needle` ends in the file.
fn after(bytes: &[u8], needle: &str) -> usize {
    let at = bytes.windows(needle.len()).position(|w| w == needle.as_bytes());
    at.unwrap_or_else(|| panic!("the file has {needle}")) + needle.len()
}

/// Why the Llama is refused when bytes at `offset` after the end of `needle` are replaced.
fn changed(needle: &str, offset: usize, with: &[u8]) -> String {
    let mut bytes = original(LLAMA);
    let at = after(&bytes, needle) + offset;
    bytes[at..at + with.len()].copy_from_slice(with);
    refused(&bytes)
}

fn check(why: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| why.contains(part)), "{why}");
}

/// A key and a value of this kind, as the only pair of a file without tensors.
fn one_pair(kind: u32, value: &[u8]) -> Vec<u8> {
    let head = [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes(), &1u64.to_le_bytes()].concat();
    [&head[..], &1u64.to_le_bytes(), b"k", &kind.to_le_bytes(), value].concat()
}

#[test]
fn the_first_bytes() {
    let bytes = original(LLAMA);
    let start = |at: usize, with: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        refused(&bytes)
    };
    check(&start(0, b"GGML"), &["is not a usable GGUF file", "not with \"GGUF\""]);
    check(&start(4, &1u32.to_le_bytes()), &["version 1, but only 2 and 3"]);
    check(&start(4, &3u32.to_be_bytes()), &["big-endian"]);
    check(&start(8, &u64::MAX.to_le_bytes()), &["tensor 21 of 18446744073709551615"]);
    check(&start(16, &u64::MAX.to_le_bytes()), &["metadata pair"]);
    check(&start(16, &(1u64 << 40).to_le_bytes()), &["metadata pair"]);
}

#[test]
fn truncated_files() {
    let bytes = original(LLAMA);
    for keep in [0, 3, 4, 8, 23, 24, 40, 1000, 5000, 20_000] {
        check(&refused(&bytes[..keep]), &["is not a usable GGUF file"]);
    }
    check(&refused(&bytes[..bytes.len() - 1000]), &["beyond the end of the file", "download it again"]);
}

#[test]
fn absurd_lengths_and_kinds() {
    let array = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    for (kind, value, part) in [
        (8, u64::MAX.to_le_bytes().to_vec(), "the file ends within a string"),
        (9, array(4, u64::MAX), "the file ends within an array"),
        (9, array(8, u64::MAX), "the file ends within a string"),
        (9, array(9, u64::MAX), "the file ends within an array"),
        (9, array(13, 1), "its kind 13 is unknown"),
        (77, vec![0; 8], "its kind 77 is unknown"),
        (9, array(9, 1).repeat(100), "nested more than 4 deep"),
        (8, [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat(), "is not UTF-8"),
    ] {
        check(&refused(&one_pair(kind, &value)), &["metadata `k`", part]);
    }
}

#[test]
fn tensors_that_lie() {
    const NAME: &str = "blk.1.ffn_up.weight";
    // after the name: u32 dimensions, two u64, u32 type, u64 offset
    check(&changed(NAME, 0, &9u32.to_le_bytes()), &[NAME, "9 dimensions"]);
    check(&changed(NAME, 4, &200u64.to_le_bytes()), &[NAME, "rows have 200 numbers", "blocks of 256"]);
    check(&changed(NAME, 4, &(1u64 << 60).to_le_bytes()), &[NAME, "beyond any memory"]);
    check(&changed(NAME, 20, &16u32.to_le_bytes()), &[NAME, "its type 16 (IQ) cannot be computed with"]);
    check(&changed(NAME, 20, &99u32.to_le_bytes()), &[NAME, "its type 99 (unknown)", "Q4_K"]);
    check(&changed(NAME, 24, &33u64.to_le_bytes()), &[NAME, "offset 33, which is no multiple of 32"]);
    check(&changed(NAME, 24, &(u64::MAX - 31).to_le_bytes()), &[NAME, "beyond the end"]);
    check(&changed(NAME, 24, &0u64.to_le_bytes()), &[NAME, "overlap"]);
    check(&changed("blk.1.ffn_u", 0, b"q"), &["blk.1.ffn_up.weight` is not in"]);
    check(&changed("blk.", 0, b"1"), &["there are two tensors `blk.1.attn_norm.weight`"]);
    // 64 inner features became 32
    check(
        &changed("llama.feed_forward_length", 4, &32u32.to_le_bytes()),
        &["ffn_gate.weight` has shape [64, 256]"],
    );
}

#[test]
fn configurations_that_are_not_supported() {
    check(
        &changed("general.architecture", 12, b"gemma"),
        &["architecture `gemma` is not supported", "qwen2"],
    );
    check(&changed("llama.block_coun", 0, b"x"), &["`llama.block_count` is missing"]);
    check(&changed("llama.rope.dimension_count", 4, &8u32.to_le_bytes()), &["8 of 16 lanes"]);
    check(&changed("llama.attention.head_count", 4, &3u32.to_le_bytes()), &["model.gguf"]);
    check(
        &changed("llama.attention.layer_norm_rms_epsilon", 4, &f32::NAN.to_le_bytes()),
        &["must be a number"],
    );
}

#[test]
fn tokenizers_that_are_not_known() {
    let refused = |needle: &str, offset: usize, with: &[u8]| {
        let mut bytes = original("gguf-qwen2");
        let at = after(&bytes, needle) + offset;
        bytes[at..at + with.len()].copy_from_slice(with);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, &bytes).unwrap();
        LanguageModel::open(&path).expect("ids do without a tokenizer");
        Tokenizer::open(&path).expect_err("must be refused").to_string()
    };
    check(&refused("tokenizer.ggml.pre", 12, b"qwen9"), &["\"qwen9\" is not supported", "token ids instead"]);
    check(&refused("tokenizer.ggml.model", 12, b"bert"), &["\"bert\" is not supported"]);
}

#[test]
fn a_folder_with_a_gguf_file_says_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(common::model_path(LLAMA), folder.path().join("small.gguf")).unwrap();
    std::fs::copy(common::folder("llama3-rope").join("config.json"), folder.path().join("config.json"))
        .unwrap();
    check(&refusal(folder.path()), &["it holds the GGUF file small.gguf; give that file itself"]);
}

/// Opens whatever is in the file: works or refuses in one line. What opens computes, finite or not.
fn open_any(path: &Path) {
    for refused in [
        Config::open(path).err().map(|e| e.to_string()),
        Tokenizer::open(path).err().map(|e| e.to_string()),
        LanguageModel::open(path).err().map(|e| e.to_string()),
    ] {
        assert!(refused.is_none_or(|why| !why.contains('\n')));
    }
    if let Ok(model) = LanguageModel::open(path) {
        let row = sources(0, &[1, 2, 3]);
        if model.check_row(&row, None).is_ok() {
            common::forest_logits(&model, &Forest::from_rows([row.as_slice()]), None);
        }
        assert_eq!(model.fingerprint().len(), 64);
    }
}

/// Seeded mutations of whole files: bytes of the header replaced, lengths made large, pieces removed or repeated.
#[test]
fn mutated_files_never_panic() {
    for name in ["gguf-qwen2", "gguf-gpt2"] {
        let bytes = original(name);
        let header = after(&bytes, "output_norm.weight") + 64;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        for seed in 0..150 {
            let mut rng = Rng(seed);
            let mut bytes = bytes.clone();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(header);
                match rng.below(5) {
                    0 => bytes[at] = rng.next_u64() as u8,
                    1 => bytes[at] ^= 1 << rng.below(8),
                    2 => bytes[at..at + 8].copy_from_slice(&(rng.next_u64() >> rng.below(64)).to_le_bytes()),
                    3 => drop(bytes.drain(at..at + 1 + rng.below(9))),
                    _ => bytes.truncate(rng.below(bytes.len())),
                }
                if bytes.len() <= header + 8 {
                    break;
                }
            }
            std::fs::write(&path, &bytes).unwrap();
            open_any(&path);
        }
    }
}
