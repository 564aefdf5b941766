//! Embeddings of texts by the model itself: the mean of its final hidden states over the tokens of a text (of the encoder's,
//! where there is one), scaled to length 1.

use autograd::Tape;
use kernels::threads::on_pool;
use model::{Family, Forest, LanguageModel, Source, Tokenizer};
use tensor::Tensor;

use crate::error::Result;
use crate::evaluate::not_finite;

/// Vectors of length 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    width: usize,
    values: Vec<f32>,
}

impl Embeddings {
    /// Scales each vector of `values`, `[n, width]`, to length 1; vectors of zeros stay.
    pub fn new(width: usize, mut values: Vec<f32>) -> Embeddings {
        for row in values.chunks_exact_mut(width) {
            let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            if length > 0.0 {
                row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
            }
        }
        Embeddings { width, values }
    }

    /// The vector of text `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..][..self.width]
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// Embeddings of `texts`, `batch` at a time; what is longer than the context window is cut. `progress` is told how many are
/// done.
///
/// # Errors
/// The tokenizer refuses a text, or the model computes NaN.
pub fn embed(
    model: &LanguageModel,
    tokenizer: &Tokenizer,
    texts: &[String],
    batch: usize,
    mut progress: impl FnMut(usize),
) -> Result<Embeddings> {
    let width = model.config().d_model;
    let mut values = Vec::with_capacity(texts.len() * width);
    for part in texts.chunks(batch.max(1)) {
        let row = |text: &String| {
            let ids = tokenizer.encode(text, true)?;
            let ids = ids.into_iter().take(model.config().n_positions);
            Ok(ids.map(Source::Text).collect::<Vec<Source>>())
        };
        let rows = part.iter().map(row).collect::<Result<Vec<_>>>()?;
        for mean in means(model, &rows) {
            values.extend(mean);
        }
        progress(values.len() / width);
    }
    match values.iter().all(|x| x.is_finite()) {
        true => Ok(Embeddings::new(width, values)),
        false => Err(not_finite(model)),
    }
}

/// The mean final hidden state of each row; zeros where it has no token.
fn means(model: &LanguageModel, rows: &[Vec<Source>]) -> Vec<Vec<f32>> {
    let slices = rows.iter().map(Vec::as_slice);
    let forest = match model.family() {
        Family::Causal => Forest::from_rows(slices),
        Family::Masked | Family::Seq2Seq => Forest::segments(slices),
    };
    let width = model.config().d_model;
    if forest.is_empty() {
        return vec![vec![0.0; width]; rows.len()];
    }
    let states = states(model, &forest);
    let mean = |i: usize| {
        let path = forest.path(i);
        let mut sum = vec![0.0f64; width];
        for &token in path {
            let state = &states.f32s()[token as usize * width..][..width];
            sum.iter_mut().zip(state).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        sum.into_iter().map(|sum| (sum / path.len().max(1) as f64) as f32).collect()
    };
    (0..rows.len()).map(mean).collect()
}

fn states(model: &LanguageModel, forest: &Forest) -> Tensor {
    on_pool(|| {
        let tape = Tape::new();
        let states = match model.family() {
            Family::Seq2Seq => model.encode(&tape, forest, None),
            Family::Causal | Family::Masked => model.states(&tape, forest, None, (None, None)),
        };
        states.tensor().clone()
    })
}
