//! A soft prompt: a few vectors that stand where token embeddings would.

use std::path::Path;

use crate::error::{Error, Result};

/// Trainable vectors, one per virtual token.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftPrompt {
    /// Virtual tokens.
    pub n_tokens: usize,
    /// Width of each, the model's.
    pub d_model: usize,
    /// `[n_tokens, d_model]`, row by row.
    pub values: Vec<f32>,
}

impl SoftPrompt {
    /// Panics when there are not `n_tokens * d_model` values.
    pub fn new(n_tokens: usize, d_model: usize, values: Vec<f32>) -> SoftPrompt {
        assert_eq!(values.len(), n_tokens * d_model, "values of {n_tokens} tokens of width {d_model}");
        SoftPrompt { n_tokens, d_model, values }
    }

    /// All zero.
    pub fn zeros(n_tokens: usize, d_model: usize) -> SoftPrompt {
        SoftPrompt::new(n_tokens, d_model, vec![0.0; n_tokens * d_model])
    }

    /// The vector of virtual token `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.d_model..][..self.d_model]
    }

    /// The vector of virtual token `i`, to be written.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.values[i * self.d_model..][..self.d_model]
    }

    /// That a prompt read from `path` can be used: it has tokens, numbers, and the width of the model.
    pub(crate) fn check(&self, path: &Path, d_model: usize) -> Result<()> {
        if self.d_model != d_model {
            let why = format!(
                "its vectors have width {}, the model's have {d_model}: it was made for another model",
                self.d_model
            );
            return Err(Error::file(path, why));
        }
        self.check_numbers(path)
    }

    pub(crate) fn check_numbers(&self, path: &Path) -> Result<()> {
        if self.values.is_empty() {
            return Err(Error::file(path, "it holds no virtual token"));
        }
        match self.values.iter().position(|x| !x.is_finite()) {
            Some(i) => {
                let (token, x) = (i / self.d_model, self.values[i]);
                Err(Error::file(
                    path,
                    format!("virtual token {token} holds {x}; the run that made it has diverged"),
                ))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_checks() {
        let mut prompt = SoftPrompt::new(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(prompt.row(1), [4.0, 5.0, 6.0]);
        let path = Path::new("dir");
        assert!(prompt.check(path, 3).is_ok());
        assert!(prompt.check(path, 4).unwrap_err().to_string().contains("another model"));
        prompt.row_mut(1)[0] = f32::NAN;
        assert!(prompt.check(path, 3).unwrap_err().to_string().contains("virtual token 1 holds NaN"));
    }
}
