//! The tokenizer of BERT folders that have no `tokenizer.json`, only the list of word pieces `vocab.txt`.

use std::path::Path;

use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Tokenizer};

use crate::read::Keys;
use crate::{Error, Result};

/// The list of word pieces, one a line; its line is its id.
pub(super) const FILE: &str = "vocab.txt";
const UNKNOWN: &str = "[UNK]";
const CLS: &str = "[CLS]";
const SEP: &str = "[SEP]";
const MASK: &str = "[MASK]";
const PAD: &str = "[PAD]";

/// The tokenizer that transformers' `BertTokenizer` makes of `vocab.txt` and `tokenizer_config.json`.
///
/// # Errors
/// A file cannot be read, or the vocabulary lacks one of the special tokens.
pub(super) fn open(folder: &Path) -> Result<Tokenizer> {
    let path = folder.join(FILE);
    let invalid = |why: String| Error::Tokenizer { path: path.clone(), why };
    let bytes = std::fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    let vocab = WordPiece::read_bytes(&bytes).map_err(|e| invalid(e.to_string()))?;
    let id = |token: &str| {
        let id = vocab.get(token).copied();
        id.ok_or_else(|| invalid(format!("it has no {token}; it is not the vocabulary of a BERT")))
    };
    let (sep, cls) = ((SEP.to_string(), id(SEP)?), (CLS.to_string(), id(CLS)?));
    let special: Vec<AddedToken> = [PAD, UNKNOWN, CLS, SEP, MASK]
        .into_iter()
        .filter(|token| vocab.contains_key(*token))
        .map(|token| AddedToken::from(token, true))
        .collect();
    id(UNKNOWN)?;
    let model = WordPiece::builder().vocab(vocab).unk_token(UNKNOWN.into()).build();
    let mut tokenizer = Tokenizer::new(model.map_err(|e| invalid(e.to_string()))?);
    tokenizer
        .with_normalizer(Some(normalizer(folder)?))
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(BertProcessing::new(sep, cls)))
        .with_decoder(Some(WordPieceDecoder::default()));
    tokenizer.add_special_tokens(&special);
    Ok(tokenizer)
}

/// Lower case unless the folder says otherwise, as transformers has it.
fn normalizer(folder: &Path) -> Result<BertNormalizer> {
    let path = folder.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(BertNormalizer::new(true, true, None, true));
    }
    let keys = Keys::open(&path)?;
    let chinese = keys.flag("tokenize_chinese_chars")?.unwrap_or(true);
    let lower = keys.flag("do_lower_case")?.unwrap_or(true);
    Ok(BertNormalizer::new(true, chinese, keys.flag("strip_accents")?, lower))
}
