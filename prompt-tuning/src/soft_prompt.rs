//! A soft prompt: a few vectors that stand where token embeddings would, or keys and values before those of every layer.

use std::path::Path;

use autograd::Value;
use tensor::Tensor;

use crate::error::{Error, Result};

/// Trainable vectors, one per virtual token.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftPrompt {
    /// What the vectors are.
    pub kind: Kind,
    /// Virtual tokens.
    pub n_tokens: usize,
    /// Width of each: the model's, or for a prefix that of the keys and values of all layers together.
    pub d_model: usize,
    /// `[n_tokens, d_model]`, row by row.
    pub values: Vec<f32>,
}

/// What the vectors of a prompt are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// They stand among the token embeddings.
    #[default]
    Soft,
    /// Each is, layer by layer, a key and a value.
    Prefix,
}

/// How wide the vectors of a model's prompts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// Of its embeddings.
    pub d_model: usize,
    /// Of the keys and values of all its layers together.
    pub prefix: usize,
}

impl Widths {
    /// Those of a model.
    pub fn of(config: &model::Config) -> Widths {
        let prefix = 2 * config.n_prefix_layers() * config.prefix_width();
        Widths { d_model: config.d_model, prefix }
    }

    /// That of a prompt of this kind.
    pub fn get(self, kind: Kind) -> usize {
        match kind {
            Kind::Soft => self.d_model,
            Kind::Prefix => self.prefix,
        }
    }
}

impl SoftPrompt {
    /// Panics when there are not `n_tokens * d_model` values.
    pub fn new(n_tokens: usize, d_model: usize, values: Vec<f32>) -> SoftPrompt {
        assert_eq!(values.len(), n_tokens * d_model, "values of {n_tokens} tokens of width {d_model}");
        SoftPrompt { kind: Kind::Soft, n_tokens, d_model, values }
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

    /// As the model takes it; nothing is recorded for it.
    pub fn constant(&self) -> model::Prompt {
        let value = Value::constant(Tensor::from_vec(&[self.n_tokens, self.d_model], self.values.clone()));
        match self.kind {
            Kind::Soft => model::Prompt::Soft(value),
            Kind::Prefix => model::Prompt::Prefix(value),
        }
    }

    /// How many vectors the tokens of a row can name.
    pub fn n_soft(&self) -> usize {
        match self.kind {
            Kind::Soft => self.n_tokens,
            Kind::Prefix => 0,
        }
    }

    /// How many positions it takes before the first token of a row.
    pub fn n_ahead(&self) -> usize {
        self.n_tokens - self.n_soft()
    }

    /// That a prompt read from `path` can be used: it has tokens, numbers, and the width of the model.
    pub(crate) fn check(&self, path: &Path, widths: Widths) -> Result<()> {
        let width = widths.get(self.kind);
        if self.d_model != width {
            let why = format!(
                "its vectors have width {}, the model's have {width}: it was made for another model",
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
        let widths = Widths { d_model: 3, prefix: 12 };
        assert!(prompt.check(path, widths).is_ok());
        let prefix = SoftPrompt { kind: Kind::Prefix, ..prompt.clone() };
        assert!(prefix.check(path, widths).unwrap_err().to_string().contains("the model's have 12"));
        prompt.row_mut(1)[0] = f32::NAN;
        assert!(prompt.check(path, widths).unwrap_err().to_string().contains("virtual token 1 holds NaN"));
    }
}
