//! Choosing between labels: every answer string of every label is scored whole, in the same text.
//!
//! The candidates of an example are children of one node of the prefix forest, so the text is computed once for all
//! of them, and the soft prompt once for the whole batch.
//!
//! ```text
//! log p(answer) = Σ log p(token | text, tokens before)          over the tokens of the answer string
//!               = Σ log p(token | text with masks)              for a masked model
//! log p(label)  = log Σ p(answer)                               over the answer strings of the label
//! ```

use autograd::Tape;
use kernels::threads::on_pool;
use model::{LanguageModel, PackedBatch, Row};
use serde::Serialize;

use crate::soft_prompt::SoftPrompt;

/// One answer string after a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Index of the label it stands for.
    pub label: usize,
    /// The text and the answer, whose tokens are scored.
    pub row: Row,
}

/// A text, and what could stand after it.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Index of the right label, where it is known.
    pub gold: Option<usize>,
    /// All answers of all labels.
    pub candidates: Vec<Candidate>,
}

/// `log p` of each label.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// By index of the label.
    pub log_probs: Vec<f64>,
}

impl Answer {
    /// The likeliest label; the first of equals.
    pub fn best(&self) -> usize {
        let better = |best: usize, i: usize| if self.log_probs[i] > self.log_probs[best] { i } else { best };
        (0..self.log_probs.len()).fold(0, better)
    }

    /// Probabilities among the labels alone: they sum to one.
    pub fn probabilities(&self) -> Vec<f64> {
        let total = log_sum_exp(self.log_probs.iter().copied());
        self.log_probs.iter().map(|lp| (lp - total).exp()).collect()
    }
}

/// `log Σ exp(x)`; NaN when one of them is, so that a damaged model does not pass for a bad one.
fn log_sum_exp(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = x.clone().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        x.fold(max, |a, b| a + b)
    } else {
        max + x.map(|x| (x - max).exp()).sum::<f64>().ln()
    }
}

/// The log-probabilities of the scored tokens of each row, in order.
pub fn token_log_probs(model: &LanguageModel, prompt: Option<&SoftPrompt>, rows: &[Row]) -> Vec<Vec<f32>> {
    let batch = PackedBatch::from_rows(model.family(), rows);
    let prompt = prompt.map(SoftPrompt::constant);
    let scored = on_pool(|| model.score(&Tape::new(), &batch, prompt.as_ref()));
    let of_row = |targets: &Vec<u32>| targets.iter().map(|&t| scored.log_probs[t as usize]).collect();
    batch.row_targets.iter().map(of_row).collect()
}

/// Answers the questions, `batch` at a time; `progress` is told how many are done.
pub fn answer(
    model: &LanguageModel,
    prompt: Option<&SoftPrompt>,
    questions: &[Question],
    batch: usize,
    mut progress: impl FnMut(usize),
) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(questions.len());
    for part in questions.chunks(batch.max(1)) {
        let rows: Vec<Row> = part.iter().flat_map(|q| q.candidates.iter().map(|c| c.row.clone())).collect();
        let mut log_probs = token_log_probs(model, prompt, &rows).into_iter();
        for question in part {
            let of_candidates: Vec<(usize, f64)> = question
                .candidates
                .iter()
                .zip(log_probs.by_ref())
                .map(|(c, lp)| (c.label, lp.iter().map(|&lp| f64::from(lp)).sum()))
                .collect();
            let n_labels = question.candidates.iter().map(|c| c.label + 1).max().unwrap_or(0);
            let of_label =
                |label| log_sum_exp(of_candidates.iter().filter(move |c| c.0 == label).map(|c| c.1));
            answers.push(Answer { log_probs: (0..n_labels).map(of_label).collect() });
        }
        progress(answers.len());
    }
    answers
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
fn wilson(k: usize, n: usize) -> [f64; 2] {
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
        Question { gold: Some(gold), candidates: Vec::new() }
    }

    #[test]
    fn metrics_of_a_hand_made_case() {
        let labels = ["a".to_string(), "b".to_string()];
        let questions =
            [question(0), question(0), question(1), question(1), Question { gold: None, candidates: vec![] }];
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

    #[test]
    fn probabilities_sum_to_one_for_tiny_numbers() {
        let p = Answer { log_probs: vec![-1000.0, -1001.0] }.probabilities();
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12 && p[0] > p[1]);
        assert!(
            log_sum_exp([f64::NAN].into_iter()).is_nan() && log_sum_exp([0.0, f64::NAN].into_iter()).is_nan()
        );
    }
}
