//! How good one run is.
//!
//! Micro F1 is not here: where each row has one label and gets one, it is the accuracy.

use serde::{Deserialize, Serialize};

use super::number;
use super::statistics::wilson;
use crate::verbalizer::Answer;

/// How good the answers of one run are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunMetrics {
    /// Share of right answers.
    pub accuracy: f64,
    /// Its 95 % interval over other rows ([`wilson`]).
    pub ci95: [f64; 2],
    /// Mean over the labels of the F1 score; 0 for a label that is neither there nor predicted.
    pub macro_f1: f64,
    /// Mean of `-log p(right label)` among the labels.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// Expected calibration error ([`ece`]).
    #[serde(deserialize_with = "number")]
    pub ece: f64,
}

/// What a [`super::Run`] keeps of its answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Label of each row.
    pub predicted: Vec<usize>,
    /// Its probability among the labels.
    pub probability: Vec<f64>,
    /// How good that is.
    pub metrics: RunMetrics,
}

/// Compares answers with the right labels. Panics without rows, or where there is not one answer per row.
pub fn scored(gold: &[usize], answers: &[Answer]) -> Scored {
    assert!(!gold.is_empty() && gold.len() == answers.len(), "one answer per row");
    let predicted: Vec<usize> = answers.iter().map(Answer::best).collect();
    let all: Vec<Vec<f64>> = answers.iter().map(Answer::probabilities).collect();
    let probability: Vec<f64> = all.iter().zip(&predicted).map(|(p, &label)| p[label]).collect();
    let right: Vec<bool> = gold.iter().zip(&predicted).map(|(g, p)| g == p).collect();
    let n_right = right.iter().filter(|&&right| right).count();
    let losses = all.iter().zip(gold).map(|(p, &label)| -p[label].ln());
    let metrics = RunMetrics {
        accuracy: n_right as f64 / gold.len() as f64,
        ci95: wilson(n_right, gold.len()),
        macro_f1: macro_f1(gold, &predicted, answers[0].log_probs.len()),
        loss: losses.sum::<f64>() / gold.len() as f64,
        ece: ece(&reliability(right.into_iter().zip(probability.iter().copied()))),
    };
    Scored { predicted, probability, metrics }
}

/// Mean over the labels of `2 hits / (right + predicted)`; 0 for a label that is neither.
pub fn macro_f1(gold: &[usize], predicted: &[usize], n_labels: usize) -> f64 {
    let (mut hits, mut all) = (vec![0usize; n_labels], vec![0usize; n_labels]);
    for (&g, &p) in gold.iter().zip(predicted) {
        all[g] += 1;
        all[p] += 1;
        hits[g] += usize::from(g == p);
    }
    let f1 = |(&hits, &all): (&usize, &usize)| if all == 0 { 0.0 } else { 2.0 * hits as f64 / all as f64 };
    hits.iter().zip(&all).map(f1).sum::<f64>() / n_labels as f64
}

/// Predictions of about the same probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// How many.
    pub n: usize,
    /// Their mean probability; 0 for none.
    pub confidence: f64,
    /// Share of them that is right; 0 for none.
    pub accuracy: f64,
}

/// Number of bins of [`reliability`].
pub const BINS: usize = 10;

/// Predictions, each right or not and with its probability, in ten bins of equal width over `[0, 1]`; a probability
/// that is no number is left out.
pub fn reliability(predictions: impl Iterator<Item = (bool, f64)>) -> [Bin; BINS] {
    let mut bins = [Bin::default(); BINS];
    for (right, p) in predictions.filter(|(_, p)| p.is_finite()) {
        let bin = &mut bins[((p * BINS as f64) as usize).min(BINS - 1)];
        bin.n += 1;
        bin.confidence += p;
        bin.accuracy += f64::from(right);
    }
    for bin in bins.iter_mut().filter(|bin| bin.n > 0) {
        bin.confidence /= bin.n as f64;
        bin.accuracy /= bin.n as f64;
    }
    bins
}

/// Expected calibration error: the mean over predictions of |accuracy - confidence| of their bin (Guo et al. 2017).
/// NaN for none.
pub fn ece(bins: &[Bin]) -> f64 {
    let n: usize = bins.iter().map(|bin| bin.n).sum();
    bins.iter().map(|bin| bin.n as f64 * (bin.accuracy - bin.confidence).abs()).sum::<f64>() / n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_by_hand() {
        let answer = |p: f64| Answer { log_probs: vec![p.ln(), (1.0 - p).ln()] };
        let scored = scored(&[0, 0, 1, 1], &[answer(0.95), answer(0.2), answer(0.4), answer(0.1)]);
        assert_eq!(scored.predicted, [0, 1, 1, 1]);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        for (p, expected) in scored.probability.iter().zip([0.95, 0.8, 0.6, 0.9]) {
            close(*p, expected);
        }
        close(scored.metrics.accuracy, 0.75);
        // 2·1/(2+1) and 2·2/(2+3)
        close(scored.metrics.macro_f1, (2.0 / 3.0 + 4.0 / 5.0) / 2.0);
        close(scored.metrics.loss, -(0.95f64.ln() + 0.2f64.ln() + 0.6f64.ln() + 0.9f64.ln()) / 4.0);
    }

    #[test]
    fn calibration_error_by_hand() {
        // bin 7: two of 0.75, one right: |0.5 - 0.75|; bin 9: 0.95 and 1.0, both right: 0.025
        let bins = reliability([(true, 0.75), (false, 0.75), (true, 0.95), (true, 1.0)].into_iter());
        assert_eq!((bins[7].n, bins[9].n, bins[0]), (2, 2, Bin::default()));
        assert!((ece(&bins) - (2.0 * 0.25 + 2.0 * 0.025) / 4.0).abs() < 1e-12);
        assert!(ece(&reliability([(true, f64::NAN)].into_iter())).is_nan());
    }

    #[test]
    fn a_label_that_never_occurs_counts_as_zero() {
        assert_eq!(macro_f1(&[0, 0], &[0, 0], 2), 0.5);
    }
}
