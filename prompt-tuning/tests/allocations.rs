//! No gradient of a weight exists: the largest allocation of a training step is far smaller than a weight matrix.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use kernels::testing::Rng;
use model::Row;
use model::{LanguageModel, Source};
use prompt_tuning::SoftPrompt;
use prompt_tuning::train::{Settings, Trainer, memory};
use safetensors::tensor::{Dtype, TensorView};

/// Notes the size of the largest allocation.
struct Counting;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's obligations are those of the system allocator.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const D_MODEL: usize = 768;
const N_LAYERS: usize = 4;
const VOCAB: usize = 4000;

/// A GPT-2 with real proportions and random weights; returns the size of its file.
fn write_checkpoint(folder: &Path) -> usize {
    let config = serde_json::json!({
        "model_type": "gpt2", "n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": 12, "n_positions": 64,
        "vocab_size": VOCAB, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a file");
    let d = D_MODEL;
    let mut shapes: Vec<(String, Vec<usize>)> =
        vec![("wte.weight".into(), vec![VOCAB, d]), ("wpe.weight".into(), vec![64, d])];
    let vectors = |name: String| [(format!("{name}.weight"), vec![d]), (format!("{name}.bias"), vec![d])];
    for i in 0..N_LAYERS {
        for (part, n_in, n_out) in [
            ("attn.c_attn", d, 3 * d),
            ("attn.c_proj", d, d),
            ("mlp.c_fc", d, 4 * d),
            ("mlp.c_proj", 4 * d, d),
        ] {
            shapes.push((format!("h.{i}.{part}.weight"), vec![n_in, n_out]));
            shapes.push((format!("h.{i}.{part}.bias"), vec![n_out]));
        }
        shapes.extend(vectors(format!("h.{i}.ln_1")));
        shapes.extend(vectors(format!("h.{i}.ln_2")));
    }
    shapes.extend(vectors("ln_f".into()));
    let mut rng = Rng(1);
    let data: Vec<Vec<u8>> = shapes
        .iter()
        .map(|(_, shape)| {
            let n = shape.iter().product::<usize>();
            (0..n).flat_map(|_| (0.02 * rng.normal() as f32).to_le_bytes()).collect()
        })
        .collect();
    let views: HashMap<String, TensorView> = shapes
        .iter()
        .zip(&data)
        .map(|((name, shape), data)| {
            (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).expect("a view"))
        })
        .collect();
    let bytes = safetensors::serialize(&views, None).expect("a file");
    std::fs::write(folder.join("model.safetensors"), &bytes).expect("a file");
    bytes.len()
}

#[test]
fn a_step_allocates_nothing_of_a_weights_size_and_loading_copies_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file_size = write_checkpoint(folder.path());
    rayon::broadcast(|_| ()); // the pool's own memory is not the model's

    let before = memory::anonymous_bytes();
    LARGEST.store(0, Ordering::Relaxed);
    let model = LanguageModel::open(folder.path()).expect("a model");
    assert!(
        LARGEST.load(Ordering::Relaxed) < 1 << 20,
        "opening allocated {} bytes at once",
        LARGEST.load(Ordering::Relaxed)
    );
    if let (Some(before), Some(after)) = (before, memory::anonymous_bytes()) {
        let grown = after.saturating_sub(before) as usize;
        assert!(grown * 20 < file_size, "{grown} bytes for a file of {file_size}");
    }
    assert_eq!(model.checkpoint().copied_bytes(), 0);

    let row = |i: u32| {
        let tokens = (0..4).map(Source::Soft).chain([i, i + 1, i + 2].map(Source::Text)).collect();
        Row::causal(tokens, 6, 1.0)
    };
    let rows: Vec<Row> = (0..8).map(row).collect();
    let prompt = SoftPrompt::new(4, D_MODEL, Rng(2).normals(4 * D_MODEL));
    let settings = Settings { steps: 3, batch: 8, lr: 0.01, shuffle: false, ..Settings::default() };
    let mut trainer = Trainer::new(&model, &rows, settings, prompt);
    LARGEST.store(0, Ordering::Relaxed);
    for _ in 0..3 {
        trainer.step().expect("a step");
    }
    // the smallest matrix of a block is [d, d]; a panel of a weight, packed for the CPU's caches, is all there may be
    let (largest, matrix) = (LARGEST.load(Ordering::Relaxed), D_MODEL * D_MODEL * 4);
    assert!(largest > 0 && largest < matrix, "{largest} bytes at once; a [d, d] matrix has {matrix}");
}
