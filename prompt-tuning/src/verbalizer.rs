//! From the log-probabilities of answer strings to those of labels.
//!
//! ```text
//! log p(answer) = Σ log p(token | text, tokens before)       over the tokens of the answer string; divided by their
//!                                                            number with `per_token`
//! sum   log p(label) = log Σ p(answer)                       over the answer strings of the label
//! mean               = log Σ p(answer) / n                   so that a label gains nothing from having more of them
//! max                = log max p(answer)
//! ```
//!
//! A model prefers some answers whatever the text says: those that are common, that end the demonstrations, that most of
//! them have. Two corrections measure this on inputs without content (`N/A`, `[MASK]`, nothing) in the place of the text:
//!
//! * `pmi`: `log p(answer | text) - log p(answer | no content)`, the pointwise mutual information of Holtzman et al. 2021
//!   ("Surface Form Competition"), answer by answer, before answers are combined;
//! * `contextual`: the probabilities among the labels, divided by those without content and normalised again: the diagonal
//!   `W = diag(p_cf)^-1` of Zhao et al. 2021 ("Calibrate Before Use"), label by label. As there, `p_cf` is the mean over the
//!   inputs of the normalised probabilities.

use serde::{Deserialize, Serialize};

/// How answers are scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scoring {
    /// What makes one number of the answer strings of a label.
    pub words: Combine,
    /// Whether the log-probability of an answer is divided by its tokens: long answers are then no less likely.
    pub per_token: bool,
    /// What is taken away because the text has no part in it.
    pub calibration: Calibration,
    /// What stands in the place of the text when it is measured.
    pub content_free: Vec<String>,
}

impl Default for Scoring {
    /// Plain probabilities. The inputs without content are those of Zhao et al.
    fn default() -> Scoring {
        Scoring {
            words: Combine::Sum,
            per_token: false,
            calibration: Calibration::None,
            content_free: ["N/A", "[MASK]", ""].map(String::from).to_vec(),
        }
    }
}

/// What makes one number of the answer strings of a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// The probability that any of them comes.
    #[default]
    Sum,
    /// Their mean probability.
    Mean,
    /// The likeliest of them.
    Max,
}

/// What is taken away because the text has no part in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Calibration {
    /// Nothing.
    #[default]
    None,
    /// Each answer's log-probability without content.
    Pmi,
    /// Each label's probability without content.
    Contextual,
}

impl Calibration {
    /// As in task files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Calibration::None => "none",
            Calibration::Pmi => "pmi",
            Calibration::Contextual => "contextual",
        }
    }
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
        self.log_shares().into_iter().map(f64::exp).collect()
    }

    /// Their logarithms.
    fn log_shares(&self) -> Vec<f64> {
        let total = log_sum_exp(self.log_probs.iter().copied());
        self.log_probs.iter().map(|lp| lp - total).collect()
    }
}

/// An answer string, as far as scoring knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Index of its label.
    pub label: usize,
    /// Tokens that are scored.
    pub n_tokens: usize,
}

impl Scoring {
    /// The labels' log-probabilities: `log_probs` of the answers `forms`, and of the same answers after each input without
    /// content.
    pub fn answer(&self, forms: &[Form], log_probs: &[f64], content_free: &[Vec<f64>]) -> Answer {
        let scores = self.scores(forms, log_probs);
        if self.calibration == Calibration::None || content_free.is_empty() {
            return self.labels(forms, &scores);
        }
        let free: Vec<Vec<f64>> = content_free.iter().map(|free| self.scores(forms, free)).collect();
        match self.calibration {
            Calibration::None => unreachable!("returned above"),
            Calibration::Pmi => {
                let mean = |i: usize| log_mean_exp(free.iter().map(|free| free[i]));
                let scores: Vec<f64> = scores.iter().enumerate().map(|(i, score)| score - mean(i)).collect();
                self.labels(forms, &scores)
            }
            Calibration::Contextual => {
                let free: Vec<Vec<f64>> =
                    free.iter().map(|free| self.labels(forms, free).log_shares()).collect();
                let Answer { mut log_probs } = self.labels(forms, &scores);
                for (label, lp) in log_probs.iter_mut().enumerate() {
                    // in logarithms: what is next to impossible without content must not become a division by zero
                    *lp -= log_mean_exp(free.iter().map(|free| free[label]));
                }
                Answer { log_probs }
            }
        }
    }

    fn scores(&self, forms: &[Form], log_probs: &[f64]) -> Vec<f64> {
        let score = |(form, lp): (&Form, &f64)| if self.per_token { lp / form.n_tokens as f64 } else { *lp };
        forms.iter().zip(log_probs).map(score).collect()
    }

    fn labels(&self, forms: &[Form], scores: &[f64]) -> Answer {
        let n_labels = forms.iter().map(|form| form.label + 1).max().unwrap_or(0);
        let of_label = |label| {
            let scores = forms.iter().zip(scores).filter(move |(f, _)| f.label == label).map(|(_, s)| *s);
            match self.words {
                Combine::Sum => log_sum_exp(scores),
                Combine::Mean => log_mean_exp(scores),
                // NaN must not be passed over, as `f64::max` would
                Combine::Max => {
                    scores.fold(f64::NEG_INFINITY, |a, b| if a.is_nan() || a > b { a } else { b })
                }
            }
        };
        Answer { log_probs: (0..n_labels).map(of_label).collect() }
    }
}

fn log_mean_exp(x: impl Iterator<Item = f64> + Clone) -> f64 {
    log_sum_exp(x.clone()) - (x.count() as f64).ln()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two labels; the first has two answers, one of them of two tokens.
    const FORMS: [Form; 3] =
        [Form { label: 0, n_tokens: 1 }, Form { label: 0, n_tokens: 2 }, Form { label: 1, n_tokens: 1 }];

    fn probabilities(scoring: &Scoring, p: [f64; 3], free: &[[f64; 3]]) -> Vec<f64> {
        let ln = |p: &[f64; 3]| p.map(f64::ln).to_vec();
        let answer = scoring.answer(&FORMS, &ln(&p), &free.iter().map(ln).collect::<Vec<_>>());
        answer.log_probs.iter().map(|lp| lp.exp()).collect()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
    }

    #[test]
    fn answers_of_a_label_are_combined() {
        let of = |words, per_token| Scoring { words, per_token, ..Scoring::default() };
        let p = [0.2, 0.04, 0.3];
        close(&probabilities(&of(Combine::Sum, false), p, &[]), &[0.24, 0.3]);
        close(&probabilities(&of(Combine::Mean, false), p, &[]), &[0.12, 0.3]);
        close(&probabilities(&of(Combine::Max, false), p, &[]), &[0.2, 0.3]);
        // the square root of 0.04
        close(&probabilities(&of(Combine::Sum, true), p, &[]), &[0.4, 0.3]);
    }

    #[test]
    fn contextual_calibration_by_hand() {
        let scoring = Scoring { calibration: Calibration::Contextual, ..Scoring::default() };
        // without content: 0.75 and 0.25, 0.5 and 0.5 among the labels; mean 0.625 and 0.375
        let free = [[0.2, 0.1, 0.1], [0.1, 0.1, 0.2]];
        let p = probabilities(&scoring, [0.2, 0.04, 0.16], &free);
        close(&p, &[0.24 / 0.625, 0.16 / 0.375]);
        // 0.6 to 0.4 has become 0.384 to 0.427: the answer is another
        let answer = Answer { log_probs: p.iter().map(|p| p.ln()).collect() };
        assert_eq!(answer.best(), 1);
        close(
            &answer.probabilities(),
            &[0.384 / (0.384 + 0.16 / 0.375), 1.0 - 0.384 / (0.384 + 0.16 / 0.375)],
        );
    }

    #[test]
    fn a_label_that_is_next_to_impossible_without_content_is_still_a_number() {
        let scoring = Scoring { calibration: Calibration::Contextual, ..Scoring::default() };
        let forms = [Form { label: 0, n_tokens: 1 }, Form { label: 1, n_tokens: 1 }];
        // e^-2000 is no f64; the ratio of the labels moves by e^1000 all the same
        let p = scoring.answer(&forms, &[-1.0, -1000.0], &[vec![-1.0, -2001.0]]);
        assert_eq!((p.log_probs[0], p.log_probs[1]), (-1.0, 1000.0));
        close(&p.probabilities(), &[0.0, 1.0]);
    }

    #[test]
    fn pmi_by_hand() {
        let scoring = Scoring { calibration: Calibration::Pmi, ..Scoring::default() };
        let p = probabilities(&scoring, [0.2, 0.04, 0.16], &[[0.2, 0.1, 0.1], [0.2, 0.3, 0.3]]);
        close(&p, &[0.2 / 0.2 + 0.04 / 0.2, 0.16 / 0.2]);
    }

    #[test]
    fn without_correction_what_has_no_content_does_not_matter() {
        let p = [0.2, 0.04, 0.16];
        close(&probabilities(&Scoring::default(), p, &[[0.9, 0.9, 0.1]]), &[0.24, 0.16]);
    }

    #[test]
    fn probabilities_sum_to_one_for_tiny_numbers() {
        let p = Answer { log_probs: vec![-1000.0, -1001.0] }.probabilities();
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12 && p[0] > p[1]);
        assert!(
            log_sum_exp([f64::NAN].into_iter()).is_nan() && log_sum_exp([0.0, f64::NAN].into_iter()).is_nan()
        );
        let max = Scoring { words: Combine::Max, ..Scoring::default() };
        assert!(max.labels(&FORMS, &[0.0, f64::NAN, 1.0]).log_probs[0].is_nan());
        assert!(max.labels(&FORMS, &[f64::NAN, 0.0, 1.0]).log_probs[0].is_nan());
    }
}
