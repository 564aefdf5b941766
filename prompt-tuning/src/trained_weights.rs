//! Weights that are trained: copies of those of a model, under their names, in f32.
//!
//! The model's file is only read. While copies are trained, a model with them in place of its own weights is made for each
//! step ([`LanguageModel::with`]); what comes out is a checkpoint of its own ([`crate::checkpoint_folder`]).

use std::collections::HashMap;

use autograd::Value;
use model::LanguageModel;
use wildmatch::WildMatch;

use crate::error::{Error, Result};
use crate::parameter::Parameter;

/// Which weights of a model are trained.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Selection(String);

impl Default for Selection {
    fn default() -> Selection {
        Selection("all".into())
    }
}

impl std::str::FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Selection, String> {
        let empty = text.split(',').any(|part| part.trim().is_empty());
        let last = text.strip_prefix("last:").map(str::parse::<usize>);
        match last {
            Some(Ok(0) | Err(_)) => Err(format!("`{text}`: how many of the last layers? for example last:2")),
            _ if empty => Err(format!("`{text}` has an empty pattern; patterns are separated by commas")),
            _ => Ok(Selection(text.into())),
        }
    }
}

impl std::fmt::Display for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Selection {
    /// Whether only the head of a classifier is trained: a linear probe.
    pub fn is_head(&self) -> bool {
        self.0 == "head"
    }

    /// The weights of `model` that are trained; of a classifier, its head is always among them.
    ///
    /// # Errors
    /// Nothing is selected, or the model is quantised.
    pub fn names<'m>(&self, model: &'m LanguageModel) -> Result<Vec<&'m String>> {
        check_trainable(model)?;
        let (n_layers, head) = (model.config().n_layers, model.classifier_weights());
        let is_trained = |name: &&String| head.contains(name) || self.takes(name, n_layers);
        let names: Vec<&String> = model.weight_names().iter().filter(is_trained).collect();
        if names.is_empty() {
            let some: Vec<&str> = model.weight_names().iter().take(3).map(String::as_str).collect();
            return Err(Error::Input(format!(
                "--weights {self}: no weight of the model has such a name; names are like {}",
                some.join(", ")
            )));
        }
        Ok(names)
    }

    /// Whether the weight `name` of a model of `n_layers` is trained.
    fn takes(&self, name: &str, n_layers: usize) -> bool {
        match (&*self.0, self.0.strip_prefix("last:").and_then(|n| n.parse::<usize>().ok())) {
            ("all", _) => true,
            // in `names`, whatever the selection
            ("head", _) => false,
            // Ben Zaken, Goldberg & Ravfogel 2022
            ("bitfit", _) => name.ends_with(".bias") || name.ends_with(".beta"),
            (_, Some(last)) => layer(name).is_none_or(|i| i + last >= n_layers) && !is_table(name),
            (patterns, None) => patterns.split(',').any(|p| WildMatch::new(p.trim()).matches(name)),
        }
    }
}

/// The number of the layer in a weight's name.
pub(crate) fn layer(name: &str) -> Option<usize> {
    name.split('.').find_map(|part| part.parse().ok())
}

/// Whether it is a table of embeddings, which stands before the first layer.
pub(crate) fn is_table(name: &str) -> bool {
    let tables = ["wte.", "wpe.", "embed_tokens.", "embeddings.", "shared.", "relative_attention_bias."];
    tables.iter().any(|table| name.contains(table))
}

/// That a model's weights can be trained.
///
/// # Errors
/// It is quantised.
pub(crate) fn check_trainable(model: &LanguageModel) -> Result<()> {
    match model.checkpoint().metadata() {
        None => Ok(()),
        Some(_) => Err(Error::Input(
            "the weights of a GGUF file are not trained; use the model's Hugging Face folder, or train a prompt".into(),
        )),
    }
}

/// Trained copies of weights.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedWeights {
    /// Under the names of the checkpoint.
    pub parameters: Vec<Parameter>,
}

impl TrainedWeights {
    /// Copies of the selected weights; of a classifier, its head is always among them.
    ///
    /// # Errors
    /// Nothing is selected, or the model is quantised.
    pub fn of(model: &LanguageModel, selection: &Selection) -> Result<TrainedWeights> {
        let copy = |name: &String| {
            let mut tensor = model.weight(name)?;
            tensor.make_own();
            Ok(Parameter { name: name.clone(), tensor })
        };
        let parameters = selection.names(model)?.into_iter().map(copy).collect::<Result<_>>()?;
        Ok(TrainedWeights { parameters })
    }

    /// The model with `values`, one for each parameter, in place of its weights.
    pub fn model(&self, base: &LanguageModel, values: &[Value]) -> LanguageModel {
        let names = self.parameters.iter().map(|p| p.name.clone());
        base.with(&names.zip(values.iter().cloned()).collect::<HashMap<_, _>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(selection: &str, name: &str) -> bool {
        selection.parse::<Selection>().unwrap().takes(name, 12)
    }

    #[test]
    fn selections_by_name() {
        assert!(takes("all", "wte.weight"));
        assert!(takes("bitfit", "h.0.ln_1.bias") && !takes("bitfit", "h.0.ln_1.weight"));
        for name in ["h.11.attn.c_attn.weight", "h.10.ln_1.bias", "ln_f.weight"] {
            assert!(takes("last:2", name), "{name}");
        }
        for name in ["h.9.attn.c_attn.weight", "wte.weight", "transformer.wpe.weight", "shared.weight"] {
            assert!(!takes("last:2", name), "{name}");
        }
        assert!(takes("*.bias, wte.*", "wte.weight") && takes("*.bias, wte.*", "h.3.mlp.c_fc.bias"));
        assert!(!takes("*.bias,wte.*", "h.3.mlp.c_fc.weight"));
    }

    #[test]
    fn selections_that_cannot_be() {
        for text in ["", "a,,b", "last:0", "last:x"] {
            assert!(text.parse::<Selection>().is_err(), "{text}");
        }
    }
}
