//! What stands in front of a text: a soft prompt among its tokens, or a prefix in every layer.

use autograd::{Tape, Value};

use crate::{Config, KvCache};

/// A prompt. While it is trained its value has a node of the tape.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// Vectors among the embeddings, `[n, d_model]`: those that [`crate::Source::Soft`] names (Lester et al. 2021).
    Soft(Value),
    /// Keys and values before those of every layer, `[n, 2 * layers * width]` as [`KvCache::given`] takes them (Li & Liang
    /// 2021). They take the first `n` positions of a row, but are no tokens of it.
    Prefix(Value),
}

impl Prompt {
    /// Its numbers.
    pub fn value(&self) -> &Value {
        match self {
            Prompt::Soft(value) | Prompt::Prefix(value) => value,
        }
    }

    /// The vectors among the embeddings, if it is such a prompt.
    pub fn soft(&self) -> Option<&Value> {
        match self {
            Prompt::Soft(value) => Some(value),
            Prompt::Prefix(_) => None,
        }
    }

    /// The same without a node.
    pub fn constant(&self) -> Prompt {
        let constant = Value::constant(self.value().tensor().clone());
        match self {
            Prompt::Soft(_) => Prompt::Soft(constant),
            Prompt::Prefix(_) => Prompt::Prefix(constant),
        }
    }

    /// How many vectors it has for the tokens of a row to name.
    pub(crate) fn n_soft(prompt: Option<&Prompt>) -> usize {
        prompt.and_then(Prompt::soft).map_or(0, |value| value.tensor().rows())
    }

    /// How many positions it takes before the first token of a row.
    pub fn n_ahead(prompt: Option<&Prompt>) -> usize {
        match prompt {
            Some(Prompt::Prefix(value)) => value.tensor().rows(),
            _ => 0,
        }
    }

    /// What the layers see before the first token.
    pub(crate) fn past(prompt: Option<&Prompt>, tape: &Tape, config: &Config) -> Option<KvCache> {
        match prompt {
            Some(Prompt::Prefix(value)) => Some(KvCache::given(tape, value, config)),
            _ => None,
        }
    }
}
