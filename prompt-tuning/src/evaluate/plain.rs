//! Plain text, without a task: how well a model predicts it, with or without a prompt in front. What adaptation does to it is
//! what the model forgets.

use model::{Family, Prediction, Row, Source};

use crate::encode::Encode;
use crate::error::{Error, Result};
use crate::pretrain::blocks::{self, Masked, Rest, Vocabulary};

/// What rows of plain text are made for.
pub struct Layout<'a> {
    /// Whether every token is scored, or the masked ones.
    pub family: Family,
    /// Tokens of text in a row.
    pub context: usize,
    /// Soft tokens in front of each.
    pub n_soft: usize,
    /// What follows a document of a causal model.
    pub end: u32,
    /// Of a masked model.
    pub vocabulary: Option<Vocabulary>,
    /// Tokenizer of the model.
    pub tokenizer: &'a dyn Encode,
}

/// Draws the masks of every measurement, so that all models with one vocabulary are asked the same.
const MASKS_SEED: u64 = 0;

impl Layout<'_> {
    /// The documents as rows that score their tokens: of causal models all but the first of a row, of masked ones those that
    /// are masked.
    ///
    /// # Errors
    /// A model with an encoder and a decoder, a masked one without its vocabulary, or a window too small for text.
    pub fn rows(&self, documents: &[String]) -> Result<Vec<Row>> {
        let least = 3; // [CLS], a token, [SEP]
        if self.context < least {
            let why = format!("a context of {} tokens leaves no room for text", self.context);
            return Err(Error::Input(why));
        }
        let documents = blocks::encode(self.tokenizer, documents)?;
        let rows = match (self.family, &self.vocabulary) {
            (Family::Causal, _) => blocks::causal_rows(&documents, self.end, self.context, Rest::Keep),
            (Family::Masked, Some(vocabulary)) => {
                let masked = Masked::new(&documents, vocabulary.clone(), self.context, MASKS_SEED);
                (0..masked.blocks.len()).map(|i| masked.row(i, 0)).collect()
            }
            (family, _) => {
                return Err(Error::Input(format!("rows of plain text are not made for {family:?} models")));
            }
        };
        Ok(rows.into_iter().map(|row| self.prompted(row)).collect())
    }

    /// Soft tokens in front of a row's text; behind the `[CLS]` of a masked model, as a template has them.
    fn prompted(&self, mut row: Row) -> Row {
        let at = usize::from(self.family == Family::Masked);
        row.tokens.splice(at..at, (0..self.n_soft as u32).map(Source::Soft));
        let moved = |p: Prediction| Prediction { at: if p.at < at { p.at } else { p.at + self.n_soft }, ..p };
        row.scored = row.scored.into_iter().map(moved).collect();
        row
    }
}
