//! Text to tokens and back, by the `tokenizers` library.

mod wordpiece;

use std::path::Path;

use serde_json::Value;

use crate::read::Keys;
use crate::{Error, Family, Result, gguf};

/// The tokenizer of a model folder.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    eos: Option<u32>,
    mask: Option<u32>,
    unknown: Option<u32>,
    /// For tokenizers that put a space in front of every text: tokens of [`BEFORE_ENCODED`] and [`BEFORE_DECODED`].
    before: Option<[Vec<u32>; 2]>,
}

/// How SentencePiece vocabularies spell the space before a word.
const WORD_START: char = '\u{2581}';
/// Never part of a longer token in these vocabularies, so what follows it is cut off cleanly.
const BEFORE_ENCODED: &str = "\n";
/// Not a lone byte, so that bytes after it still make whole characters.
const BEFORE_DECODED: &str = "a";

impl Tokenizer {
    /// Opens `tokenizer.json` in `folder`, or makes the tokenizer of a BERT from its `vocab.txt`, or the one that a GGUF file
    /// describes. Truncation and padding that the file asks for are switched off.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read.
    pub fn open(folder: &Path) -> Result<Tokenizer> {
        if folder.is_file() {
            let gguf::Parts { inner, eos, unknown } = gguf::tokenizer(folder)?;
            return Tokenizer::new(inner, eos, None, unknown);
        }
        let path = folder.join("tokenizer.json");
        let invalid = |why: String| Error::Tokenizer { path: path.clone(), why };
        let inner = if path.is_file() {
            let bytes = std::fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
            tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| invalid(e.to_string()))?
        } else if folder.join(wordpiece::FILE).is_file() {
            wordpiece::open(folder)?
        } else {
            return Err(Error::Tokenizer { path: folder.into(), why: what_is_there(folder) });
        };
        let id = |token: Option<String>| token.and_then(|token| inner.token_to_id(&token));
        let eos = id(special_token(folder, "eos_token")?);
        let mask = id(special_token(folder, "mask_token")?.or_else(|| Some("[MASK]".into())));
        let unknown = id(special_token(folder, "unk_token")?.or_else(|| Some("[UNK]".into())));
        // vocabularies of bytes know everything; GPT-2's files name the end of text for want of another
        let unknown = unknown.filter(|&id| Some(id) != eos);
        Tokenizer::new(inner, eos, mask, unknown)
    }

    fn new(
        mut inner: tokenizers::Tokenizer,
        eos: Option<u32>,
        mask: Option<u32>,
        unknown: Option<u32>,
    ) -> Result<Tokenizer> {
        inner.with_padding(None);
        let refused = |e| Error::Tokens(format!("the tokenizer cannot do without truncation: {e}"));
        inner.with_truncation(None).map_err(refused)?;
        let mut tokenizer = Tokenizer { inner, eos, mask, unknown, before: None };
        let first = tokenizer.encode("a", false)?.first().and_then(|&id| tokenizer.token(id));
        if first.is_some_and(|token| token.starts_with(WORD_START)) {
            tokenizer.before =
                Some([tokenizer.encode(BEFORE_ENCODED, false)?, tokenizer.encode(BEFORE_DECODED, false)?]);
        }
        Ok(tokenizer)
    }

    /// Token ids of `text`; with `add_special_tokens`, what the file's post-processor adds (such as a beginning).
    ///
    /// # Errors
    /// The library refuses the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, add_special_tokens);
        Ok(encoding
            .map_err(|e| Error::Tokens(format!("the tokenizer refuses a text: {e}")))?
            .get_ids()
            .to_vec())
    }

    /// Token ids of a text that continues another, without special tokens.
    ///
    /// SentencePiece tokenizers put a space in front of every text; a continuation must not get one, so it is encoded
    /// behind a line end whose tokens are then cut off.
    ///
    /// # Errors
    /// The library refuses the text.
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>> {
        if let Some([before, _]) = &self.before {
            let ids = self.encode(&format!("{BEFORE_ENCODED}{text}"), false)?;
            if let Some(rest) = ids.strip_prefix(before.as_slice()) {
                return Ok(rest.to_vec());
            }
        }
        self.encode(text, false)
    }

    /// Text of ids that continue others, without special tokens: a leading space is kept, which SentencePiece
    /// tokenizers strip from a text of its own.
    ///
    /// # Errors
    /// The library refuses the ids.
    pub fn decode_continuation(&self, ids: &[u32]) -> Result<String> {
        if let Some([_, before]) = &self.before {
            let text = self.decode(&[before, ids].concat(), true)?;
            if let Some(rest) = text.strip_prefix(BEFORE_DECODED) {
                return Ok(rest.into());
            }
        }
        self.decode(ids, true)
    }

    /// Text of what a model generated: an answer of its own from a decoder behind an encoder, else a continuation.
    ///
    /// # Errors
    /// The library refuses the ids.
    pub fn decode_generated(&self, family: Family, ids: &[u32]) -> Result<String> {
        match family {
            Family::Seq2Seq => self.decode(ids, true),
            Family::Causal | Family::Masked => self.decode_continuation(ids),
        }
    }

    /// Text of `ids`.
    ///
    /// # Errors
    /// The library refuses the ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let text = self.inner.decode(ids, skip_special);
        text.map_err(|e| Error::Tokens(format!("the tokenizer cannot make text of its tokens: {e}")))
    }

    /// How the vocabulary spells a token.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token that ends a text, when the folder says which.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that stands for whatever the vocabulary does not have: the one the folder names, else `[UNK]`.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// What T5 writes for gap `i` of a text, `<extra_id_i>`, where the vocabulary has it.
    pub fn gap(&self, i: usize) -> Option<u32> {
        self.inner.token_to_id(&format!("<extra_id_{i}>"))
    }

    /// The token that stands for another which is to be guessed: the one the folder names, else `[MASK]`.
    pub fn mask(&self) -> Option<u32> {
        self.mask
    }
}

/// A token that the files beside the tokenizer name: a string, or an object with its `content`.
pub(crate) fn special_token(folder: &Path, key: &str) -> Result<Option<String>> {
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let path = folder.join(name);
        if !path.is_file() {
            continue;
        }
        let keys = Keys::open(&path)?;
        let token = keys.get(key);
        let token = token.and_then(|t| t.as_str().or_else(|| t.get("content").and_then(Value::as_str)));
        if let Some(token) = token {
            return Ok(Some(token.into()));
        }
    }
    Ok(None)
}

fn what_is_there(folder: &Path) -> String {
    let there = |name: &str| folder.join(name).is_file();
    if there("vocab.json") || there("merges.txt") {
        "there is no tokenizer.json, only vocab.json and merges.txt; load it with transformers' AutoTokenizer and save it \
         with `save_pretrained`, which writes tokenizer.json"
            .into()
    } else if let Some(name) =
        ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model"].into_iter().find(|n| there(n))
    {
        format!(
            "there is no tokenizer.json, only the SentencePiece file {name}; load it with transformers' AutoTokenizer and \
             save it with `save_pretrained`, which writes tokenizer.json"
        )
    } else {
        "there is no tokenizer.json; give token ids instead of text, or add the file".into()
    }
}
