//! What a run of `pretrain` begins with: text as rows of tokens, and a model: one that knows nothing, or the one given.

use std::path::{Path, PathBuf};

use model::{Family, LanguageModel, Row, Source, Tokenizer};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::PretrainArgs;
use crate::error::{Error, Result};
use crate::hub;
use crate::pretrain::blocks::{self, Masked, Rest, Vocabulary};
use crate::pretrain::corpus;
use crate::pretrain::tokenizer;
use crate::train::Examples;

/// Everything that is made before training starts. All of it follows from the text, the model or its shape, and the seed.
pub(super) struct Material {
    /// Tokenizer, configuration and weights to start from.
    pub folder: PathBuf,
    /// A new model's folder goes away with the run: the output folder has its own files.
    _made: Option<TempDir>,
    pub model: LanguageModel,
    /// Tokens of a block.
    context: usize,
    arithmetic: String,
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
        let (folder, made) = match &args.model {
            Some(name) => (given(name)?, None),
            None => {
                let made = new_model(args, &split.train)?;
                (made.path().to_path_buf(), Some(made))
            }
        };
        let model = args.common.model(&folder)?;
        model.check_speaks()?;
        let masked = match model.family() {
            Family::Causal => false,
            Family::Masked => true,
            Family::Seq2Seq => {
                let why = "an encoder-decoder; only causal and masked models are trained on plain text";
                return Err(Error::file(&folder, why));
            }
        };
        let tokenizer = Tokenizer::open(&folder)?;
        let context = usize::from(args.context).min(model.config().n_positions);
        let train = blocks::encode(&tokenizer, &split.train)?;
        let valid = blocks::encode(&tokenizer, &split.valid)?;
        let n_tokens = train.iter().map(Vec::len).sum();
        let (examples, valid) = match masked {
            false if args.mask_probability.is_some() => {
                return Err(Error::Input("--mask-probability: only masked models have masks".into()));
            }
            false => causal(&tokenizer, (&train, &valid), context)?,
            true => {
                let masked = |documents: &[Vec<u32>]| -> Result<Masked> {
                    Ok(Masked::new(documents, Vocabulary::open(&folder)?, context, args.seed))
                };
                let valid = masked(&valid)?;
                let valid = (0..valid.blocks.len()).map(|i| valid.row(i, 0)).collect();
                let train = masked(&train)?;
                let train = match args.mask_probability {
                    Some(share) => train.scoring(share),
                    None => train,
                };
                (Box::new(train) as Box<dyn Examples>, valid)
            }
        };
        if examples.n_rows() == 0 {
            return Err(Error::Input(format!(
                "the text has {n_tokens} tokens, which fill no block of {context}; give more text or a smaller --context"
            )));
        }
        if valid.is_empty() {
            let why = "no document fell to validation; give more text or a larger --valid-fraction";
            return Err(Error::Input(why.into()));
        }
        let (_made, seed, arithmetic) = (made, args.seed, args.common.arithmetic());
        Ok(Material {
            folder,
            _made,
            model,
            context,
            arithmetic,
            examples,
            valid,
            n_documents,
            n_tokens,
            seed,
        })
    }

    /// Names text, model, seed and arithmetic: a resumed run must have the same.
    pub(super) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.model.fingerprint());
        hash.update(self.seed.to_le_bytes());
        hash.update(&self.arithmetic);
        let train = (0..self.examples.n_rows()).map(|i| self.examples.row(i, 0));
        for row in train.chain(self.valid.iter().cloned()) {
            row.sources().for_each(|source| match source {
                Source::Text(id) | Source::Soft(id) => hash.update(id.to_le_bytes()),
            });
        }
        format!("{:x}", hash.finalize())
    }

    /// Multiplications and additions in the scores of attention for each token, which see half of the context: forward once, and
    /// backward twice as much.
    pub(super) fn scores_per_token(&self) -> f64 {
        let config = self.model.config();
        (6 * config.n_layers * config.n_heads * config.head_dim * self.context) as f64
    }
}

/// The folder of a model that exists.
fn given(name: &str) -> Result<PathBuf> {
    let folder = hub::model_folder(name)?;
    match folder.is_dir() {
        true => Ok(folder),
        false => Err(Error::file(&folder, "only models in Hugging Face folders can be trained on text")),
    }
}

/// A tokenizer learnt from the text, and a model of random weights for it.
fn new_model(args: &PretrainArgs, documents: &[String]) -> Result<TempDir> {
    let folder = tempfile::tempdir().map_err(|e| Error::Failure(format!("a temporary folder: {e}")))?;
    let path: &Path = folder.path();
    tokenizer::train(args.kind(), args.vocab_size, documents)?.write(path)?;
    args.shape(Tokenizer::open(path)?.vocab_size()).write(path, args.seed)?;
    Ok(folder)
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
