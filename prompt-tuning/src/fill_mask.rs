//! What stands behind the masks of a text, by a masked language model.
//!
//! ```text
//! top      p(token | text with all its masks)           at each mask on its own
//! joint    the mask whose best token is the likeliest gets that token, then the others are asked again, until none is
//!          left; log p = Σ log p(token | text, tokens filled in before)
//! ```
//! The joint filling is greedy: the surest mask first, so that it can help the others.

use std::sync::Arc;

use autograd::Tape;
use kernels::threads::on_pool;
use model::{Forest, LanguageModel, Prompt, Source};

use crate::error::{Error, Result};
use crate::evaluate::not_finite;
use crate::soft_prompt::SoftPrompt;

/// A token for a mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The token.
    pub token: u32,
    /// Its probability.
    pub probability: f32,
}

/// What a model makes of the masks of a text, in the order of the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Filled {
    /// For each mask the likeliest tokens, the best first.
    pub top: Vec<Vec<Choice>>,
    /// For each mask the token of the joint filling.
    pub joint: Vec<u32>,
    /// Log-probability of the joint filling.
    pub log_prob: f64,
}

/// Fills every `mask` of `ids` (special tokens included, `prompt` goes in front), with the `top` best tokens of each.
///
/// # Errors
/// The model is a classifier, there is no mask, the text does not fit the model, or the model computes NaN.
pub fn fill(
    model: &LanguageModel,
    prompt: Option<&SoftPrompt>,
    ids: &[u32],
    mask: u32,
    top: usize,
) -> Result<Filled> {
    let soft = (0..prompt.map_or(0, SoftPrompt::n_soft) as u32).map(Source::Soft);
    let prompt = prompt.map(SoftPrompt::constant);
    let mut row: Vec<Source> = soft.chain(ids.iter().map(|&id| Source::Text(id))).collect();
    model.check_speaks()?;
    model.check_row(&row, prompt.as_ref())?;
    let masks: Vec<usize> = (0..row.len()).filter(|&i| row[i] == Source::Text(mask)).collect();
    if masks.is_empty() {
        return Err(Error::Input("the text has no mask to fill".into()));
    }
    let mut open = masks.clone();
    let mut log_probs = mask_log_probs(model, prompt.as_ref(), &row, &open)?;
    let choices = log_probs.iter().map(|log_probs| best(log_probs, top)).collect();
    let mut log_prob = 0.0;
    loop {
        let bests = log_probs.iter().map(|log_probs| best(log_probs, 1)[0]);
        let surest =
            |a: (usize, Choice), b: (usize, Choice)| if b.1.probability > a.1.probability { b } else { a };
        let Some((i, choice)) = bests.enumerate().reduce(surest) else { break };
        log_prob += f64::from(log_probs[i][choice.token as usize]);
        row[open.remove(i)] = Source::Text(choice.token);
        if open.is_empty() {
            break;
        }
        log_probs = mask_log_probs(model, prompt.as_ref(), &row, &open)?;
    }
    let joint = masks.iter().filter_map(|&at| match row[at] {
        Source::Text(id) => Some(id),
        Source::Soft(_) => None,
    });
    Ok(Filled { top: choices, joint: joint.collect(), log_prob })
}

/// `log p` of every token at the places `at` of a row, ascending.
fn mask_log_probs(
    model: &LanguageModel,
    prompt: Option<&Prompt>,
    row: &[Source],
    at: &[usize],
) -> Result<Vec<Vec<f32>>> {
    let forest = Forest::segments([row]);
    let outputs: Arc<[u32]> = at.iter().map(|&at| at as u32).collect();
    let hidden =
        on_pool(|| model.states(&Tape::new(), &forest, prompt, (Some(&outputs), None)).tensor().clone());
    let logits = model.logits(&hidden);
    let rows = logits.f32s().chunks_exact(logits.width()).map(log_softmax);
    rows.collect::<Option<_>>().ok_or_else(|| not_finite(model))
}

/// `None` when the logits are no distribution.
fn log_softmax(logits: &[f32]) -> Option<Vec<f32>> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&z| f64::from(z - max).exp()).sum();
    let lse = max + sum.ln() as f32;
    lse.is_finite().then(|| logits.iter().map(|z| z - lse).collect())
}

/// The `n` likeliest tokens, the first of equals before the others.
fn best(log_probs: &[f32], n: usize) -> Vec<Choice> {
    let mut order: Vec<u32> = (0..log_probs.len() as u32).collect();
    let key = |&a: &u32, &b: &u32| log_probs[b as usize].total_cmp(&log_probs[a as usize]).then(a.cmp(&b));
    if n < order.len() {
        order.select_nth_unstable_by(n, key);
        order.truncate(n);
    }
    order.sort_unstable_by(key);
    order.into_iter().map(|token| Choice { token, probability: log_probs[token as usize].exp() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_nan_is_no_distribution() {
        let log_probs = log_softmax(&[0.0, 2.0, 1.0, 2.0]).expect("finite");
        let tokens = |n| best(&log_probs, n).iter().map(|c| c.token).collect::<Vec<_>>();
        assert_eq!((tokens(3), tokens(9)), (vec![1, 3, 2], vec![1, 3, 2, 0]));
        let sum: f32 = best(&log_probs, 4).iter().map(|c| c.probability).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert_eq!(log_softmax(&[0.0, f32::NAN]), None);
        assert_eq!(log_softmax(&[f32::NEG_INFINITY; 2]), None);
    }
}
