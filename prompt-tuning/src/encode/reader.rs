//! What a model can read: its family, its context window, its vocabulary; and of a classifier, what it answers.

use autograd::ops::Source;
use model::{Config, Family, Row};

/// What a model can read, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader<'a> {
    /// How it reads, and where it answers.
    pub family: Family,
    /// Length of the context window, in tokens.
    pub n_positions: usize,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// What every row of a decoder behind an encoder begins with.
    pub decoder_start: u32,
    /// The labels of a classifier, by the token that stands for each.
    pub labels: Option<&'a [String]>,
}

impl<'a> Reader<'a> {
    /// Of a model.
    pub fn of(config: &'a Config) -> Reader<'a> {
        let Config { architecture, n_positions, vocab_size, seq2seq, .. } = *config;
        let decoder_start = seq2seq.map_or(0, |seq2seq| seq2seq.decoder_start_token_id);
        let labels = config.labels.as_deref();
        Reader { family: architecture.family(), n_positions, vocab_size, decoder_start, labels }
    }

    /// The row, if the model can read it. Its scored tokens count as answer tokens, whatever stands for them; a classifier's
    /// answer has none.
    pub(super) fn check(self, row: Row) -> Result<Row, String> {
        let n_soft = row.sources().filter(|source| matches!(source, Source::Soft(_))).count();
        if row.len() > self.n_positions {
            let (sum, n_answer) = (row.len(), if self.labels.is_some() { 0 } else { row.scored.len() });
            let n_text = sum - n_soft - n_answer;
            return Err(format!(
                "{n_soft} soft + {n_text} text + {n_answer} answer tokens = {sum}, but the context window of the model \
                 is {} tokens; shorten the text or the soft prompt",
                self.n_positions
            ));
        }
        let read = row.sources().filter_map(|source| match source {
            Source::Text(id) => Some(id),
            Source::Soft(_) => None,
        });
        let answer = row.scored.iter().map(|p| p.token).filter(|_| self.labels.is_none());
        let mut all = read.chain(answer);
        let outside = all.find(|&id| id as usize >= self.vocab_size);
        drop(all);
        match outside {
            Some(id) => Err(format!(
                "token id {id} is outside the vocabulary of the model ({} tokens)",
                self.vocab_size
            )),
            None => Ok(row),
        }
    }

    /// That soft tokens leave room for one more, said before anything of their size is made.
    pub(super) fn check_soft(self, n_soft: usize) -> Result<(), String> {
        match n_soft < self.n_positions {
            true => Ok(()),
            false => Err(format!(
                "{n_soft} soft tokens leave no room for text in the context window of {} tokens; use fewer",
                self.n_positions
            )),
        }
    }
}
