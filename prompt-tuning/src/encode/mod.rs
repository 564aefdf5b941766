//! From rows of text to rows of tokens: what the model reads, and which of its tokens are scored.
//!
//! * With a task: the rendered template with the answer of a label in it or after it; `form` says how, by family of
//!   model. The special token that the tokenizer puts in front of a text (Llama's BOS, BERT's `[CLS]`) goes before the
//!   first *text* of the template: a soft prompt at the very front comes before it, as in PEFT, which prepends the
//!   prompt to a text that is tokenized already. What it puts behind a text (`[SEP]`) ends the row, unless the model is
//!   causal: there the text goes on.
//!   An encoder-decoder model reads the template in its encoder and answers in its decoder.
//! * Without (`pairs`): the soft prompt, then the text as the tokenizer makes it, special tokens included, or raw ids
//!   as they are.
//!
//! Answers and completions are tokenized on their own.

mod context;
mod form;
mod pairs;
mod reader;
mod tokenizer;

use std::ops::Range;

use autograd::ops::Source;
use model::{ChatTemplate, Family, Row};
use rayon::prelude::*;

pub use self::context::Demonstration;
use self::form::{Form, Piece};
pub use self::pairs::PairEncoder;
pub use self::reader::Reader;
pub use self::tokenizer::Encode;
use crate::data::{Dataset, Example};
use crate::error::{Error, Result};
use crate::task::{Answers, Label, Task};
use crate::template::{Filled, Part, Segment, SoftStart};

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
    reader: Reader<'a>,
    form: Form,
    task: &'a Task,
    chat: Option<ChatTemplate>,
    /// What the tokenizer puts in front of a text and behind it.
    around: [Vec<u32>; 2],
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
    /// A template that the model's family cannot use, words or answers that this vocabulary does not have, labels that are not
    /// those of a classifier.
    pub fn new(task: &'a Task, tokenizer: &'a dyn Encode, reader: Reader<'a>) -> Result<TaskEncoder<'a>> {
        TaskEncoder::in_chat(task, tokenizer, reader, None)
    }

    /// As [`TaskEncoder::new`], everything told as turns of a chat if there is a template for one.
    ///
    /// # Errors
    /// As [`TaskEncoder::new`], and a template of the task that goes on after its answer.
    pub fn in_chat(
        task: &'a Task,
        tokenizer: &'a dyn Encode,
        reader: Reader<'a>,
        chat: Option<ChatTemplate>,
    ) -> Result<TaskEncoder<'a>> {
        let wrong = |why: String| Error::Input(format!("task `{}`: {why}", task.name));
        let around = around(tokenizer)?;
        let form = Form::new(reader, tokenizer, &task.template, &around[1]).map_err(wrong)?;
        form.check(&task.template).map_err(|why| wrong(format!("template: {why}")))?;
        if let Answers::Text(_) = task.answers {
            form.check_open(&task.template).map_err(wrong)?;
        }
        if chat.is_some() && !matches!(task.template.parts().last(), Some(Part::Answer(_))) {
            let why = "template: something follows its answer; in a chat the answer comes at the end";
            return Err(wrong(why.into()));
        }
        let (mut soft, mut words, mut next) = (Vec::new(), Vec::new(), 0);
        for (i, part) in task.template.soft().iter().enumerate() {
            let n = match &part.start {
                SoftStart::Count(n) => *n as u32,
                SoftStart::Words(text) => {
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
            reader.check_soft(next as usize).map_err(wrong)?;
        }
        let candidates = match reader.labels {
            Some(labels) => labelled(task, labels).map_err(wrong)?,
            None => candidates(task, tokenizer, &form, chat.is_some())?,
        };
        Ok(TaskEncoder { tokenizer, reader, form, task, chat, around, soft, words, candidates })
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

    /// What it encodes for.
    pub fn task(&self) -> &'a Task {
        self.task
    }

    /// All answers, label by label in the order of the task; none where an answer is a text of its own.
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

    /// One row per example: the first answer of its label, or its text, is scored. Weights are 1.
    ///
    /// # Errors
    /// [`Error::Data`]: an example without label or answer, or one that does not fit the context window.
    pub fn training_rows(&self, data: &Dataset<Example>) -> Result<Vec<Row>> {
        let row = |e: &Example| self.right_row(e, &[]).map_err(|why| data.error(e.line, why));
        in_order(data.rows.par_iter().map(row))
    }

    /// An example after demonstrations with what is right as its answer, all of whose tokens are scored with weight 1.
    ///
    /// # Errors
    /// An example without label or answer, or one that does not fit the context window.
    pub fn right_row(&self, example: &Example, demonstrations: &[Demonstration]) -> Result<Row, String> {
        let answer = self.right_answer(example)?;
        self.row(&self.read(example, demonstrations, answer.len())?, &answer)
    }

    /// One row per candidate, in the order of [`TaskEncoder::candidates`], for an example after demonstrations. Weights
    /// are 1.
    ///
    /// # Errors
    /// A field that is not there, or an example that does not fit the context window.
    pub fn candidate_rows(
        &self,
        example: &Example,
        demonstrations: &[Demonstration],
    ) -> Result<Vec<Row>, String> {
        let pieces = self.read(example, demonstrations, self.longest_answer())?;
        self.candidates.iter().map(|c| self.row(&pieces, &c.tokens)).collect()
    }

    /// What the model is given to answer with a text of its own.
    ///
    /// # Errors
    /// As [`TaskEncoder::candidate_rows`]; the whole answer must fit as well.
    pub fn open_row(
        &self,
        example: &Example,
        demonstrations: &[Demonstration],
    ) -> Result<Vec<Source>, String> {
        let pieces = self.read(example, demonstrations, self.longest_answer())?;
        let n = self.reader.check(self.form.row(&pieces, &vec![0; self.longest_answer()])?)?.len();
        debug_assert!(n <= self.reader.n_positions);
        let given = pieces.iter().filter_map(|piece| match piece {
            Piece::Token(source) => Some(*source),
            Piece::Answer(_) => None,
        });
        Ok(given.collect())
    }

    /// What stands before the first field after these demonstrations: what the model goes on from to write an example of
    /// its own. White space at its end is left out, for words begin with theirs.
    ///
    /// # Errors
    /// A field that a demonstration does not have; demonstrations that do not fit.
    pub fn opening(&self, demonstrations: &[Demonstration]) -> Result<Vec<Source>, String> {
        const MARK: &str = "\u{e000}";
        let marked =
            self.task.template.fill(|_| Some(MARK)).map_err(|name| format!("there is no field `{name}`"))?;
        let mut segments = context::segments(self.task, self.chat.as_ref(), demonstrations, &marked)?;
        let first = segments.iter().position(|s| matches!(s, Segment::Text(text) if text.contains(MARK)));
        segments.truncate(first.map_or(0, |first| first + 1));
        if let Some(Segment::Text(text)) = segments.last_mut() {
            let at = text.find(MARK).unwrap_or(0);
            text.truncate(text[..at].trim_end().len());
        }
        let tokens = self.tokens(segments)?.into_iter().filter_map(|piece| match piece {
            Piece::Token(source) => Some(source),
            Piece::Answer(_) => None,
        });
        Ok(tokens.collect())
    }

    /// Whether an example fits the context window after these demonstrations, with its longest answer and no field
    /// shortened.
    ///
    /// # Errors
    /// A field that is not there.
    pub fn fits(&self, example: &Example, demonstrations: &[Demonstration]) -> Result<bool, String> {
        let pieces = self.pieces(&self.filled(example)?, demonstrations)?;
        Ok(self.form.len(&pieces, self.longest_answer()) <= self.reader.n_positions)
    }

    /// Tokens of the longest answer.
    fn longest_answer(&self) -> usize {
        match &self.task.answers {
            Answers::Labels(_) => self.candidates.iter().map(|c| c.tokens.len()).max().unwrap_or(0),
            Answers::Text(text) => text.max_new_tokens,
        }
    }

    /// The tokens of what is right. A decoder ends a text by its end token, a text that goes on by its first stop string.
    fn right_answer(&self, example: &Example) -> Result<Vec<u32>, String> {
        let text = match &self.task.answers {
            Answers::Labels(_) => {
                let right = |c: &&Candidate| Some(c.label) == example.label && c.answer == 0;
                let candidate = self.candidates.iter().find(right).ok_or("it has no label")?;
                return Ok(candidate.tokens.clone());
            }
            Answers::Text(text) => text,
        };
        let answer = example.answer.as_deref().ok_or("it has no answer")?;
        let end = if self.form == Form::Causal { text.stop.first() } else { None };
        let whole = format!("{}{}", text.shown(answer), end.map_or("", String::as_str));
        let whole = if self.chat.is_some() { whole.trim_start() } else { &whole };
        let tokens = self.form.tokens(self.tokenizer, whole).map_err(|e| e.to_string())?;
        let checked = self.form.check_answer(&self.task.template, &tokens);
        checked.map_err(|why| format!("answer {answer:?} {why}"))?;
        Ok(tokens)
    }

    fn filled<'e>(&'e self, example: &'e Example) -> Result<Filled<'e>, String> {
        let field = |name: &str| example.fields.get(name).map(String::as_str);
        self.task.template.fill(field).map_err(|name| format!("there is no field `{name}`"))
    }

    /// The example after demonstrations, its answer of `n_answer` tokens still open. Where it does not fit the context
    /// window, the fields that may give way do.
    fn read(
        &self,
        example: &Example,
        demonstrations: &[Demonstration],
        n_answer: usize,
    ) -> Result<Vec<Piece>, String> {
        let filled = self.filled(example)?;
        let whole = self.pieces(&filled, demonstrations)?;
        let fits = |pieces: &[Piece]| self.form.len(pieces, n_answer) <= self.reader.n_positions;
        if fits(&whole) || !filled.can_shorten() {
            return Ok(whole);
        }
        let shorter = filled.shortened(|f| Ok::<_, String>(fits(&self.pieces(f, demonstrations)?)))?;
        shorter.map_or(Ok(whole), |shorter| self.pieces(&shorter, demonstrations))
    }

    fn pieces(&self, example: &Filled, demonstrations: &[Demonstration]) -> Result<Vec<Piece>, String> {
        let mut pieces =
            self.tokens(context::segments(self.task, self.chat.as_ref(), demonstrations, example)?)?;
        if self.reader.family != Family::Causal {
            let [_, after] = &self.around;
            pieces.extend(after.iter().map(|&id| Piece::Token(Source::Text(id))));
        }
        Ok(pieces)
    }

    /// The tokens of a text from its beginning on, without what ends it.
    fn tokens(&self, segments: Vec<Segment>) -> Result<Vec<Piece>, String> {
        let [before, _] = &self.around;
        let mut pieces: Vec<Piece> = Vec::new();
        let text = |ids: &[u32]| ids.iter().map(|&id| Piece::Token(Source::Text(id))).collect::<Vec<_>>();
        // a chat template writes the beginning of its text itself
        let mut beginning = Some(before).filter(|_| self.chat.is_none());
        for segment in segments {
            if let Segment::Soft(i) = segment {
                pieces.extend(self.soft[i].clone().map(|k| Piece::Token(Source::Soft(k))));
                continue;
            }
            let first = beginning.is_some();
            pieces.extend(beginning.take().into_iter().flat_map(|ids| text(ids)));
            match segment {
                Segment::Text(t) => {
                    let tokens = match first {
                        true => self.tokenizer.encode(&t, false),
                        false => self.tokenizer.encode_continuation(&t),
                    };
                    pieces.extend(text(&tokens.map_err(|e| e.to_string())?));
                }
                Segment::Answer(slot) => pieces.push(Piece::Answer(slot)),
                Segment::Soft(_) => {}
            }
        }
        Ok(pieces)
    }

    fn row(&self, pieces: &[Piece], answer: &[u32]) -> Result<Row, String> {
        self.reader.check(self.form.row(pieces, answer)?)
    }
}

/// The special tokens that the tokenizer puts in front of a text and behind it.
fn around(tokenizer: &dyn Encode) -> Result<[Vec<u32>; 2]> {
    let (plain, whole) = (tokenizer.encode("a", false)?, tokenizer.encode("a", true)?);
    let at = whole.windows(plain.len().max(1)).position(|window| window == plain);
    let (before, rest) = whole.split_at(at.unwrap_or(0));
    Ok([before.to_vec(), rest.strip_prefix(plain.as_slice()).unwrap_or_default().to_vec()])
}

/// The labels of a task as a classifier knows them: by the number that is their token.
fn labelled(task: &Task, labels: &[String]) -> Result<Vec<Candidate>, String> {
    let candidate = |(label, l): (usize, &Label)| {
        let token = labels.iter().position(|name| *name == l.name)? as u32;
        Some(Candidate { label, answer: 0, tokens: vec![token] })
    };
    let all: Option<Vec<Candidate>> = task.labels().iter().enumerate().map(candidate).collect();
    all.filter(|all| all.len() == labels.len()).ok_or_else(|| {
        let (ours, theirs) = (task.label_names(), labels.join(", "));
        format!(
            "its labels are {ours}, those of the classifier are {theirs}; they must be the same, in any order"
        )
    })
}

/// The answers of all labels. Strings that are the same to the tokenizer (by case or spaces) are one answer of a label.
fn candidates(task: &Task, tokenizer: &dyn Encode, form: &Form, in_chat: bool) -> Result<Vec<Candidate>> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for (label, l) in task.labels().iter().enumerate() {
        for (answer, text) in l.answers.iter().enumerate() {
            let tokens = form.tokens(tokenizer, if in_chat { text.trim_start() } else { text })?;
            match candidates.iter().find(|c| c.tokens == tokens) {
                None => {
                    check_answer(tokenizer, form, task, &tokens).map_err(|why| {
                        Error::Input(format!("task `{}`: answer {text:?} {why}", task.name))
                    })?;
                    candidates.push(Candidate { label, answer, tokens });
                }
                Some(same) if same.label == label => {}
                Some(same) => {
                    let other = &task.labels()[same.label];
                    return Err(Error::Input(format!(
                        "task `{}`: answer {text:?} of label `{}` has the same tokens in this vocabulary as {:?} of label \
                         `{}`; use another",
                        task.name, l.name, other.answers[same.answer], other.name
                    )));
                }
            }
        }
    }
    Ok(candidates)
}

/// That the vocabulary has the answer, and the template a place for it; the error continues a sentence about the answer.
fn check_answer(tokenizer: &dyn Encode, form: &Form, task: &Task, tokens: &[u32]) -> Result<(), String> {
    match tokenizer.unknown() {
        Some(unknown) if tokens.contains(&unknown) => {
            Err("has a word or character that this vocabulary does not have; use another".into())
        }
        _ => form.check_answer(&task.template, tokens),
    }
}

/// The results in order, or the error of the first row that has one, whichever thread met one first.
fn in_order<T: Send>(rows: impl IndexedParallelIterator<Item = Result<T>>) -> Result<Vec<T>> {
    rows.collect::<Vec<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests;
