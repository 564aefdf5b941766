//! What only encoder-decoders have, against what transformers computes with the same checkpoints.

mod common;

use autograd::Tape;
use common::{Fixture, T5, largest, loss_and_gradient, sources};
use kernels::testing::{Tolerance, close};
use prompt_tuning_model::{Config, Forest, LanguageModel, PackedBatch, Prompt, Row, Source};

const ABSOLUTE: Tolerance = Tolerance { absolute: 1e-4, relative: 0.0 };

/// All encoder inputs at once, without a prompt.
#[test]
fn states_of_the_encoder() {
    for f in T5.map(Fixture::open) {
        let rows: Vec<Vec<Source>> = f.rows().iter().map(|row| sources(0, row)).collect();
        let forest = Forest::segments(rows.iter().map(Vec::as_slice));
        let states = f.model.encode(&Tape::new(), &forest, None);
        for i in 0..rows.len() {
            let actual = common::take_rows(states.tensor(), forest.path(i));
            close(&actual, &f.tensor(&format!("base.encoder.{i}")), ABSOLUTE)
                .unwrap_or_else(|e| panic!("{} {i}: {e}", f.name));
        }
    }
}

/// The log-probability of every token of the vocabulary at every place of the decoder says what its logits are.
#[test]
fn logits_of_the_decoder() {
    for f in T5.map(Fixture::open) {
        let (prompt, labels) = (f.constant_prompt(), f.labels());
        let start = f.model.config().seq2seq.unwrap().decoder_start_token_id;
        let fed = [&[start], &labels[..labels.len() - 1]].concat();
        for (kind, n_soft) in [("base", 0), ("prompted", f.n_virtual())] {
            for (i, row) in f.rows().iter().enumerate() {
                let row = Row {
                    encoder: sources(n_soft, row),
                    tokens: sources(0, &fed),
                    scored: (0..fed.len())
                        .flat_map(|at| (0..f.model.config().vocab_size as u32).map(move |token| (at, token)))
                        .map(|(at, token)| prompt_tuning_model::Prediction { at, token })
                        .collect(),
                    weight: 1.0,
                };
                let batch = PackedBatch::from_rows(f.model.family(), &[row]);
                let scored = f.model.score(&Tape::new(), &batch, Some(&prompt));
                let expected = f.tensor(&format!("{kind}.logits.{i}"));
                let log_softmax = expected.chunks_exact(f.model.config().vocab_size).flat_map(|logits| {
                    let lse = logits.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
                    logits.iter().map(move |&x| f64::from(x) - lse)
                });
                let of_row: Vec<f32> =
                    batch.row_targets[0].iter().map(|&t| scored.log_probs[t as usize]).collect();
                close(&of_row, &log_softmax.collect::<Vec<_>>(), ABSOLUTE)
                    .unwrap_or_else(|e| panic!("{} {kind} {i}: {e}", f.name));
            }
        }
    }
}

/// Both ways to say whether the head is scaled and tied give one model.
#[test]
fn both_generations_of_config_are_the_same_model() {
    for name in T5 {
        let copy = common::copy(name);
        let old = Config::open(copy.path()).unwrap();
        let fingerprint = LanguageModel::open(copy.path()).unwrap().fingerprint();
        std::fs::rename(copy.path().join("config.v5.json"), copy.path().join("config.json")).unwrap();
        let new = Config::open(copy.path()).unwrap();
        assert_eq!(new.seq2seq, old.seq2seq);
        assert_eq!(Config { tie_word_embeddings: old.tie_word_embeddings, ..new }, old);
        assert_eq!(LanguageModel::open(copy.path()).unwrap().fingerprint(), fingerprint);
    }
    let scale = |name: &str| Config::open(&common::folder(name)).unwrap().seq2seq.unwrap().head_scale;
    assert_eq!((scale(T5[0]), scale(T5[1])), (32f32.sqrt().recip(), 1.0));
}

/// An encoder input is computed once however many answers it has: the batch holds its tokens once.
#[test]
fn candidates_share_the_encoder_and_the_beginning_of_the_decoder() {
    let f = Fixture::open(T5[1]);
    let row =
        |answer: &[u32]| Row { encoder: sources(5, &[7, 8, 9]), ..Row::causal(sources(0, answer), 1, 1.0) };
    let rows = [row(&[2, 4, 5]), row(&[2, 4, 6, 7]), row(&[2, 8])];
    let batch = PackedBatch::from_rows(f.model.family(), &rows);
    assert_eq!((batch.encoder.len(), batch.forest.len()), (8, 3));
    let (_, together, gradient) = loss_and_gradient(&f.model, &rows, &f.tensor("prompt.init"));
    let mut sum = vec![0f64; gradient.len()];
    for (row, together) in rows.iter().zip(&together) {
        let (_, alone, gradient) =
            loss_and_gradient(&f.model, std::slice::from_ref(row), &f.tensor("prompt.init"));
        close(together, &alone[0], Tolerance::both(2e-6)).unwrap();
        sum.iter_mut().zip(&gradient).for_each(|(sum, &g)| *sum += f64::from(g));
    }
    close(&gradient, &sum, Tolerance { absolute: 4e-6 * largest(&gradient), relative: 1e-5 }).unwrap();
}

/// Recomputing changes no bit, and rounding to bf16 little.
#[test]
fn recomputed_and_rounded() {
    let f = Fixture::open(T5[0]);
    let rows = f.batch(f.n_virtual(), 0.1);
    let batch = PackedBatch::from_rows(f.model.family(), &rows);
    let gradient = |model: &LanguageModel, tape: Tape| {
        let prompt = f.tensor("prompt.init");
        let prompt = tape.leaf(&[5, model.config().d_model], prompt);
        let scored = model.score(&tape, &batch, Some(&Prompt::Soft(prompt.clone())));
        let gradient = tape.backward(&scored.loss).take(&prompt).f32s().to_vec();
        (scored.log_probs, gradient)
    };
    let exact = gradient(&f.model, Tape::new());
    assert_eq!(gradient(&f.model, Tape::recomputing()), exact);
    let mut model = LanguageModel::open(&common::folder(T5[0])).unwrap();
    model.set_precision(kernels::matmul::Precision::Bf16);
    let rounded = gradient(&model, Tape::new());
    assert_ne!(rounded, exact);
    close(&rounded.0, &exact.0, Tolerance { absolute: 0.15, relative: 0.0 }).unwrap();
}
