//! From text to a loss, through all of it.

use std::path::Path;

use autograd::Tape;
use model::{Family, LanguageModel, PackedBatch, Row};

use super::blocks::{self, Masked, Rest, Vocabulary};
use super::corpus;
use super::initial::{Architecture, Shape};
use super::tokenizer::{self, Kind};

const CONTEXT: usize = 32;

fn text() -> String {
    let line = |i: usize| match i % 3 {
        0 => format!("The {i}th film is a fine one, and its {i} actors are good.\n\n"),
        1 => format!("房间{i}很安静，早餐也不错。\n\n"),
        _ => format!("It rained for {i} days; nobody came to the show.\n\n"),
    };
    (0..200).map(line).collect()
}

/// The mean loss per scored token of an untrained model of the text in `folder`, and its vocabulary's size.
fn loss(folder: &Path, kind: Kind) -> (f64, usize) {
    std::fs::write(folder.join("text.txt"), text()).unwrap();
    let documents = corpus::read(&[folder.join("text.txt")]).unwrap();
    assert_eq!(documents.len(), 200);
    let split = corpus::split(documents, 0.1, 1).unwrap();
    tokenizer::train(kind, 600, &split.train).unwrap().write(folder).unwrap();
    let tokenizer = model::Tokenizer::open(folder).unwrap();
    let valid = blocks::encode(&tokenizer, &split.valid).unwrap();
    let (architecture, family) = match kind {
        Kind::Causal => (Architecture::Gpt2, Family::Causal),
        Kind::Masked => (Architecture::Bert, Family::Masked),
    };
    let vocab_size = tokenizer.vocab_size();
    let shape = Shape {
        architecture,
        vocab_size,
        n_positions: CONTEXT,
        d_model: 32,
        n_layers: 2,
        n_heads: 4,
        d_ff: 64,
    };
    shape.write(folder, 1).unwrap();
    let rows: Vec<Row> = match kind {
        Kind::Causal => blocks::causal_rows(&valid, tokenizer.eos().unwrap(), CONTEXT, Rest::Keep),
        Kind::Masked => {
            let masked = Masked::new(&valid, Vocabulary::open(folder).unwrap(), CONTEXT, 1);
            (0..masked.blocks.len()).map(|i| masked.row(i, 0)).collect()
        }
    };
    let model = LanguageModel::open(folder).unwrap();
    assert_eq!(model.family(), family);
    rows.iter().for_each(|row| model.check_row(&row.tokens, None).unwrap());
    let scored = model.score(&Tape::new(), &PackedBatch::from_rows(family, &rows), None);
    let n: usize = rows.iter().map(|row| row.scored.len()).sum();
    (f64::from(scored.loss.tensor().f32s()[0]) / n as f64, vocab_size)
}

#[test]
fn an_untrained_model_knows_nothing() {
    for kind in [Kind::Causal, Kind::Masked] {
        let folder = tempfile::tempdir().unwrap();
        let (loss, vocab_size) = loss(folder.path(), kind);
        // logits are N(0, 0.02² · 32): the loss is above ln V by about half their variance, 0.0064, and by their chance
        // covariance with what was scored
        let expected = (vocab_size as f64).ln() + 0.0064;
        assert!((loss - expected).abs() < 0.03, "{kind:?}: {loss}, not {expected}");
    }
}
