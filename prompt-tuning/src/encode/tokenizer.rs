//! What encoding needs of a tokenizer.

use crate::error::Result;

/// What turns text into token ids.
pub trait Encode: Sync {
    /// The tokens of `text`, with the special tokens that the tokenizer puts around a text if asked for.
    ///
    /// # Errors
    /// Whatever the tokenizer refuses.
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>>;

    /// The tokens of a text that continues another: no special tokens, and no space that the tokenizer puts in front
    /// of a text of its own.
    ///
    /// # Errors
    /// Whatever the tokenizer refuses.
    fn encode_continuation(&self, text: &str) -> Result<Vec<u32>> {
        self.encode(text, false)
    }

    /// The mask token of a masked model's tokenizer.
    fn mask(&self) -> Option<u32> {
        None
    }

    /// The token that stands for whatever the vocabulary does not have.
    fn unknown(&self) -> Option<u32> {
        None
    }

    /// What stands for gap `i` of a text in a tokenizer of T5.
    fn gap(&self, i: usize) -> Option<u32> {
        let _ = i;
        None
    }
}

impl Encode for model::Tokenizer {
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        Ok(model::Tokenizer::encode(self, text, add_special_tokens)?)
    }

    fn encode_continuation(&self, text: &str) -> Result<Vec<u32>> {
        Ok(model::Tokenizer::encode_continuation(self, text)?)
    }

    fn mask(&self) -> Option<u32> {
        model::Tokenizer::mask(self)
    }

    fn unknown(&self) -> Option<u32> {
        model::Tokenizer::unknown(self)
    }

    fn gap(&self, i: usize) -> Option<u32> {
        model::Tokenizer::gap(self, i)
    }
}
