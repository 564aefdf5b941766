//! Choosing between labels: every answer string of every label is scored whole, in the same text.
//!
//! The candidates of an example are children of one node of the prefix forest, so the text is computed once for all
//! of them; the soft prompt, the instruction and the demonstrations that questions have in common are computed once for
//! the whole batch, and so are the inputs without content that calibration needs. What the numbers then mean is said in
//! [`crate::verbalizer`].

use std::collections::HashSet;
use std::ops::AddAssign;
use std::sync::Arc;

use autograd::Tape;
use kernels::threads::on_pool;
use model::{LanguageModel, PackedBatch, Row};
use serde::Serialize;

use super::Examinee;
use crate::data::Example;
use crate::encode::{Demonstration, TaskEncoder};
use crate::soft_prompt::SoftPrompt;
use crate::study::metrics::scored;
use crate::study::statistics::Baselines;
use crate::verbalizer::{Answer, Form, Scoring};

/// A text, and what could stand after it.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Index of the right label, where it is known.
    pub gold: Option<usize>,
    /// All answers of all labels.
    pub candidates: Vec<Candidate>,
    /// The answers after each input without content, in the order of `candidates`; empty where no calibration needs them.
    pub content_free: ContentFree,
}

/// The rows of each input without content: the same for all texts after the same demonstrations.
pub type ContentFree = Arc<Vec<Vec<Row>>>;

/// One answer string after a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Index of the label it stands for.
    pub label: usize,
    /// The text and the answer, whose tokens are scored.
    pub row: Row,
}

/// What the model says to a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// `log p` of each candidate, the sum over its tokens.
    pub log_probs: Vec<f64>,
    /// The same after each input without content.
    pub content_free: Vec<Vec<f64>>,
}

/// How many tokens an evaluation computed, and how many it would have without sharing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the forests.
    pub computed: u64,
    /// Of all questions, each alone, its prompt read once for all answers; inputs without content once for all questions
    /// that have the same.
    pub plain: u64,
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, more: Tokens) {
        self.computed += more.computed;
        self.plain += more.plain;
    }
}

impl Question {
    /// The question that an example asks after `demonstrations`.
    ///
    /// # Errors
    /// As [`TaskEncoder::candidate_rows`].
    pub fn new(
        encoder: &TaskEncoder,
        example: &Example,
        demonstrations: &[Demonstration],
        content_free: &ContentFree,
    ) -> Result<Question, String> {
        let rows = encoder.candidate_rows(example, demonstrations)?;
        let candidates = encoder.candidates().iter().zip(rows);
        let candidates = candidates.map(|(c, row)| Candidate { label: c.label, row }).collect();
        Ok(Question { gold: example.label, candidates, content_free: content_free.clone() })
    }

    /// The answer that these scores mean.
    pub fn answer(&self, scoring: &Scoring, scores: &Scores) -> Answer {
        let form = |c: &Candidate| Form { label: c.label, n_tokens: c.row.scored.len() };
        let forms: Vec<Form> = self.candidates.iter().map(form).collect();
        scoring.answer(&forms, &scores.log_probs, &scores.content_free)
    }

    /// What `plain` of [`Tokens`] counts: the longest row, and the longest of each input without content if nobody before
    /// had the same.
    fn plain(&self, seen: &mut HashSet<usize>) -> u64 {
        let longest = |rows: &mut dyn Iterator<Item = &Row>| rows.map(Row::len).max().unwrap_or(0) as u64;
        let own = longest(&mut self.candidates.iter().map(|c| &c.row));
        match seen.insert(Arc::as_ptr(&self.content_free) as usize) {
            true => own + self.content_free.iter().map(|rows| longest(&mut rows.iter())).sum::<u64>(),
            false => own,
        }
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.candidates.iter().map(|c| &c.row).chain(self.content_free.iter().flatten())
    }
}

/// The rows that measure what the model answers to no text, after `demonstrations`.
///
/// # Errors
/// As [`TaskEncoder::candidate_rows`].
pub fn content_free(encoder: &TaskEncoder, demonstrations: &[Demonstration]) -> Result<ContentFree, String> {
    let task = encoder.task();
    let rows = |content: &String| {
        let fields = task.template.fields().map(|name| (name.to_string(), content.clone())).collect();
        let nothing = Example { line: 0, fields, label: None, answer: None };
        encoder.candidate_rows(&nothing, demonstrations)
    };
    Ok(Arc::new(task.scoring.content_free.iter().map(rows).collect::<Result<_, _>>()?))
}

/// The log-probabilities of the scored tokens of each row, in order.
pub fn token_log_probs(model: &LanguageModel, prompt: Option<&SoftPrompt>, rows: &[Row]) -> Vec<Vec<f32>> {
    of_rows(model, prompt, rows).0
}

/// As [`token_log_probs`], and how many tokens that took.
fn of_rows(model: &LanguageModel, prompt: Option<&SoftPrompt>, rows: &[Row]) -> (Vec<Vec<f32>>, u64) {
    let batch = PackedBatch::from_rows(model.family(), rows);
    let prompt = prompt.map(SoftPrompt::constant);
    let scored = on_pool(|| model.score(&Tape::new(), &batch, prompt.as_ref()));
    let of_row = |targets: &Vec<u32>| targets.iter().map(|&t| scored.log_probs[t as usize]).collect();
    (batch.row_targets.iter().map(of_row).collect(), batch.len() as u64)
}

/// What the model says to the questions, `examinee.batch` at a time; `progress` is told how many are done.
pub fn scores(
    questions: &[Question],
    examinee: Examinee,
    mut progress: impl FnMut(usize),
) -> (Vec<Scores>, Tokens) {
    let Examinee { model, prompt, batch, .. } = examinee;
    let (mut all, mut tokens) = (Vec::with_capacity(questions.len()), Tokens::default());
    let mut seen = HashSet::new();
    for part in questions.chunks(batch.max(1)) {
        let rows: Vec<Row> = part.iter().flat_map(Question::rows).cloned().collect();
        let (log_probs, computed) = of_rows(model, prompt, &rows);
        tokens.computed += computed;
        tokens.plain += part.iter().map(|question| question.plain(&mut seen)).sum::<u64>();
        let sum = |lp: Vec<f32>| lp.into_iter().map(f64::from).sum::<f64>();
        let mut sums = log_probs.into_iter().map(sum);
        for question in part {
            let mut take = |n: usize| sums.by_ref().take(n).collect::<Vec<f64>>();
            let log_probs = take(question.candidates.len());
            let content_free = question.content_free.iter().map(|rows| take(rows.len())).collect();
            all.push(Scores { log_probs, content_free });
        }
        progress(all.len());
    }
    (all, tokens)
}

/// Answers the questions; `progress` is told how many are done.
pub fn answer(
    scoring: &Scoring,
    questions: &[Question],
    examinee: Examinee,
    progress: impl FnMut(usize),
) -> Vec<Answer> {
    let (scores, _) = scores(questions, examinee, progress);
    questions.iter().zip(&scores).map(|(question, scores)| question.answer(scoring, scores)).collect()
}

/// How good a list of answers is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Labelled examples.
    pub n: usize,
    /// Share of right answers.
    pub accuracy: f64,
    /// 95 % confidence interval of the accuracy (Wilson 1927).
    pub accuracy_ci95: [f64; 2],
    /// Mean over the labels of the F1 score.
    pub macro_f1: f64,
    /// Mean of `-log p(right label)` among the labels.
    pub loss: f64,
    /// Expected calibration error: how far the probabilities are from the shares that are right (Guo et al. 2017).
    pub ece: f64,
    /// Accuracy of always answering the commonest label.
    pub majority_baseline: f64,
    /// Accuracy of guessing, all labels being equally likely.
    pub random_baseline: f64,
    /// How often each label was predicted.
    pub predicted: serde_json::Map<String, serde_json::Value>,
}

/// Compares answers with the right labels; questions without one are left out. `None` when none has one.
pub fn metrics(labels: &[String], questions: &[Question], answers: &[Answer]) -> Option<Metrics> {
    let pairs = questions.iter().zip(answers).filter_map(|(q, a)| q.gold.map(|gold| (gold, a.clone())));
    let (gold, answers): (Vec<usize>, Vec<Answer>) = pairs.unzip();
    if gold.is_empty() {
        return None;
    }
    let scored = scored(&gold, &answers);
    let baselines = Baselines::of(&gold, labels.len());
    let count = |label: usize| scored.predicted.iter().filter(|&&p| p == label).count();
    let predicted = labels.iter().enumerate().map(|(i, name)| (name.clone(), count(i).into()));
    Some(Metrics {
        n: gold.len(),
        accuracy: scored.metrics.accuracy,
        accuracy_ci95: scored.metrics.ci95,
        macro_f1: scored.metrics.macro_f1,
        loss: scored.metrics.loss,
        ece: scored.metrics.ece,
        majority_baseline: baselines.majority,
        random_baseline: baselines.uniform,
        predicted: predicted.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(gold: usize) -> Question {
        Question { gold: Some(gold), candidates: Vec::new(), content_free: ContentFree::default() }
    }

    #[test]
    fn metrics_of_a_hand_made_case() {
        let labels = ["a".to_string(), "b".to_string()];
        let unknown = Question { gold: None, ..question(0) };
        let questions = [question(0), question(0), question(1), question(1), unknown];
        let answer = |p: f64| Answer { log_probs: vec![p.ln(), (1.0 - p).ln()] };
        let answers = [answer(0.9), answer(0.2), answer(0.4), answer(0.1), answer(0.5)];
        let m = metrics(&labels, &questions, &answers).expect("labelled examples");
        assert_eq!((m.n, m.accuracy, m.majority_baseline), (4, 0.75, 0.5));
        assert_eq!(m.predicted["b"], 3);
        // a: 1 hit of 2 gold and 1 predicted, b: 2 hits of 2 gold and 3 predicted
        assert!((m.macro_f1 - (2.0 / 3.0 + 4.0 / 5.0) / 2.0).abs() < 1e-12);
        let loss = -(0.9f64.ln() + 0.2f64.ln() + 0.6f64.ln() + 0.9f64.ln()) / 4.0;
        assert!((m.loss - loss).abs() < 1e-12);
        assert!(m.accuracy_ci95[0] > 0.30 && m.accuracy_ci95[1] < 0.96);
    }
}
