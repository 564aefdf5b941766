//! One vector for a text: the mean of the final hidden states of its tokens.
//!
//! Mean pooling, as Reimers & Gurevych 2019 (Sentence-BERT) found best for encoders. The states are what transformers calls
//! `last_hidden_state`: after the final norm, before a head; those of the encoder, where there is one.

use autograd::Tape;
use kernels::threads::on_pool;
use tensor::Tensor;

use crate::{Family, Forest, LanguageModel, Result, Source};

impl LanguageModel {
    /// The mean final hidden state of each row, `[rows.len(), d_model]`; zeros for a row without tokens. All rows are
    /// computed at one time, what they share once.
    ///
    /// # Errors
    /// As [`LanguageModel::check_row`] without a prompt, but a row may be empty.
    pub fn mean_states(&self, rows: &[Vec<Source>]) -> Result<Tensor> {
        rows.iter().filter(|row| !row.is_empty()).try_for_each(|row| self.check_row(row, None))?;
        let slices = rows.iter().map(Vec::as_slice);
        let forest = match self.family() {
            Family::Causal => Forest::from_rows(slices),
            Family::Masked | Family::Seq2Seq => Forest::segments(slices),
        };
        let d_model = self.config().d_model;
        let mut means = vec![0.0; rows.len() * d_model];
        if !forest.is_empty() {
            let states = self.last_states(&forest);
            for (row, mean) in means.chunks_exact_mut(d_model).enumerate() {
                mean_of(forest.path(row), &states, mean);
            }
        }
        Ok(Tensor::from_vec(&[rows.len(), d_model], means))
    }

    /// Of every token, `[tokens, d_model]`.
    fn last_states(&self, forest: &Forest) -> Tensor {
        on_pool(|| {
            let tape = Tape::new();
            let states = match self.family() {
                Family::Causal => self.states(&tape, forest, None, (None, None)),
                Family::Masked | Family::Seq2Seq => self.encode(&tape, forest, None),
            };
            states.tensor().clone()
        })
    }
}

/// The mean of the rows `tokens` of `states`; zeros where there are none.
fn mean_of(tokens: &[u32], states: &Tensor, mean: &mut [f32]) {
    let width = states.width();
    let mut sum = vec![0f64; width];
    for &token in tokens {
        let state = &states.f32s()[token as usize * width..][..width];
        sum.iter_mut().zip(state).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let n = tokens.len().max(1) as f64;
    mean.iter_mut().zip(sum).for_each(|(mean, sum)| *mean = (sum / n) as f32);
}
