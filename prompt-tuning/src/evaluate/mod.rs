//! Measuring a model on the data of a task: [`labels`] where an answer is one of some, [`texts`] where the model writes it.

pub mod labels;
pub mod plain;
pub mod texts;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use model::{LanguageModel, Row, Tokenizer};
use rayon::prelude::*;
use serde_json::{Map, Value};

pub use self::labels::{ContentFree, Question, Tokens, token_log_probs};
pub use self::texts::{OpenQuestion, mean_loss, perplexity};
use crate::data::{Dataset, Example};
use crate::encode::{Demonstration, TaskEncoder};
use crate::error::{Error, Result};
use crate::soft_prompt::SoftPrompt;
use crate::task::{Answers, Task};
use crate::verbalizer::{Answer, Calibration};

/// A frozen model, what stands in front of its texts, and how many of them it reads at a time.
#[derive(Clone, Copy)]
pub struct Examinee<'a> {
    /// The model.
    pub model: &'a LanguageModel,
    /// Its soft prompt or prefix.
    pub prompt: Option<&'a SoftPrompt>,
    /// Needed where it writes texts.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Questions at one time.
    pub batch: usize,
}

/// What a task asks about a data set.
#[derive(Clone, Debug, PartialEq)]
pub enum Exam {
    /// Which label.
    Labels(Vec<Question>),
    /// A text.
    Texts(Vec<OpenQuestion>),
}

/// What was answered, question by question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answered {
    /// Labels.
    Labels(Vec<Answer>),
    /// Texts.
    Texts(Vec<String>),
}

impl Exam {
    /// One question per example, each after its demonstrations. Inputs without content are there if the scoring of the
    /// task is calibrated.
    ///
    /// # Errors
    /// [`Error::Data`] for the first example that cannot be asked.
    pub fn new<'d>(
        encoder: &TaskEncoder,
        data: &Dataset<Example>,
        demonstrations: impl Fn(usize) -> &'d [Demonstration] + Sync,
    ) -> Result<Exam> {
        let task = encoder.task();
        let open = |i: usize, example: &Example| OpenQuestion::new(encoder, example, demonstrations(i));
        match task.answers {
            Answers::Labels(_) => {
                let calibrated = task.scoring.calibration != Calibration::None;
                Ok(Exam::Labels(questions(encoder, data, calibrated, demonstrations)?))
            }
            Answers::Text(_) => Ok(Exam::Texts(each(data, open)?)),
        }
    }

    /// Number of questions.
    pub fn len(&self) -> usize {
        match self {
            Exam::Labels(questions) => questions.len(),
            Exam::Texts(questions) => questions.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The model's answers; `progress` is told how many questions are done.
    ///
    /// # Errors
    /// A model that does not write texts, or whose numbers are not numbers.
    pub fn answered(&self, task: &Task, examinee: Examinee, progress: impl FnMut(usize)) -> Result<Answered> {
        match (self, &task.answers) {
            (Exam::Texts(questions), Answers::Text(text)) => {
                Ok(Answered::Texts(texts::write(questions, text, examinee, progress)?))
            }
            (Exam::Labels(questions), _) => {
                let answers = labels::answer(&task.scoring, questions, examinee, progress);
                if answers.iter().flat_map(|a| &a.log_probs).any(|lp| lp.is_nan()) {
                    return Err(not_finite(examinee.model));
                }
                Ok(Answered::Labels(answers))
            }
            (Exam::Texts(_), Answers::Labels(_)) => unreachable!("an exam is made for its task"),
        }
    }

    /// All metrics by name; `None` when no question has a right answer.
    pub fn metrics(&self, task: &Task, answered: &Answered) -> Option<Map<String, Value>> {
        let metrics = match (self, answered, &task.answers) {
            (Exam::Labels(questions), Answered::Labels(answers), _) => {
                let names: Vec<String> = task.labels().iter().map(|l| l.name.clone()).collect();
                serde_json::to_value(labels::metrics(&names, questions, answers)?)
            }
            (Exam::Texts(questions), Answered::Texts(answers), Answers::Text(text)) => {
                serde_json::to_value(texts::metrics(text, questions, answers)?)
            }
            _ => return None,
        };
        metrics.ok()?.as_object().cloned()
    }
}

/// The right answer of each example as a row, after its demonstrations: what [`perplexity`] is computed of.
///
/// # Errors
/// [`Error::Data`] for the first example without a right answer, or with one that does not fit.
pub fn right_rows<'d>(
    encoder: &TaskEncoder,
    data: &Dataset<Example>,
    demonstrations: impl Fn(usize) -> &'d [Demonstration] + Sync,
) -> Result<Vec<Row>> {
    each(data, |i, example| encoder.right_row(example, demonstrations(i)))
}

/// One question about labels per example, each after its demonstrations; with its inputs without content if `calibrated`.
///
/// # Errors
/// [`Error::Data`] for the first example that cannot be asked.
pub fn questions<'d>(
    encoder: &TaskEncoder,
    data: &Dataset<Example>,
    calibrated: bool,
    demonstrations: impl Fn(usize) -> &'d [Demonstration] + Sync,
) -> Result<Vec<Question>> {
    // one set of rows for all examples that have the same demonstrations, which are then in the same place
    let mut free: HashMap<(usize, usize), ContentFree> = HashMap::new();
    for (i, example) in data.rows.iter().enumerate().filter(|_| calibrated) {
        let demonstrations = demonstrations(i);
        if let Entry::Vacant(place) = free.entry(address(demonstrations)) {
            let rows = labels::content_free(encoder, demonstrations);
            place.insert(rows.map_err(|why| data.error(example.line, why))?);
        }
    }
    let nothing = ContentFree::default();
    each(data, |i, example| {
        let demonstrations = demonstrations(i);
        let free = free.get(&address(demonstrations)).unwrap_or(&nothing);
        Question::new(encoder, example, demonstrations, free)
    })
}

/// Where they begin is not enough: of one list the first two and the first four are not the same.
fn address(demonstrations: &[Demonstration]) -> (usize, usize) {
    (demonstrations.as_ptr() as usize, demonstrations.len())
}

/// What a model computes is not a number, and why, if its weights are the reason.
pub fn not_finite(model: &LanguageModel) -> Error {
    let why = model.explain_non_finite();
    Error::Failure(why.unwrap_or_else(|| "the model's output is not a number".into()))
}

/// `ask` of every example, or the error of the first that cannot be asked.
fn each<T: Send>(
    data: &Dataset<Example>,
    ask: impl Fn(usize, &Example) -> Result<T, String> + Sync,
) -> Result<Vec<T>> {
    let rows = data.rows.par_iter().enumerate();
    let asked = rows.map(|(i, e)| ask(i, e).map_err(|why| data.error(e.line, why)));
    asked.collect::<Vec<_>>().into_iter().collect()
}
