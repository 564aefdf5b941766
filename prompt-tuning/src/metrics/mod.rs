//! How good generated texts are: exact match, token and entity F1, BLEU, chrF and ROUGE-L over a set of texts and their references.
//!
//! Each is what its reference implementation computes: SQuAD's script, sacrebleu (signature `nrefs:1|case:mixed|eff:no|
//! tok:13a|smooth:exp` and `chrF2`), and `rouge_score`. All are from 0 to 1, so BLEU and chrF are sacrebleu's divided by
//! 100.

mod answer;
mod bleu;
mod chrf;
mod entities;
mod rouge;

pub use answer::{exact_match, token_f1};
pub use bleu::bleu;
pub use chrf::chrf;
pub use entities::entity_f1;
pub use rouge::rouge_l;

use std::collections::HashMap;
use std::hash::Hash;

/// How often each run of `n` items occurs.
fn n_grams<T: Hash + Eq>(items: &[T], n: usize) -> HashMap<&[T], usize> {
    let mut counts = HashMap::new();
    items.windows(n).for_each(|gram| *counts.entry(gram).or_insert(0) += 1);
    counts
}

/// How many n-grams of `a` find a partner in `b`.
fn matches<T: Hash + Eq>(a: &HashMap<&[T], usize>, b: &HashMap<&[T], usize>) -> usize {
    a.iter().map(|(gram, &count)| count.min(b.get(gram).copied().unwrap_or(0))).sum()
}

/// The mean of `score` over pairs of text and reference; 0 for none.
fn mean(pairs: &[(&str, &str)], score: impl Fn(&str, &str) -> f64) -> f64 {
    pairs.iter().map(|(text, reference)| score(text, reference)).sum::<f64>() / pairs.len().max(1) as f64
}

/// The harmonic mean of precision and recall, with `beta` times the weight on recall; 0 when both are.
fn f_score(precision: f64, recall: f64, beta: f64) -> f64 {
    let denominator = beta * beta * precision + recall;
    if denominator > 0.0 { (1.0 + beta * beta) * precision * recall / denominator } else { 0.0 }
}
