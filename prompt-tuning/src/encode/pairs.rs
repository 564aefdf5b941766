//! Rows without a task: the soft prompt in front of what the file has.

use autograd::ops::Source;
use model::{Family, Prediction, Row};
use rayon::prelude::*;

use super::form::{answered, continuation};
use super::{Encode, Reader, in_order};
use crate::data::{Content, Dataset, Pair};
use crate::error::{Error, Result};

/// Encodes rows without a task.
pub struct PairEncoder<'a> {
    /// Needed for rows of text.
    pub tokenizer: Option<&'a dyn Encode>,
    /// Virtual tokens in front of every row.
    pub n_soft: usize,
    /// What the model can read.
    pub reader: Reader<'a>,
}

impl PairEncoder<'_> {
    /// One row per pair: its completion or its masks are scored. Weights are 1.
    ///
    /// # Errors
    /// Rows of text without a tokenizer; [`Error::Data`] for rows of another family, ids outside the vocabulary and
    /// rows that do not fit.
    pub fn rows(&self, data: &Dataset<Pair>) -> Result<Vec<Row>> {
        self.reader.check_soft(self.n_soft).map_err(Error::Input)?;
        in_order(data.rows.par_iter().map(|pair| {
            let row = self.row(&pair.content)?.and_then(|row| self.reader.check(row));
            row.map_err(|why| data.error(pair.line, why))
        }))
    }

    /// The inner error is about the row, the outer about the whole file.
    fn row(&self, content: &Content) -> Result<Result<Row, String>> {
        let soft = (0..self.n_soft as u32).map(Source::Soft);
        let front = |ids: &[u32]| soft.chain(ids.iter().map(|&id| Source::Text(id))).collect::<Vec<_>>();
        Ok(match (self.reader.family, content) {
            (Family::Masked, Content::Masked { ids, masks }) => {
                let scored = masks.iter().map(|&(at, token)| Prediction { at: self.n_soft + at, token });
                Ok(Row { encoder: Vec::new(), tokens: front(ids), scored: scored.collect(), weight: 1.0 })
            }
            (Family::Masked, _) => {
                Err("the model is a masked one; a row needs `ids`, `mask_positions` and `labels`, or \
                 the file needs a --task"
                    .into())
            }
            (_, Content::Masked { .. }) => {
                Err("`mask_positions` needs a masked model; this one takes `prompt_ids` and `completion_ids`"
                    .into())
            }
            (Family::Seq2Seq, Content::Ids { prompt, completion }) => {
                answered(front(prompt), self.reader.decoder_start, completion)
            }
            (_, Content::Ids { prompt, completion }) => continuation(front(prompt), completion),
            (_, Content::Text { prompt, completion }) => {
                let why = "the model folder has no tokenizer.json; rows of text need one, rows of ids do not";
                let tokenizer = self.tokenizer.ok_or_else(|| Error::Input(why.into()))?;
                let front = front(&tokenizer.encode(prompt, true)?);
                match self.reader.family {
                    // a text of its own, with its end
                    Family::Seq2Seq => {
                        answered(front, self.reader.decoder_start, &tokenizer.encode(completion, true)?)
                    }
                    _ => continuation(front, &tokenizer.encode_continuation(completion)?),
                }
            }
        })
    }
}
