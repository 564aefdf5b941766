//! Finding answer words for labels from training data: one word per label that the model itself would say.
//!
//! ```text
//! log p_i(w)                            of every word w of the vocabulary where the answer of example i belongs
//! s(w, c) = mean over i of c of log p_i(w) - mean over the other i       how much more likely the label makes the word
//! ```
//!
//! Words that hardly any text of the label makes likely are left out first; of the others, those with the highest `s` are
//! the candidates of a label (the likelihood ratio of Schick et al. 2020, "Automatically Identifying Words That Can Serve as
//! Labels"). Among the candidates the search changes one label's word at a time as long as more training examples are
//! answered rightly, or as many with a smaller loss (as Gao et al. 2021 prune theirs by accuracy). Only training data is
//! looked at: what the words are worth must be measured on other data.

use model::{Prediction, Row, Tokenizer};

use crate::data::{Dataset, Example};
use crate::encode::TaskEncoder;
use crate::error::{Error, Result};
use crate::evaluate::{Examinee, not_finite, token_log_probs};

/// A token that is a word of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its token.
    pub token: u32,
    /// Its text as an answer, with the space in front that it has in the vocabulary.
    pub text: String,
}

/// How the search goes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    /// Words per label that can be likely at all.
    pub likely: usize,
    /// Candidates per label.
    pub candidates: usize,
}

impl Default for Search {
    fn default() -> Search {
        Search { likely: 500, candidates: 50 }
    }
}

/// The words of a vocabulary: a space and letters, of which at least two, or a single character of a script without
/// spaces.
pub fn words(tokenizer: &Tokenizer, vocab_size: usize) -> Vec<Word> {
    let word = |token: u32| {
        let text = tokenizer.decode_continuation(&[token]).ok()?;
        let letters = text.strip_prefix(' ').unwrap_or(&text);
        let mut chars = letters.chars();
        let first = chars.next()?;
        let spaced =
            text.starts_with(' ') && chars.next().is_some() && letters.chars().all(char::is_alphabetic);
        let unspaced = letters == text && letters.chars().all(|c| ('\u{3400}'..='\u{9fff}').contains(&c));
        (first.is_alphabetic() && (spaced || unspaced)).then_some(Word { token, text })
    };
    let size = tokenizer.vocab_size().min(vocab_size) as u32;
    // a word must also be what its text becomes again
    let same = |word: &Word| tokenizer.encode_continuation(&word.text).is_ok_and(|ids| ids == [word.token]);
    (0..size).filter_map(word).filter(same).collect()
}

/// `log p` of every word where the answer of each example belongs, `[examples][words]`; `progress` is told how many
/// examples are done.
///
/// # Errors
/// An example that does not fit, a task without an answer of one token, or NaN from the model.
pub fn word_log_probs(
    encoder: &TaskEncoder,
    examinee: Examinee,
    data: &Dataset<Example>,
    words: &[Word],
    mut progress: impl FnMut(usize),
) -> Result<Vec<Vec<f32>>> {
    let open = encoder.candidates().iter().position(|c| c.tokens.len() == 1).ok_or_else(|| {
        let why =
            "no answer of the task is one token of this vocabulary; start with labels that have one that is";
        Error::Input(format!("task `{}`: {why}", encoder.task().name))
    })?;
    let row = |example: &Example| {
        let rows = encoder.candidate_rows(example, &[]).map_err(|why| data.error(example.line, why))?;
        let row = rows[open].clone();
        let at = row.scored[0].at;
        let scored = words.iter().map(|word| Prediction { at, token: word.token }).collect();
        Ok(Row { scored, ..row })
    };
    let mut all = Vec::with_capacity(data.rows.len());
    for part in data.rows.chunks(examinee.batch.max(1)) {
        let rows = part.iter().map(row).collect::<Result<Vec<Row>>>()?;
        all.extend(token_log_probs(examinee.model, examinee.prompt, &rows));
        progress(all.len());
    }
    match all.iter().flatten().any(|lp: &f32| lp.is_nan()) {
        true => Err(not_finite(examinee.model)),
        false => Ok(all),
    }
}

impl Search {
    /// A word for each label: indices into the words of `log_probs`, `[examples][words]`; `gold[i] < n_labels`.
    pub fn find(self, log_probs: &[Vec<f32>], gold: &[usize], n_labels: usize) -> Vec<usize> {
        let candidates: Vec<Vec<usize>> =
            (0..n_labels).map(|label| self.candidates_of(log_probs, gold, label)).collect();
        let mut chosen: Vec<usize> = Vec::new();
        for candidates in &candidates {
            let free = candidates.iter().find(|word| !chosen.contains(word));
            chosen.push(*free.or(candidates.first()).unwrap_or(&0));
        }
        let mut best = fitness(log_probs, gold, &chosen);
        loop {
            let before = best;
            for label in 0..n_labels {
                for &word in &candidates[label] {
                    if chosen.contains(&word) {
                        continue;
                    }
                    let old = std::mem::replace(&mut chosen[label], word);
                    let now = fitness(log_probs, gold, &chosen);
                    if now > best {
                        best = now;
                    } else {
                        chosen[label] = old;
                    }
                }
            }
            if best == before {
                return chosen;
            }
        }
    }

    /// The words that a label makes more likely than the others do, the best first.
    fn candidates_of(self, log_probs: &[Vec<f32>], gold: &[usize], label: usize) -> Vec<usize> {
        let n_words = log_probs.first().map_or(0, Vec::len);
        let mean = |of_label: bool, word: usize| {
            let rows = log_probs.iter().zip(gold).filter(|(_, gold)| (**gold == label) == of_label);
            let (sum, n) = rows.fold((0.0, 0), |(sum, n), (row, _)| (sum + f64::from(row[word]), n + 1));
            sum / f64::from(n.max(1))
        };
        let inside: Vec<f64> = (0..n_words).map(|word| mean(true, word)).collect();
        let mut likely: Vec<usize> = (0..n_words).collect();
        likely.sort_by(|&a, &b| inside[b].total_cmp(&inside[a]).then(a.cmp(&b)));
        likely.truncate(self.likely);
        let mut ranked: Vec<(usize, f64)> =
            likely.into_iter().map(|word| (word, inside[word] - mean(false, word))).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranked.into_iter().take(self.candidates).map(|(word, _)| word).collect()
    }
}

/// Examples answered rightly, then how small the loss among the labels is.
fn fitness(log_probs: &[Vec<f32>], gold: &[usize], chosen: &[usize]) -> (usize, f64) {
    let (mut right, mut gain) = (0, 0.0);
    for (row, &gold) in log_probs.iter().zip(gold) {
        let of = |label: usize| f64::from(row[chosen[label]]);
        let best = (1..chosen.len()).fold(0, |best, label| if of(label) > of(best) { label } else { best });
        right += usize::from(best == gold);
        let total: f64 = (0..chosen.len()).map(|label| of(label).exp()).sum();
        gain += of(gold) - total.ln();
    }
    (right, gain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four words, four examples: word 2 marks label 0, word 3 marks label 1, word 0 is always likely, word 1 never.
    fn log_probs() -> Vec<Vec<f32>> {
        let p =
            [[0.5, 0.001, 0.2, 0.1], [0.5, 0.001, 0.3, 0.1], [0.5, 0.001, 0.1, 0.2], [0.5, 0.002, 0.1, 0.3]];
        p.map(|row| row.map(f32::ln).to_vec()).to_vec()
    }

    #[test]
    fn words_that_a_label_makes_likely_are_found() {
        let gold = [0, 0, 1, 1];
        assert_eq!(Search::default().find(&log_probs(), &gold, 2), [2, 3]);
        let swapped = [1, 1, 0, 0];
        assert_eq!(Search::default().find(&log_probs(), &swapped, 2), [3, 2]);
        // two words for two labels, even where only one can be a candidate
        let few = Search { likely: 2, candidates: 1 };
        assert_eq!(few.find(&log_probs(), &gold, 2).len(), 2);
    }

    #[test]
    fn the_search_never_loses_what_it_had() {
        let mut rng = crate::rng::Rng::new(3);
        for _ in 0..50 {
            let n_labels = 2 + rng.below(3);
            let row = |rng: &mut crate::rng::Rng| (0..30).map(|_| -(rng.uniform() as f32) * 5.0).collect();
            let log_probs: Vec<Vec<f32>> = (0..20).map(|_| row(&mut rng)).collect();
            let gold: Vec<usize> = (0..20).map(|i| i % n_labels).collect();
            let search = Search { likely: 20, candidates: 8 };
            let found = search.find(&log_probs, &gold, n_labels);
            let first: Vec<usize> =
                (0..n_labels).map(|label| search.candidates_of(&log_probs, &gold, label)[0]).collect();
            assert!(
                has_twins(&first) || fitness(&log_probs, &gold, &found) >= fitness(&log_probs, &gold, &first)
            );
            assert!(!has_twins(&found), "{found:?}");
        }
    }

    fn has_twins(words: &[usize]) -> bool {
        (1..words.len()).any(|i| words[..i].contains(&words[i]))
    }
}
