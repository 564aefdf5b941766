//! Classifiers: over the final hidden state `h` of one token, a linear layer with one output per label in place of the
//! language-model head.
//!
//! ```text
//! causal   logits = score h                            h of the last token, which has seen all others
//! BERT     logits = classifier tanh(pooler h) + bias   h of the first token, [CLS]
//! ```
//!
//! To everything else the labels are a vocabulary of a few tokens, one of which is predicted at that place. Names and layout are
//! those of transformers' `…ForSequenceClassification`. Source: Radford et al. 2018; Devlin et al. 2018.

use autograd::{Linear, Value};
use tensor::Tensor;

use crate::layers::linear_layer;
use crate::read::Keys;
use crate::weights::Weights;
use crate::{Config, Error, Family, LanguageModel, Result, bert};

/// How the names of classifiers end in `architectures`.
pub(crate) const ARCHITECTURE: &str = "ForSequenceClassification";
/// More labels than any model has.
const MOST_LABELS: usize = 1 << 20;

const SCORE: &str = "score";
const CLASSIFIER: &str = "classifier";

/// What a classifier's `config.json` calls its labels, by index; transformers leaves out the names when they are its usual ones.
///
/// # Errors
/// It predicts numbers, or several labels at a time; a label without name.
pub(crate) fn labels(keys: &Keys) -> Result<Vec<String>> {
    const KIND: &str = "single_label_classification";
    if let Some(other) = keys.string("problem_type")?.filter(|&kind| kind != KIND) {
        return Err(keys.unsupported(format!("`problem_type` `{other}` is not supported; only {KIND} is")));
    }
    let names = keys.object("id2label")?;
    let n = match &names {
        Some(names) => names.len(),
        None => keys.size("num_labels")?.unwrap_or(2),
    };
    if !(2..=MOST_LABELS).contains(&n) {
        return Err(keys.unsupported(format!("a classifier of {n} labels is not supported; from 2 are")));
    }
    let name = |i: usize| match &names {
        None => Ok(format!("LABEL_{i}")),
        Some(names) => {
            let name = names.string(&i.to_string())?.map(String::from);
            name.ok_or_else(|| {
                keys.config(format!("`id2label` has {n} labels, but none with the number {i}"))
            })
        }
    };
    (0..n).map(name).collect()
}

/// The layer whose outputs are the labels, `d_model -> n_labels`.
pub(crate) fn head(weights: &Weights, config: &Config, n_labels: usize) -> Result<Linear> {
    let shape = (config.d_model, n_labels);
    match config.architecture.family() {
        Family::Masked => linear_layer(weights, CLASSIFIER, shape, true),
        Family::Causal | Family::Seq2Seq => linear_layer(weights, SCORE, shape, false),
    }
}

/// Names and shapes of the weights that a classifier of `n_labels` has in place of a language-model head.
fn weights(model: &LanguageModel, n_labels: usize) -> Vec<(String, Vec<usize>)> {
    let d = model.config().d_model;
    let layer = |name: &str, shape: [usize; 2]| {
        [(format!("{name}.weight"), shape.to_vec()), (format!("{name}.bias"), vec![shape[0]])]
    };
    match model.family() {
        Family::Masked => {
            let pooler = bert::pooler_name(|name| model.checkpoint().contains(name));
            [layer(&pooler, [d, d]), layer(CLASSIFIER, [n_labels, d])].concat()
        }
        Family::Causal | Family::Seq2Seq => vec![(format!("{SCORE}.weight"), vec![n_labels, d])],
    }
}

impl LanguageModel {
    /// This model with a classifier of `labels` in place of its language-model head. What the checkpoint lacks of it is made by
    /// `make` from its name and shape, in f32; a BERT's file may have the pooler.
    ///
    /// # Errors
    /// The model is an encoder-decoder, or has a classifier already.
    pub fn with_classifier(
        &self,
        labels: &[String],
        mut make: impl FnMut(&str, &[usize]) -> Tensor,
    ) -> Result<LanguageModel> {
        if self.family() == Family::Seq2Seq {
            let why =
                "is an encoder-decoder, which gets no classifier here; it answers a template with `{label}`";
            return Err(Error::Option(format!("`{}` {why}", self.config().name_or_path)));
        }
        self.check_speaks()?;
        let all = weights(self, labels.len()).into_iter();
        let new = all.filter(|(name, _)| !self.checkpoint().contains(name));
        let made = new.map(|(name, shape)| {
            let value = Value::constant(make(&name, &shape));
            (name, value)
        });
        let config = Config { labels: Some(labels.to_vec()), ..self.config().clone() };
        self.reassembled(config, &made.collect())
    }

    /// Names of the weights that a classifier has in place of a language-model head, as its checkpoint calls them; none for
    /// another model.
    pub fn classifier_weights(&self) -> Vec<String> {
        let n_labels = self.config().labels.as_ref().map(Vec::len);
        n_labels.map_or_else(Vec::new, |n| weights(self, n).into_iter().map(|(name, _)| name).collect())
    }

    /// That the model predicts tokens.
    ///
    /// # Errors
    /// It is a classifier.
    pub fn check_speaks(&self) -> Result<()> {
        match &self.config().labels {
            None => Ok(()),
            Some(labels) => Err(Error::Option(format!(
                "`{}` is a classifier of {} labels and predicts no tokens; it is for eval, predict and train --method full --head",
                self.config().name_or_path,
                labels.len()
            ))),
        }
    }
}
