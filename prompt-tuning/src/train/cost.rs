//! What training costs in arithmetic: the multiplications and additions of the products with weights.
//!
//! ```text
//! forward                2 · weights               for each token, through every layer
//! gradient of inputs     2 · weights               through the layers above the lowest thing that is trained
//! gradient of weights    2 · weights               of the matrices that are trained
//! ```
//!
//! The same for the output head, for the tokens that are scored only. Left out: the scores of attention, a few per cent with
//! texts much shorter than the model is wide, and everything that is not a product. Of an encoder-decoder every token is
//! counted through both halves, which is too much.

use model::LanguageModel;

use crate::error::Result;
use crate::learner::Learner;
use crate::trained_weights::{is_table, layer};

/// Multiplications and additions of a step for each token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// For each token that is computed.
    pub per_token: f64,
    /// For each token that is scored, besides.
    pub per_scored: f64,
}

impl Cost {
    /// Of training `learner` on `model`.
    ///
    /// # Errors
    /// A weight that the checkpoint does not have.
    pub fn of(model: &LanguageModel, learner: &Learner) -> Result<Cost> {
        let trained: Vec<&str> = match learner {
            Learner::Prompt(_) => Vec::new(),
            Learner::Weights(weights) => weights.parameters.iter().map(|p| p.name.as_str()).collect(),
        };
        let is_trained = |name: &str| trained.contains(&name);
        // a prompt, or a table of embeddings, stands below the first layer
        let below = trained.is_empty() || trained.iter().any(|name| is_table(name) || layer(name) == Some(0));
        let lowest = match below {
            true => Some(0),
            false => trained.iter().filter_map(|name| layer(name)).min(),
        };
        let mut per_token = 0.0;
        for name in model.weight_names() {
            // what is no layer's is a table or the head
            let Some(layer) = layer(name).filter(|_| !is_table(name)) else { continue };
            let weight = model.checkpoint().tensor_of_any_shape(name).map_err(model::Error::from)?;
            let &[rows, columns] = weight.shape() else { continue };
            let passes =
                1 + usize::from(lowest.is_some_and(|lowest| layer >= lowest)) + usize::from(is_trained(name));
            per_token += (2 * passes * rows * columns) as f64;
        }
        let (vocabulary, width) = (model.embedding().rows(), model.embedding().width());
        let (outputs, head_trained) = match &model.config().labels {
            Some(labels) => (labels.len(), !trained.is_empty()),
            None => (vocabulary, trained.iter().any(|name| name.contains("lm_head") || is_tied(name))),
        };
        let per_scored = (2 * (2 + usize::from(head_trained)) * outputs * width) as f64;
        Ok(Cost { per_token, per_scored })
    }

    /// Of so many tokens.
    pub fn flops(&self, tokens: usize, scored: usize) -> f64 {
        self.per_token * tokens as f64 + self.per_scored * scored as f64
    }
}

/// Whether a table of embeddings may be the head, too.
fn is_tied(name: &str) -> bool {
    is_table(name) && !name.contains("wpe") && !name.contains("position") && !name.contains("token_type")
}
