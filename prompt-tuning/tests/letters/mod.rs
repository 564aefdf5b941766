//! A tokenizer for the fixtures that have none: one token per letter, and the special tokens of each family.

use model::Family;
use prompt_tuning::Result;
use prompt_tuning::encode::Encode;

/// Letters of ASCII are their own ids, below the special tokens.
pub(crate) struct Letters {
    pub(crate) family: Family,
}

const MASK: u32 = 128;
const FIRST_GAP: u32 = 130;
/// `</s>` of T5.
const END: u32 = 1;

impl Encode for Letters {
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        assert!(text.is_ascii(), "{text:?}");
        let mut ids: Vec<u32> = text.bytes().map(u32::from).collect();
        if add_special_tokens && self.family == Family::Seq2Seq {
            ids.push(END);
        }
        Ok(ids)
    }

    fn mask(&self) -> Option<u32> {
        (self.family == Family::Masked).then_some(MASK)
    }

    fn gap(&self, i: usize) -> Option<u32> {
        (self.family == Family::Seq2Seq && i < 2).then(|| FIRST_GAP - i as u32)
    }
}
