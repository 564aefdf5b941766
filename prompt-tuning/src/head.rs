//! A new classifier on a model: the traditional way of fine-tuning, a linear layer that says which label, in place of label
//! words ([`model::LanguageModel::with_classifier`]).
//!
//! Its matrices start from `N(0, initializer_range²)` and its biases from 0, as in transformers.

use model::LanguageModel;
use tensor::Tensor;

use crate::error::{Error, Result};
use crate::rng::Rng;
use crate::trained_weights::check_trainable;

/// Stream of the seed that makes the head; other streams make the prompt and the order.
const STREAM: u64 = 0x4ead;

/// `model` with a classifier of `labels` in place of its language-model head. The same seed gives the same numbers.
///
/// # Errors
/// Fewer than two labels; a model that has a classifier already, is quantised, or is an encoder-decoder.
pub fn on(model: &LanguageModel, labels: &[String], seed: u64) -> Result<LanguageModel> {
    check_trainable(model)?;
    if labels.len() < 2 {
        return Err(Error::Input(format!(
            "a classifier needs at least two [labels]; the task has {}",
            labels.len()
        )));
    }
    let std = f64::from(model.config().initializer_range);
    let (rng, mut made) = (Rng::new(seed).fork(STREAM), 0);
    let make = |_: &str, shape: &[usize]| {
        made += 1;
        match shape {
            [n] => Tensor::from_vec(shape, vec![0.0; *n]),
            _ => normal(shape, std, rng.fork(made)),
        }
    };
    Ok(model.with_classifier(labels, make)?)
}

fn normal(shape: &[usize], std: f64, mut rng: Rng) -> Tensor {
    let values = (0..shape.iter().product()).map(|_| (std * rng.normal()) as f32);
    Tensor::from_vec(shape, values.collect())
}
