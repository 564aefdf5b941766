//! From rows of text to rows of tokens: what the model reads, and which of its tokens are scored.
//!
//! * With a task: the rendered template, then an answer of the label. The special token that the tokenizer puts in
//!   front of a text (Llama's BOS) goes before the first *text* of the template: a soft prompt at the very front comes
//!   before it, as in PEFT, which prepends the prompt to a text that is tokenized already.
//! * Without: the soft prompt, the prompt as the tokenizer makes it (special tokens included), the completion without
//!   special tokens. Raw ids are used as they are.
//!
//! Answers and completions are tokenized on their own and appended.

use std::ops::Range;

use autograd::ops::Source;
use model::forest::Row;
use rayon::prelude::*;

use crate::data::{Content, Dataset, Example, Pair};
use crate::error::{Error, Result};
use crate::task::Task;
use crate::template::{Segment, Soft, Template};

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
}

impl Encode for model::Tokenizer {
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        Ok(model::Tokenizer::encode(self, text, add_special_tokens)?)
    }

    fn encode_continuation(&self, text: &str) -> Result<Vec<u32>> {
        Ok(model::Tokenizer::encode_continuation(self, text)?)
    }
}

/// What a model can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of the context window, in tokens.
    pub n_positions: usize,
    /// Token ids are below this.
    pub vocab_size: usize,
}

/// An answer of the verbalizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Index into the task's labels.
    pub label: usize,
    /// Index into the label's answers.
    pub answer: usize,
    /// Its tokens, not empty.
    pub tokens: Vec<u32>,
}

/// Encodes the examples of a task.
pub struct TaskEncoder<'a> {
    tokenizer: &'a dyn Encode,
    limits: Limits,
    template: &'a Template,
    /// What the tokenizer puts in front of a text.
    beginning: Vec<u32>,
    /// The virtual tokens of each soft part.
    soft: Vec<Range<u32>>,
    /// For soft parts given as words: which part, and the words' tokens.
    words: Vec<(usize, Vec<u32>)>,
    candidates: Vec<Candidate>,
}

impl<'a> TaskEncoder<'a> {
    /// Tokenizes what all examples have in common.
    ///
    /// # Errors
    /// A template that a causal model cannot use, words or answers without tokens.
    pub fn new(task: &'a Task, tokenizer: &'a dyn Encode, limits: Limits) -> Result<TaskEncoder<'a>> {
        let wrong = |why: String| Error::Input(format!("task `{}`: {why}", task.name));
        task.template.check_causal().map_err(|why| wrong(format!("template: {why}")))?;
        let (mut soft, mut words, mut next) = (Vec::new(), Vec::new(), 0);
        for (i, part) in task.template.soft().enumerate() {
            let n = match part {
                Soft::Count(n) => *n as u32,
                Soft::Words(text) => {
                    let tokens = tokenizer.encode(text, false)?;
                    let n = tokens.len() as u32;
                    words.push((i, tokens));
                    n
                }
            };
            if n == 0 {
                return Err(wrong("the words of a soft part have no tokens in this vocabulary".into()));
            }
            soft.push(next..next + n);
            next += n;
            check_soft(next as usize, limits).map_err(wrong)?;
        }
        let beginning = beginning(tokenizer)?;
        let candidates = candidates(task, tokenizer)?;
        if let Some(empty) = candidates.iter().find(|c| c.tokens.is_empty()) {
            let answer = &task.labels[empty.label].answers[empty.answer];
            return Err(wrong(format!("answer {answer:?} has no tokens in this vocabulary")));
        }
        Ok(TaskEncoder { tokenizer, limits, template: &task.template, beginning, soft, words, candidates })
    }

    /// Virtual tokens of the template.
    pub fn n_soft(&self) -> usize {
        self.soft.last().map_or(0, |range| range.end as usize)
    }

    /// The virtual tokens that the template starts from words, and the tokens of those words.
    pub fn soft_words(&self) -> Vec<(Range<usize>, Vec<u32>)> {
        let range = |i: usize| self.soft[i].start as usize..self.soft[i].end as usize;
        self.words.iter().map(|(i, tokens)| (range(*i), tokens.clone())).collect()
    }

    /// All answers, label by label in the order of the task.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Tokens of the answers, the first answer of every label before any second: what [`crate::init::Init::Labels`]
    /// starts from.
    pub fn label_tokens(&self) -> Vec<Vec<u32>> {
        let mut candidates: Vec<&Candidate> = self.candidates.iter().collect();
        candidates.sort_by_key(|c| c.answer);
        candidates.into_iter().map(|c| c.tokens.clone()).collect()
    }

    /// One row per example: the first answer of its label is scored. Weights are 1.
    ///
    /// # Errors
    /// [`Error::Data`]: an example without label, or one that does not fit the context window.
    pub fn training_rows(&self, data: &Dataset<Example>) -> Result<Vec<Row>> {
        in_order(data.rows.par_iter().map(|example| {
            let candidate = self.candidates.iter().find(|c| Some(c.label) == example.label && c.answer == 0);
            let candidate = candidate.ok_or_else(|| data.error(example.line, "it has no label".into()))?;
            let front = self.front(data, example)?;
            self.row(&front, candidate).map_err(|why| data.error(example.line, why))
        }))
    }

    /// The rows of each example: one per candidate, in the order of [`TaskEncoder::candidates`]. Weights are 1.
    ///
    /// # Errors
    /// [`Error::Data`] for an example that does not fit the context window.
    pub fn scoring_rows(&self, data: &Dataset<Example>) -> Result<Vec<Vec<Row>>> {
        in_order(data.rows.par_iter().map(|example| {
            let front = self.front(data, example)?;
            let row = |candidate| self.row(&front, candidate).map_err(|why| data.error(example.line, why));
            self.candidates.iter().map(row).collect()
        }))
    }

    /// Everything before the answer.
    fn front(&self, data: &Dataset<Example>, example: &Example) -> Result<Vec<Source>> {
        let segments = self.template.render(|name| example.fields.get(name).map(String::as_str));
        let segments =
            segments.map_err(|name| data.error(example.line, format!("there is no field `{name}`")))?;
        let mut front = Vec::new();
        let mut beginning = Some(&self.beginning);
        for segment in segments {
            match segment {
                Segment::Soft(i) => front.extend(self.soft[i].clone().map(Source::Soft)),
                Segment::Text(text) => {
                    let ids = match beginning.take() {
                        Some(beginning) => {
                            [beginning.as_slice(), &self.tokenizer.encode(&text, false)?].concat()
                        }
                        None => self.tokenizer.encode_continuation(&text)?,
                    };
                    front.extend(ids.into_iter().map(Source::Text));
                }
            }
        }
        // a template without text: the answer is the first text
        front.extend(beginning.into_iter().flatten().map(|&id| Source::Text(id)));
        Ok(front)
    }

    fn row(&self, front: &[Source], candidate: &Candidate) -> Result<Row, String> {
        row(front.to_vec(), &candidate.tokens, self.limits)
    }
}

/// Encodes rows without a task.
pub struct PairEncoder<'a> {
    /// Needed for rows of text.
    pub tokenizer: Option<&'a dyn Encode>,
    /// Virtual tokens in front of every row.
    pub n_soft: usize,
    /// What the model can read.
    pub limits: Limits,
}

impl PairEncoder<'_> {
    /// One row per pair: its completion is scored. Weights are 1.
    ///
    /// # Errors
    /// Rows of text without a tokenizer; [`Error::Data`] for ids outside the vocabulary and rows that do not fit.
    pub fn rows(&self, data: &Dataset<Pair>) -> Result<Vec<Row>> {
        check_soft(self.n_soft, self.limits).map_err(Error::Input)?;
        in_order(data.rows.par_iter().map(|pair| {
            let (prompt, completion) = self.ids(&pair.content)?;
            let soft = (0..self.n_soft as u32).map(Source::Soft);
            let front = soft.chain(prompt.into_iter().map(Source::Text)).collect();
            row(front, &completion, self.limits).map_err(|why| data.error(pair.line, why))
        }))
    }

    fn ids(&self, content: &Content) -> Result<(Vec<u32>, Vec<u32>)> {
        match content {
            Content::Ids { prompt, completion } => Ok((prompt.clone(), completion.clone())),
            Content::Text { prompt, completion } => {
                let why = "the model folder has no tokenizer.json; rows of text need one, rows of ids do not";
                let tokenizer = self.tokenizer.ok_or_else(|| Error::Input(why.into()))?;
                Ok((tokenizer.encode(prompt, true)?, tokenizer.encode_continuation(completion)?))
            }
        }
    }
}

/// `front` and then `answer`, which is scored.
fn row(front: Vec<Source>, answer: &[u32], limits: Limits) -> Result<Row, String> {
    let n_soft = front.iter().filter(|source| matches!(source, Source::Soft(_))).count();
    let (n_text, n_answer) = (front.len() - n_soft, answer.len());
    if answer.is_empty() {
        return Err("the completion has no tokens in this vocabulary; there is nothing to score".into());
    }
    if front.is_empty() {
        return Err(
            "nothing is in front of the completion; a causal model needs at least one token there".into()
        );
    }
    if front.len() + n_answer > limits.n_positions {
        let sum = front.len() + n_answer;
        return Err(format!(
            "{n_soft} soft + {n_text} text + {n_answer} answer tokens = {sum}, but the context window of the model is \
             {} tokens; shorten the text or the soft prompt",
            limits.n_positions
        ));
    }
    let scored = front.len()..front.len() + n_answer;
    let mut tokens = front;
    tokens.extend(answer.iter().map(|&id| Source::Text(id)));
    let outside = tokens.iter().find_map(|source| match *source {
        Source::Text(id) if id as usize >= limits.vocab_size => Some(id),
        _ => None,
    });
    match outside {
        Some(id) => Err(format!(
            "token id {id} is outside the vocabulary of the model ({} tokens)",
            limits.vocab_size
        )),
        None => Ok(Row { tokens, scored, weight: 1.0 }),
    }
}

/// That soft tokens leave room for one more, said before anything of their size is made.
fn check_soft(n_soft: usize, limits: Limits) -> Result<(), String> {
    match n_soft < limits.n_positions {
        true => Ok(()),
        false => Err(format!(
            "{n_soft} soft tokens leave no room for text in the context window of {} tokens; use fewer",
            limits.n_positions
        )),
    }
}

/// The special tokens that the tokenizer puts in front of a text.
fn beginning(tokenizer: &dyn Encode) -> Result<Vec<u32>> {
    let (plain, mut whole) = (tokenizer.encode("a", false)?, tokenizer.encode("a", true)?);
    let at = whole.windows(plain.len().max(1)).position(|window| window == plain);
    whole.truncate(at.unwrap_or(0));
    Ok(whole)
}

fn candidates(task: &Task, tokenizer: &dyn Encode) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for (label, l) in task.labels.iter().enumerate() {
        for (answer, text) in l.answers.iter().enumerate() {
            candidates.push(Candidate { label, answer, tokens: tokenizer.encode_continuation(text)? });
        }
    }
    Ok(candidates)
}

/// The results in order, or the error of the first row that has one, whichever thread met one first.
fn in_order<T: Send>(rows: impl IndexedParallelIterator<Item = Result<T>>) -> Result<Vec<T>> {
    rows.collect::<Vec<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests;
