//! From documents to rows: token ids, packed into blocks as long as the context, no padding.
//!
//! ```text
//! causal    document <end> document <end> doc|ument <end> …        cut every `context` tokens; every token of a block but
//!                                                                  the first is scored, by the one before it
//! masked    [CLS] document [SEP] docu [SEP] | [CLS] ment [SEP] …   15 % of a block's tokens are scored; of these are shown
//!                                                                  80 % as [MASK], 10 % as a random token, 10 % as they are
//! ```
//!
//! A token sees the documents before its own in the block. The masked draw is another one for every epoch ("dynamic masking",
//! Liu et al. 2019). Source: Devlin et al. 2018, section 3.1.

use std::collections::BTreeSet;
use std::path::Path;

use autograd::ops::Source;
use model::{Prediction, Row};
use rayon::prelude::*;

use super::tokenizer::{CLS, MASK, SEP};
use crate::encode::Encode;
use crate::error::{Error, Result};
use crate::rng::Rng;
use crate::train::Examples;

/// Share of the tokens that are scored, unless said otherwise.
const SCORED: f64 = 0.15;
/// Of these, share shown as a mask.
const SHOWN_AS_MASK: f64 = 0.8;
/// Of these, share shown as a random token.
const SHOWN_AS_RANDOM: f64 = 0.1;

/// What becomes of the tokens that do not fill a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They are dropped: every block is of one length. For training.
    Drop,
    /// They are a shorter block, so that every token counts. For validation.
    Keep,
}

/// Token ids of each document, without the special tokens that may be put around it. On all cores.
///
/// # Errors
/// What the tokenizer refuses.
pub fn encode(tokenizer: &dyn Encode, documents: &[String]) -> Result<Vec<Vec<u32>>> {
    documents.par_iter().map(|document| tokenizer.encode(document, false)).collect()
}

/// Blocks of `context` tokens of the documents, each followed by `end`, as rows of a causal model. There are none when `rest` is
/// dropped and the documents fill no block. Panics when `context` is below 2: nothing could be scored.
pub fn causal_rows(documents: &[Vec<u32>], end: u32, context: usize, rest: Rest) -> Vec<Row> {
    assert!(context >= 2, "the first token of a block is not scored");
    let tokens: Vec<Source> = documents
        .iter()
        .flat_map(|document| document.iter().copied().chain([end]))
        .map(Source::Text)
        .collect();
    let shortest = if rest == Rest::Drop { context } else { 2 };
    let blocks = tokens.chunks(context).filter(|block| block.len() >= shortest);
    blocks.map(|block| Row::causal(block.to_vec(), 1, 1.0)).collect()
}

/// What has to be known of a masked model's vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// Number of tokens.
    pub size: u32,
    /// In front of a block.
    pub cls: u32,
    /// Between documents and behind a block.
    pub sep: u32,
    /// In the place of a token that is scored.
    pub mask: u32,
    /// These and all other special tokens: never scored, and never the random token.
    pub special: BTreeSet<u32>,
}

impl Vocabulary {
    /// Of the `tokenizer.json` in `folder`, whose special tokens have BERT's names.
    ///
    /// # Errors
    /// [`Error::File`]: it cannot be read, or lacks one of them.
    pub fn open(folder: &Path) -> Result<Vocabulary> {
        let path = folder.join("tokenizer.json");
        let tokenizer =
            tokenizers::Tokenizer::from_file(&path).map_err(|e| Error::file(&path, e.to_string()))?;
        let id = |token: &str| {
            let id = tokenizer.token_to_id(token);
            id.ok_or_else(|| {
                Error::file(&path, format!("there is no token {token}, which a masked model needs"))
            })
        };
        let (cls, sep, mask) = (id(CLS)?, id(SEP)?, id(MASK)?);
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id);
        let special = special.chain([cls, sep, mask]).collect();
        Ok(Vocabulary { size: tokenizer.get_vocab_size(true) as u32, cls, sep, mask, special })
    }

    /// Any token that is not special, all equally likely.
    fn random(&self, rng: &mut Rng) -> u32 {
        loop {
            let token = rng.below(self.size as usize) as u32;
            if !self.special.contains(&token) {
                return token;
            }
        }
    }
}

/// Blocks for a masked model, from which every epoch makes its own rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Masked {
    /// `[CLS] … [SEP]` each, with at least one token that can be scored.
    pub blocks: Vec<Vec<u32>>,
    vocabulary: Vocabulary,
    seed: u64,
    /// Share of the tokens that are scored.
    scored: f64,
}

impl Masked {
    /// Packs documents into blocks of at most `context` tokens. A document goes on in the next block when it is too long for
    /// this one; the last block may be shorter. Panics when `context` is below 3: it could hold no text.
    pub fn new(documents: &[Vec<u32>], vocabulary: Vocabulary, context: usize, seed: u64) -> Masked {
        let mut blocks = pack(documents, &vocabulary, context);
        blocks.retain(|block| block.iter().any(|token| !vocabulary.special.contains(token)));
        Masked { blocks, vocabulary, seed, scored: SCORED }
    }

    /// With another share of scored tokens than 15 %: more is more signal from a text, and less to guess from (Wettig et al. 2023,
    /// "Should You Mask 15% in Masked Language Modeling?").
    pub fn scoring(self, share: f64) -> Masked {
        Masked { scored: share, ..self }
    }

    /// Block `index` as epoch `epoch` sees it. Depends on the seed and these two alone.
    pub fn row(&self, index: usize, epoch: u64) -> Row {
        let block = &self.blocks[index];
        let mut rng = Rng::new(self.seed).fork(epoch).fork(index as u64);
        let mut text: Vec<usize> =
            (0..block.len()).filter(|&at| !self.vocabulary.special.contains(&block[at])).collect();
        let n = ((self.scored * text.len() as f64).round() as usize).max(1);
        rng.shuffle(&mut text);
        text.truncate(n);
        text.sort_unstable();
        let mut tokens: Vec<Source> = block.iter().map(|&token| Source::Text(token)).collect();
        for &at in &text {
            tokens[at] = Source::Text(self.shown(block[at], &mut rng));
        }
        let scored = text.iter().map(|&at| Prediction { at, token: block[at] }).collect();
        Row { encoder: Vec::new(), tokens, scored, weight: 1.0 }
    }

    /// What stands in the place of a scored token.
    fn shown(&self, token: u32, rng: &mut Rng) -> u32 {
        match rng.uniform() {
            x if x < SHOWN_AS_MASK => self.vocabulary.mask,
            x if x < SHOWN_AS_MASK + SHOWN_AS_RANDOM => self.vocabulary.random(rng),
            _ => token,
        }
    }
}

impl Examples for Masked {
    fn n_rows(&self) -> usize {
        self.blocks.len()
    }

    fn row(&self, index: usize, epoch: u64) -> Row {
        Masked::row(self, index, epoch)
    }
}

/// `[CLS] document [SEP] document [SEP]`, each at most `context` long.
fn pack(documents: &[Vec<u32>], vocabulary: &Vocabulary, context: usize) -> Vec<Vec<u32>> {
    assert!(context >= 3, "a block needs room for [CLS], a token and [SEP]");
    let (cls, sep) = (vocabulary.cls, vocabulary.sep);
    let (mut blocks, mut block) = (Vec::new(), vec![cls]);
    for document in documents {
        let mut rest = document.as_slice();
        while !rest.is_empty() {
            // one place is for the [SEP] behind this piece
            let room = context.saturating_sub(block.len() + 1);
            let (piece, after) = rest.split_at(room.min(rest.len()));
            if !piece.is_empty() {
                block.extend(piece);
                block.push(sep);
            }
            rest = after;
            if !rest.is_empty() {
                blocks.push(std::mem::replace(&mut block, vec![cls]));
            }
        }
    }
    if block.len() > 1 {
        blocks.push(block);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(tokens: &[u32]) -> Vec<Source> {
        tokens.iter().map(|&token| Source::Text(token)).collect()
    }

    /// Ids 0 to 4 are special, 5 to 99 are not.
    fn vocabulary() -> Vocabulary {
        Vocabulary { size: 100, cls: 2, sep: 3, mask: 4, special: (0..5).collect() }
    }

    #[test]
    fn causal_blocks_by_hand() {
        let documents = [vec![5, 6, 7], vec![8], vec![9, 10]];
        let rows = causal_rows(&documents, 0, 4, Rest::Keep);
        let tokens: Vec<&[Source]> = rows.iter().map(|row| &*row.tokens).collect();
        assert_eq!(tokens, [texts(&[5, 6, 7, 0]), texts(&[8, 0, 9, 10])]);
        let at = |at, token| Prediction { at, token };
        assert_eq!(rows[1].scored, [at(0, 0), at(1, 9), at(2, 10)]);
        // the end of the last document is left alone, with nothing to predict it: in blocks of 3 it is in company
        let rows = causal_rows(&documents, 0, 3, Rest::Keep);
        assert_eq!(rows.last().map(|row| &*row.tokens), Some(&*texts(&[9, 10, 0])));
        let (kept, dropped) =
            (causal_rows(&documents, 0, 7, Rest::Keep), causal_rows(&documents, 0, 7, Rest::Drop));
        assert_eq!((kept.len(), dropped.len()), (2, 1));
        assert_eq!(kept[1].tokens, texts(&[10, 0]));
        assert_eq!(kept[0], dropped[0]);
        assert!(causal_rows(&documents, 0, 10, Rest::Drop).is_empty());
    }

    #[test]
    fn masked_blocks_by_hand() {
        let documents = [vec![5, 6], vec![7], vec![8, 9, 10, 11, 12, 13, 14], vec![15, 16], vec![17], vec![]];
        let blocks = pack(&documents, &vocabulary(), 6);
        assert_eq!(
            blocks,
            [
                vec![2, 5, 6, 3, 7, 3],
                vec![2, 8, 9, 10, 11, 3],
                vec![2, 12, 13, 14, 3],
                vec![2, 15, 16, 3, 17, 3]
            ]
        );
    }

    #[test]
    fn packing_keeps_every_token_in_order() {
        let mut rng = Rng::new(2);
        for context in 3..12 {
            let document = |rng: &mut Rng| (0..rng.below(15)).map(|_| 5 + rng.below(95) as u32).collect();
            let documents: Vec<Vec<u32>> = (0..40).map(|_| document(&mut rng)).collect();
            let blocks = pack(&documents, &vocabulary(), context);
            let text: Vec<u32> = blocks.concat().into_iter().filter(|&token| token >= 5).collect();
            assert_eq!(text, documents.concat());
            for block in &blocks {
                assert!((3..=context).contains(&block.len()), "{block:?}");
                assert_eq!((block[0], block[block.len() - 1]), (2, 3));
                assert!(!block.windows(2).any(|pair| pair[0] < 5 && pair[1] < 5), "{block:?}");
            }
        }
    }

    #[test]
    fn a_masked_row_hides_what_it_scores() {
        let document: Vec<u32> = (5..90).chain([4, 1]).collect();
        let masked = Masked::new(&[document], vocabulary(), 128, 7);
        let (block, more) = (&masked.blocks[0], masked.clone().scoring(0.4));
        let (mut as_mask, mut as_is, mut random) = (0, 0, BTreeSet::new());
        let mut times_scored = vec![0u32; block.len()];
        let epochs = 4000;
        for epoch in 0..epochs {
            let row = masked.row(0, epoch);
            // 15 % of 85 tokens
            assert_eq!((row.tokens.len(), row.scored.len()), (block.len(), 13));
            assert_eq!(more.row(0, epoch).scored.len(), 34);
            assert!(row.scored.windows(2).all(|pair| pair[0].at < pair[1].at));
            let scored: BTreeSet<usize> = row.scored.iter().map(|p| p.at).collect();
            for (at, (&shown, &token)) in row.tokens.iter().zip(block).enumerate() {
                let Source::Text(shown) = shown else { panic!("a soft token") };
                match scored.contains(&at) {
                    false => assert_eq!(shown, token),
                    true if shown == 4 => as_mask += 1,
                    true if shown == token => as_is += 1,
                    true => _ = random.insert(shown),
                }
            }
            for p in &row.scored {
                assert_eq!(p.token, block[p.at]);
                times_scored[p.at] += 1;
            }
        }
        let n = 13.0 * epochs as f64;
        // five standard deviations of a binomial; a random token is the right one once in 95
        assert!((f64::from(as_mask) - 0.8 * n).abs() < 5.0 * (0.16 * n).sqrt(), "{as_mask} of {n}");
        let kept = 0.1 + 0.1 / 95.0;
        assert!((f64::from(as_is) - kept * n).abs() < 5.0 * (kept * n).sqrt(), "{as_is} of {n}");
        // every token that is not special, and no other
        assert_eq!(random, (5..100).collect());
        for (at, &times) in times_scored.iter().enumerate() {
            let expected = if block[at] < 5 { 0.0 } else { epochs as f64 * 13.0 / 85.0 };
            assert!((f64::from(times) - expected).abs() <= 5.0 * expected.sqrt(), "{at}: {times}");
        }
    }

    #[test]
    fn a_row_depends_on_seed_epoch_and_index_alone() {
        let documents: Vec<Vec<u32>> = (0..10).map(|_| (5..60).collect()).collect();
        let masked = Masked::new(&documents, vocabulary(), 57, 7);
        assert_eq!(masked.row(3, 5), masked.clone().row(3, 5));
        let other = Masked { seed: 8, ..masked.clone() };
        let rows = [masked.row(3, 5), masked.row(3, 6), masked.row(4, 5), other.row(3, 5)];
        assert!((0..4).all(|i| (0..i).all(|j| rows[i] != rows[j])));
    }

    #[test]
    fn a_short_block_scores_one_token_and_one_without_text_is_left_out() {
        let masked = Masked::new(&[vec![9], vec![1, 4]], vocabulary(), 4, 7);
        assert_eq!(masked.blocks, [[2, 9, 3]]);
        assert_eq!(masked.row(0, 0).scored, [Prediction { at: 1, token: 9 }]);
    }
}
