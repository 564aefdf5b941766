//! Embeddings of texts by the model itself: the mean of its final hidden states over the tokens of a text
//! ([`LanguageModel::mean_states`]), scaled to length 1.

use kernels::Isa;
use kernels::matmul::{self, Elements, Epilogue, Layout, Precision, Weight};
use model::{LanguageModel, Source, Tokenizer};

use crate::error::Result;
use crate::evaluate::not_finite;

/// More rows than any kernel calls few.
const MANY_ROWS: usize = 16;

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

    /// The vectors of `texts`, in that order.
    pub fn rows(&self, texts: &[usize]) -> Embeddings {
        let values = texts.iter().flat_map(|&i| self.row(i)).copied().collect();
        Embeddings { width: self.width, values }
    }

    /// The cosines of the angles between all vectors here and all of `others`, `[self.len(), others.len()]`. They do not
    /// depend on what other vectors there are. Panics when the widths differ.
    pub fn cosines(&self, others: &Embeddings) -> Vec<f32> {
        assert_eq!(self.width, others.width, "vectors of one model");
        // products of few rows are summed in another order, so there are never few
        let n_rows = self.len().max(MANY_ROWS);
        let mut rows = self.values.clone();
        rows.resize(n_rows * self.width, 0.0);
        let transposed = Weight {
            elements: Elements::F32(&others.values),
            layout: Layout::OutIn,
            n_in: self.width,
            n_out: others.len(),
            precision: Precision::F32,
        };
        let mut cosines = vec![0.0; n_rows * others.len()];
        matmul::forward(Isa::best(), &rows, transposed, Epilogue::default(), &mut cosines);
        cosines.truncate(self.len() * others.len());
        cosines
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

/// Embeddings of `texts`, `batch` at a time; what is longer than the context window is cut, and a text without tokens is a
/// vector of zeros. `progress` is told how many are done.
///
/// # Errors
/// The tokenizer refuses a text, its tokens are not the model's, or the model computes NaN.
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
            let ids = tokenizer.encode(text, true)?.into_iter().take(model.config().n_positions);
            Ok(ids.map(Source::Text).collect())
        };
        let rows = part.iter().map(row).collect::<Result<Vec<Vec<Source>>>>()?;
        values.extend_from_slice(model.mean_states(&rows)?.f32s());
        progress(values.len() / width);
    }
    match values.iter().all(|x| x.is_finite()) {
        true => Ok(Embeddings::new(width, values)),
        false => Err(not_finite(model)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn random(seed: u64, n: usize, width: usize) -> Embeddings {
        let mut rng = Rng::new(seed);
        Embeddings::new(width, (0..n * width).map(|_| rng.normal() as f32).collect())
    }

    #[test]
    fn cosines_of_unit_vectors() {
        let v = Embeddings::new(2, vec![3.0, 4.0, 0.0, 0.0, 0.0, -2.0]);
        assert_eq!((v.row(0), v.row(1), v.row(2)), (&[0.6, 0.8][..], &[0.0, 0.0][..], &[0.0, -1.0][..]));
        let expected = [1.0, 0.0, -0.8, 0.0, 0.0, 0.0, -0.8, 0.0, 1.0];
        for (a, b) in v.cosines(&v).iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        assert_eq!(v.rows(&[2, 0]).cosines(&v.rows(&[0])).len(), 2);
    }

    /// Else a choice could depend on how many texts are asked.
    #[test]
    fn a_cosine_has_the_same_bits_in_any_company() {
        let (pool, queries) = (random(1, 50, 37), random(2, 40, 37));
        let all = queries.cosines(&pool);
        for i in [0, 7, 39] {
            assert_eq!(queries.rows(&[i]).cosines(&pool), all[i * 50..][..50]);
            assert_eq!(queries.rows(&[i]).cosines(&pool.rows(&[49])), all[i * 50 + 49..][..1]);
        }
    }
}
