//! Choosing between labels: every answer string of every label is scored whole, in the same text.
//!
//! The candidates of an example are children of one node of the prefix forest, so the text is computed once for all
//! of them; the soft prompt, the instruction and the demonstrations that questions have in common are computed once for
//! the whole batch, and so are the inputs without content that calibration needs. What the numbers then mean is said in
//! [`crate::verbalizer`].

use std::sync::Arc;

use autograd::Tape;
use kernels::threads::on_pool;
use model::{LanguageModel, PackedBatch, Row};
use serde::Serialize;

use super::Examinee;
use crate::data::Example;
use crate::encode::{Demonstration, TaskEncoder};
use crate::soft_prompt::SoftPrompt;
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
    /// Of all rows, each alone.
    pub plain: u64,
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

fn of_rows(model: &LanguageModel, prompt: Option<&SoftPrompt>, rows: &[Row]) -> (Vec<Vec<f32>>, Tokens) {
    let batch = PackedBatch::from_rows(model.family(), rows);
    let tokens =
        Tokens { computed: batch.len() as u64, plain: rows.iter().map(|row| row.len() as u64).sum() };
    let prompt = prompt.map(SoftPrompt::constant);
    let scored = on_pool(|| model.score(&Tape::new(), &batch, prompt.as_ref()));
    let of_row = |targets: &Vec<u32>| targets.iter().map(|&t| scored.log_probs[t as usize]).collect();
    (batch.row_targets.iter().map(of_row).collect(), tokens)
}

/// What the model says to the questions, `examinee.batch` at a time; `progress` is told how many are done.
pub fn scores(
    questions: &[Question],
    examinee: Examinee,
    mut progress: impl FnMut(usize),
) -> (Vec<Scores>, Tokens) {
    let Examinee { model, prompt, batch, .. } = examinee;
    let (mut all, mut tokens) = (Vec::with_capacity(questions.len()), Tokens::default());
    for part in questions.chunks(batch.max(1)) {
        let rows: Vec<Row> = part.iter().flat_map(Question::rows).cloned().collect();
        let (log_probs, n) = of_rows(model, prompt, &rows);
        tokens = Tokens { computed: tokens.computed + n.computed, plain: tokens.plain + n.plain };
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
    /// Accuracy of always answering the commonest label.
    pub majority_baseline: f64,
    /// How often each label was predicted.
    pub predicted: serde_json::Map<String, serde_json::Value>,
}

/// Compares answers with the right labels; questions without one are left out. `None` when none has one.
pub fn metrics(labels: &[String], questions: &[Question], answers: &[Answer]) -> Option<Metrics> {
    let pairs: Vec<(usize, &Answer)> =
        questions.iter().zip(answers).filter_map(|(q, a)| q.gold.map(|gold| (gold, a))).collect();
    let n = pairs.len();
    if n == 0 {
        return None;
    }
    let count =
        |keep: &dyn Fn(usize, usize) -> bool| pairs.iter().filter(|(g, a)| keep(*g, a.best())).count();
    let share = |k: usize| k as f64 / n as f64;
    let f1 = |label: usize| {
        let hit = count(&|g, p| g == label && p == label);
        let all = count(&|g, _| g == label) + count(&|_, p| p == label);
        if all == 0 { 0.0 } else { 2.0 * hit as f64 / all as f64 }
    };
    let right = count(&|g, p| g == p);
    let losses = pairs.iter().map(|(g, a)| -a.probabilities()[*g].ln());
    let commonest = (0..labels.len()).map(|label| count(&|g, _| g == label)).max().unwrap_or(0);
    let predicted = labels.iter().enumerate().map(|(i, name)| (name.clone(), count(&|_, p| p == i).into()));
    Some(Metrics {
        n,
        accuracy: share(right),
        accuracy_ci95: wilson(right, n),
        macro_f1: (0..labels.len()).map(f1).sum::<f64>() / labels.len() as f64,
        loss: losses.sum::<f64>() / n as f64,
        majority_baseline: share(commonest),
        predicted: predicted.collect(),
    })
}

/// The Wilson score interval of `k` of `n` at 95 %.
pub(super) fn wilson(k: usize, n: usize) -> [f64; 2] {
    const Z: f64 = 1.959_963_984_540_054;
    let (n, p) = (n as f64, k as f64 / n as f64);
    let centre = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    [(centre - half) / (1.0 + Z * Z / n), (centre + half) / (1.0 + Z * Z / n)]
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
