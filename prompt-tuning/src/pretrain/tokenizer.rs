//! A tokenizer of the text itself: byte-level byte-pair encoding (Sennrich et al. 2016, on bytes as in GPT-2).
//!
//! Text is cut into words first, and merges never cross a cut:
//!
//! ```text
//! 1  every Han character is a word of its own                         \p{Han}
//! 2  GPT-2's rule on what is left: a word with the space before it, a run of digits, of signs, of space
//! 3  each byte of a word becomes a character; the 256 of them are the alphabet, so nothing is unknown
//! ```
//!
//! Step 1 is what BERT does to Chinese (Devlin et al. 2018). Chinese has no spaces, so to GPT-2's rule a whole clause is
//! one word, and merges run across characters and may begin and end within them. Cutting runs into pieces of two to four
//! characters is no help: where the cuts fall depends on where the run began, so a word has other tokens in other
//! surroundings. Alone, a frequent character is one token and a rare one two or three, always the same ones. A vocabulary of
//! 8192 from 6.3 million English and 1.5 million Chinese characters of prose, reviews, news and abstracts, Chinese measured on 2000
//! other texts, English on the same:
//!
//! ```text
//! Han characters together     tokens per Chinese character   characters per English token   vocabulary with Han
//! 1 (here)                    1.03                           3.70                           1500
//! at most 2                   0.97                           3.59                           2550
//! at most 4                   0.94                           3.58                           2678
//! any number                  0.91                           3.56                           2836
//! ```
//!
//! For a Chinese text that is 13 % longer, half as many tokens are to be learnt, each from more text, which is what counts for a
//! small model; the room goes to English words.

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::atomic;
use crate::error::{Error, Result};

/// What ends a document of a causal model.
pub const END: &str = "<|endoftext|>";
/// Fills up batches elsewhere; here there is no padding, but transformers wants one.
pub const PAD: &str = "[PAD]";
/// Never the token of anything: bytes are always known. Programs ask for its name.
pub const UNKNOWN: &str = "[UNK]";
/// In front of a text.
pub const CLS: &str = "[CLS]";
/// Behind a text.
pub const SEP: &str = "[SEP]";
/// Stands for a token that is to be guessed, and takes the spaces before it along, as RoBERTa's does: words are
/// tokens with the space before them, so in "It was [MASK]." the mask stands for " good".
pub const MASK: &str = "[MASK]";

/// What kind of model a tokenizer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One special token, [`END`] (id 0). A text gets no tokens around it.
    Causal,
    /// [`PAD`], [`UNKNOWN`], [`CLS`], [`SEP`], [`MASK`] (ids 0 to 4). A text becomes `[CLS] text [SEP]`.
    Masked,
}

impl Kind {
    /// The special tokens; their place is their id.
    pub fn special(self) -> &'static [&'static str] {
        match self {
            Kind::Causal => &[END],
            Kind::Masked => &[PAD, UNKNOWN, CLS, SEP, MASK],
        }
    }

    /// The smallest vocabulary: the special tokens and the 256 bytes.
    pub fn smallest_vocabulary(self) -> usize {
        self.special().len() + 256
    }
}

/// A tokenizer learnt from documents.
#[derive(Clone, Debug)]
pub struct Trained {
    kind: Kind,
    inner: Tokenizer,
}

/// Learns a vocabulary of `vocab_size` tokens, or as many as the documents have to offer. The same documents in any order give
/// the same tokenizer: of pairs that are equally frequent, the one with the smaller ids is merged first.
///
/// # Errors
/// [`Error::Input`] for a vocabulary smaller than [`Kind::smallest_vocabulary`].
pub fn train(kind: Kind, vocab_size: usize, documents: &[String]) -> Result<Trained> {
    let smallest = kind.smallest_vocabulary();
    if vocab_size < smallest {
        return Err(Error::Input(format!(
            "a vocabulary of {vocab_size} tokens is asked for, but {smallest} are needed for the special tokens and the bytes"
        )));
    }
    let mut inner = Tokenizer::new(BPE::default());
    inner.with_pre_tokenizer(Some(words()?)).with_decoder(Some(byte_level()));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(kind.special().iter().map(|&token| special(token)).collect())
        .show_progress(false)
        .build()
        .into();
    inner.train(&mut trainer, documents.iter().map(String::as_str)).map_err(failed)?;
    if kind == Kind::Masked {
        let around = TemplateProcessing::builder()
            .try_single(format!("{CLS} $A {SEP}"))
            .and_then(|builder| builder.try_pair(format!("{CLS} $A {SEP} $B {SEP}")))
            .map_err(failed)?
            .special_tokens(vec![(CLS, 2), (SEP, 3)])
            .build()
            .map_err(failed)?;
        inner.with_post_processor(Some(around));
    }
    Ok(Trained { kind, inner })
}

impl Trained {
    /// Number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into `folder`: [`model::Tokenizer::open`] and transformers'
    /// `AutoTokenizer` read them.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        let tokenizer = self.inner.to_string(true).map_err(failed)?;
        let config = serde_json::to_string_pretty(&self.config()).expect("strings and flags become JSON");
        atomic::write(&folder.join("tokenizer.json"), (tokenizer + "\n").as_bytes())?;
        atomic::write(&folder.join("tokenizer_config.json"), (config + "\n").as_bytes())
    }

    /// What transformers wants to know beside the tokenizer.
    fn config(&self) -> Value {
        match self.kind {
            Kind::Causal => json!({
                "add_prefix_space": false,
                "bos_token": END,
                "clean_up_tokenization_spaces": false,
                "eos_token": END,
                "pad_token": END,
                "tokenizer_class": "PreTrainedTokenizerFast",
            }),
            Kind::Masked => json!({
                "add_prefix_space": false,
                "clean_up_tokenization_spaces": false,
                "cls_token": CLS,
                "mask_token": MASK,
                "pad_token": PAD,
                "sep_token": SEP,
                "tokenizer_class": "PreTrainedTokenizerFast",
                "unk_token": UNKNOWN,
            }),
        }
    }
}

fn words() -> Result<Sequence> {
    let han = SplitPattern::Regex(r"\p{Han}".into());
    let han = Split::new(han, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
    Ok(Sequence::new(vec![han.into(), byte_level().into()]))
}

/// No space in front of a text: what continues another text is not changed by it.
fn byte_level() -> ByteLevel {
    ByteLevel::new(false, true, true)
}

fn special(token: &str) -> AddedToken {
    AddedToken::from(token, true).lstrip(token == MASK)
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::Failure(format!("the tokenizer cannot be made: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents() -> Vec<String> {
        let english =
            ["the cat sat on the mat", "a cat is a cat, and the mat is flat", "That's the mat; it's 1999!"];
        let chinese = ["味道很好，味道真好吃。", "很好吃，味道不错！", "房间很好，很安静"];
        english.iter().chain(&chinese).map(|text| text.to_string()).collect()
    }

    fn opened(trained: &Trained) -> model::Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        trained.write(folder.path()).unwrap();
        model::Tokenizer::open(folder.path()).unwrap()
    }

    fn spelt(tokenizer: &model::Tokenizer, text: &str) -> Vec<String> {
        let ids = tokenizer.encode(text, false).unwrap();
        ids.iter().map(|&id| tokenizer.decode(&[id], false).unwrap()).collect()
    }

    #[test]
    fn any_text_comes_back_and_special_tokens_have_the_first_ids() {
        for kind in [Kind::Causal, Kind::Masked] {
            let trained = train(kind, 310, &documents()).unwrap();
            let tokenizer = opened(&trained);
            assert_eq!((trained.vocab_size(), tokenizer.vocab_size()), (310, 310));
            for (id, token) in kind.special().iter().enumerate() {
                assert_eq!(tokenizer.encode(token, false).unwrap(), [id as u32]);
            }
            for text in ["the cat", " 味道 和 the\n\n\tcat  ", "Ünïcode ☃ 🦀 \u{0} 龘", ""] {
                let ids = tokenizer.encode(text, false).unwrap();
                assert!(ids.iter().all(|&id| id >= kind.special().len() as u32), "{ids:?}");
                assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
            }
        }
    }

    #[test]
    fn the_models_tokenizer_finds_end_and_mask() {
        let causal = opened(&train(Kind::Causal, 300, &documents()).unwrap());
        assert_eq!((causal.eos(), causal.mask(), causal.unknown()), (Some(0), None, None));
        assert!(causal.encode("", true).unwrap().is_empty());
        let masked = opened(&train(Kind::Masked, 300, &documents()).unwrap());
        assert_eq!((masked.eos(), masked.mask(), masked.unknown()), (None, Some(4), Some(1)));
        assert_eq!(masked.encode("", true).unwrap(), [2, 3]);
        let (cat, with_mask) =
            (masked.encode("cat", false).unwrap(), masked.encode("cat [MASK]", true).unwrap());
        assert_eq!(with_mask, [&[2], &*cat, &[4, 3]].concat());
    }

    #[test]
    fn merges_stay_within_words_and_han_characters() {
        let tokenizer = opened(&train(Kind::Causal, 2000, &documents()).unwrap());
        assert_eq!(
            spelt(&tokenizer, "the cat, 味道很好吃"),
            ["the", " cat", ",", " ", "味", "道", "很", "好", "吃"]
        );
        // the corpus is used up: no token is longer than a word of it, and no Han character shares one
        assert!(tokenizer.vocab_size() < 400);
        let han = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
        for id in 1..tokenizer.vocab_size() as u32 {
            let text = tokenizer.decode(&[id], false).unwrap();
            assert!(!text.contains(han) || text.chars().count() == 1, "{text:?}");
        }
    }

    #[test]
    fn the_same_documents_give_the_same_file() {
        let json = |documents: &[String]| {
            train(Kind::Masked, 310, documents).unwrap().inner.to_string(true).unwrap()
        };
        let once = json(&documents());
        let mut backwards = documents();
        backwards.reverse();
        for _ in 0..20 {
            assert_eq!(json(&documents()), once);
            assert_eq!(json(&backwards), once);
        }
    }

    #[test]
    fn a_vocabulary_without_room_for_the_bytes_is_refused() {
        let refused = train(Kind::Masked, 260, &documents()).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("261"), "{refused}");
        assert_eq!(train(Kind::Masked, 261, &documents()).unwrap().vocab_size(), 261);
    }
}
