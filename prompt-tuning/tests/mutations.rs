//! Files of others, damaged: whatever bytes an adapter, an index or a `.npy` file has, reading refuses in one line or works.
//! Seeded, so that a failure comes again.

mod fixture;

use std::path::Path;

use kernels::testing::Rng;
use model::LanguageModel;
use prompt_tuning::adapter::Adapter;
use prompt_tuning::{SoftPrompt, npy};

const ROUNDS: u64 = 400;

/// One to four damages: bytes replaced, bits turned, pieces removed or repeated, the end cut off.
fn damage(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + rng.below(4) {
        if bytes.len() < 16 {
            break;
        }
        let at = rng.below(bytes.len() - 8);
        match rng.below(6) {
            0 => bytes[at] = rng.next_u64() as u8,
            1 => bytes[at] ^= 1 << rng.below(8),
            2 => bytes[at] = b"{}[]\",:0-e"[rng.below(10)],
            3 => drop(bytes.drain(at..at + 1 + rng.below(7))),
            4 => {
                let piece = bytes[at..at + 8].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Reads `file` damaged again and again. Some damages must be refused and some must not, else nothing was tried.
fn read_damaged(file: &Path, read: impl Fn() -> Option<String>) {
    let original = std::fs::read(file).expect("the file");
    assert_eq!(read(), None, "as it is");
    let mut refused = 0;
    for seed in 0..ROUNDS {
        std::fs::write(file, damage(&original, &mut Rng(seed))).expect("a writable folder");
        if let Some(why) = read() {
            assert!(!why.contains('\n'), "seed {seed}: {why}");
            refused += 1;
        }
    }
    assert!(refused > ROUNDS / 10, "{refused} of {ROUNDS} were refused");
}

/// A copy of the files in `from`.
fn copy(from: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for file in std::fs::read_dir(from).expect("the fixture").map(|f| f.expect("a file").path()) {
        if file.is_file() {
            std::fs::copy(&file, folder.path().join(file.file_name().expect("a name"))).expect("a copy");
        }
    }
    folder
}

#[test]
fn adapters() {
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let folder = copy(&fixture::folder("gpt2-tied-f32").join("adapter"));
        read_damaged(&folder.path().join(file), || Adapter::read(folder.path()).err().map(|e| e.to_string()));
    }
}

#[test]
fn shard_indices() {
    let folder = copy(&fixture::folder("llama-untied-sharded-f32"));
    let index = folder.path().join("model.safetensors.index.json");
    read_damaged(&index, || LanguageModel::open(folder.path()).err().map(|e| e.to_string()));
}

#[test]
fn numpy_prompts() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("prompt.npy");
    npy::write(&path, &SoftPrompt::new(3, 5, vec![0.5; 15])).expect("written");
    read_damaged(&path, || npy::read(&path).err().map(|e| e.to_string()));
}
