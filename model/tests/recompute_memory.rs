//! What a step keeps for its backward pass, counted in buffers. Alone in its process: the count is one for all.

mod common;

use autograd::Tape;
use common::synthetic::{Shape, Synthetic};
use kernels::testing::Rng;
use prompt_tuning_model::{Family, LanguageModel, PackedBatch, Prompt, Row, Source};
use tensor::buffer;

const SHAPE: Shape =
    Shape { d_model: 64, n_layers: 12, n_heads: 4, n_kv_heads: 4, d_ff: 256, vocab_size: 200 };
const N_SOFT: u32 = 4;

/// Loss and gradient of a batch, and the bytes that were in use between the two passes.
fn step(model: &LanguageModel, batch: &PackedBatch, tape: Tape) -> (f32, Vec<f32>, usize) {
    let before = buffer::usage().live;
    let prompt =
        tape.leaf(&[N_SOFT as usize, SHAPE.d_model], Rng(4).normals(N_SOFT as usize * SHAPE.d_model));
    let loss = model.score(&tape, batch, Some(&Prompt::Soft(prompt.clone()))).loss;
    let kept = buffer::usage().live - before;
    let gradient = tape.backward(&loss).take(&prompt).f32s().to_vec();
    assert!(gradient.iter().any(|&g| g != 0.0));
    (loss.tensor().f32s()[0], gradient, kept)
}

#[test]
fn recomputing_keeps_one_tensor_per_block_and_the_same_bits() {
    let row = |i: u32| {
        let text = (0..30).map(|t| Source::Text((7 * i + 11 * t) % 200));
        let tokens: Vec<Source> = (0..N_SOFT).map(Source::Soft).chain(text).collect();
        let start = tokens.len() - 1;
        Row::causal(tokens, start, 1.0)
    };
    let batch = PackedBatch::from_rows(Family::Causal, &(0..8).map(row).collect::<Vec<_>>());
    let residual = batch.forest.len() * SHAPE.d_model * 4;
    for synthetic in [Synthetic::gpt2(SHAPE, 1), Synthetic::llama(SHAPE, 2)] {
        let folder = tempfile::tempdir().unwrap();
        synthetic.write(folder.path());
        let model = LanguageModel::open(folder.path()).unwrap();
        let (loss, gradient, kept) = step(&model, &batch, Tape::new());
        let (same_loss, same_gradient, recomputing) = step(&model, &batch, Tape::recomputing());
        assert_eq!(loss.to_bits(), same_loss.to_bits());
        assert_eq!(gradient, same_gradient);

        // the input of each block; GPT-2's first block has that of the embeddings before the positions are added, too
        let blocks = recomputing as f64 / residual as f64 / SHAPE.n_layers as f64;
        assert!(blocks < 1.25, "recomputing, a block keeps {blocks} times its input");
        // per token and block: input, q, k, v, attention's output, the sum after it, the MLP's inner width of four
        let blocks = kept as f64 / residual as f64 / SHAPE.n_layers as f64;
        assert!((8.0..16.0).contains(&blocks), "a block keeps {blocks} times its input");
    }
}
