//! What a run of `pretrain` begins with: text as rows of tokens, and a model that knows nothing.

use model::{LanguageModel, Row, Source, Tokenizer};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::PretrainArgs;
use crate::error::{Error, Result};
use crate::pretrain::blocks::{self, Masked, Rest, Vocabulary};
use crate::pretrain::corpus;
use crate::pretrain::initial::Shape;
use crate::pretrain::tokenizer::{self, Kind};
use crate::train::Examples;

/// Everything that is made before training starts. All of it follows from the text, the shape and the seed.
pub(super) struct Material {
    /// Tokenizer, configuration and random weights. Goes away with the run: the output folder has its own.
    pub folder: TempDir,
    pub model: LanguageModel,
    pub shape: Shape,
    pub examples: Box<dyn Examples>,
    pub valid: Vec<Row>,
    pub n_documents: usize,
    pub n_tokens: usize,
    pub seed: u64,
}

impl Material {
    pub(super) fn read(args: &PretrainArgs) -> Result<Material> {
        let documents = corpus::read(&args.text)?;
        let n_documents = documents.len();
        let split = corpus::split(documents, args.valid_fraction, args.seed)?;
        let folder = tempfile::tempdir().map_err(|e| Error::Failure(format!("a temporary folder: {e}")))?;
        tokenizer::train(args.kind(), args.vocab_size, &split.train)?.write(folder.path())?;
        let tokenizer = Tokenizer::open(folder.path())?;
        let shape = args.shape(tokenizer.vocab_size());
        shape.write(folder.path(), args.seed)?;
        let model = LanguageModel::open(folder.path())?;
        let train = blocks::encode(&tokenizer, &split.train)?;
        let valid = blocks::encode(&tokenizer, &split.valid)?;
        let n_tokens = train.iter().map(Vec::len).sum();
        let (examples, valid) = match args.kind() {
            Kind::Causal => causal(&tokenizer, (&train, &valid), args.context.into())?,
            Kind::Masked => {
                let masked = |documents: &[Vec<u32>]| -> Result<Masked> {
                    let vocabulary = Vocabulary::open(folder.path())?;
                    Ok(Masked::new(documents, vocabulary, args.context.into(), args.seed))
                };
                let valid = masked(&valid)?;
                let valid = (0..valid.blocks.len()).map(|i| valid.row(i, 0)).collect();
                (Box::new(masked(&train)?) as Box<dyn Examples>, valid)
            }
        };
        if examples.n_rows() == 0 {
            return Err(Error::Input(format!(
                "the text has {n_tokens} tokens, which fill no block of {}; give more text or a smaller --context",
                args.context
            )));
        }
        if valid.is_empty() {
            let why = "no document fell to validation; give more text or a larger --valid-fraction";
            return Err(Error::Input(why.into()));
        }
        Ok(Material { folder, model, shape, examples, valid, n_documents, n_tokens, seed: args.seed })
    }

    /// Names text, shape and seed: a resumed run must have the same.
    pub(super) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.model.fingerprint());
        hash.update(self.seed.to_le_bytes());
        let train = (0..self.examples.n_rows()).map(|i| self.examples.row(i, 0));
        for row in train.chain(self.valid.iter().cloned()) {
            row.sources().for_each(|source| match source {
                Source::Text(id) | Source::Soft(id) => hash.update(id.to_le_bytes()),
            });
        }
        format!("{:x}", hash.finalize())
    }

    /// Multiplications and additions of a step per token: forward once, and backward twice as much, through every matrix and
    /// through the scores of half the context.
    pub(super) fn flops_per_token(&self) -> f64 {
        let Shape { n_positions, d_model, n_layers, d_ff, vocab_size, .. } = self.shape;
        let matrices = n_layers * (4 * d_model * d_model + 2 * d_model * d_ff);
        // of a masked model the head is computed for the scored tokens only
        let scored: usize = self.valid.iter().map(|row| row.scored.len()).sum();
        let all: usize = self.valid.iter().map(Row::len).sum();
        let head = (d_model * vocab_size) as f64 * scored as f64 / all.max(1) as f64;
        let scores = n_layers * d_model * n_positions;
        6.0 * (matrices as f64 + head + scores as f64)
    }
}

fn causal(
    tokenizer: &Tokenizer,
    (train, valid): (&[Vec<u32>], &[Vec<u32>]),
    context: usize,
) -> Result<(Box<dyn Examples>, Vec<Row>)> {
    let end =
        tokenizer.eos().ok_or_else(|| Error::Failure("the tokenizer has no end of text".to_string()))?;
    let rows = blocks::causal_rows(train, end, context, Rest::Drop);
    Ok((Box::new(rows), blocks::causal_rows(valid, end, context, Rest::Keep)))
}
