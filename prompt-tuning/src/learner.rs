//! What a run trains: a prompt and what makes it, or weights of the model itself.
//!
//! Both are a list of parameters. They differ in what becomes of them: a prompt stands in front of the frozen model,
//! trained weights make another model.

use std::borrow::Cow;

use autograd::{Tape, Value};
use model::{LanguageModel, Prompt};

use crate::parameter::Parameter;
use crate::prompt_encoder::PromptEncoder;
use crate::soft_prompt::SoftPrompt;
use crate::trained_weights::TrainedWeights;

/// The trainable part of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Learner {
    /// A prompt.
    Prompt(PromptEncoder),
    /// Weights of the model.
    Weights(TrainedWeights),
}

impl<P: Into<PromptEncoder>> From<P> for Learner {
    fn from(prompt: P) -> Learner {
        Learner::Prompt(prompt.into())
    }
}

impl From<TrainedWeights> for Learner {
    fn from(weights: TrainedWeights) -> Learner {
        Learner::Weights(weights)
    }
}

/// What [`Learner::adapted`] gives: a model, and what stands in front of its texts.
#[derive(Debug)]
pub struct Adapted<'a> {
    /// The frozen model, or one with trained weights.
    pub model: Cow<'a, LanguageModel>,
    /// In front of every text.
    pub prompt: Option<SoftPrompt>,
}

impl Learner {
    /// What the optimizer moves.
    pub fn parameters(&self) -> &[Parameter] {
        match self {
            Learner::Prompt(encoder) => &encoder.parameters,
            Learner::Weights(weights) => &weights.parameters,
        }
    }

    /// The same, to be moved.
    pub fn parameters_mut(&mut self) -> &mut [Parameter] {
        match self {
            Learner::Prompt(encoder) => &mut encoder.parameters,
            Learner::Weights(weights) => &mut weights.parameters,
        }
    }

    /// How many numbers are trained.
    pub fn len(&self) -> usize {
        self.parameters().iter().map(|p| p.values().len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Model and prompt from leaves of `tape`, one for each parameter.
    pub(crate) fn forward<'a>(
        &self,
        tape: &Tape,
        base: &'a LanguageModel,
        leaves: &[Value],
    ) -> (Cow<'a, LanguageModel>, Option<Prompt>) {
        match self {
            Learner::Prompt(encoder) => (Cow::Borrowed(base), Some(encoder.forward(tape, leaves))),
            Learner::Weights(weights) => (Cow::Owned(weights.model(base, leaves)), None),
        }
    }

    /// What has been learned so far, put to use.
    pub fn adapted<'a>(&self, base: &'a LanguageModel) -> Adapted<'a> {
        match self {
            Learner::Prompt(encoder) => {
                Adapted { model: Cow::Borrowed(base), prompt: Some(encoder.prompt()) }
            }
            Learner::Weights(weights) => {
                let values: Vec<Value> = weights.parameters.iter().map(Parameter::constant).collect();
                Adapted { model: Cow::Owned(weights.model(base, &values)), prompt: None }
            }
        }
    }

    /// The prompt, if that is what is trained.
    pub fn prompt(&self) -> Option<SoftPrompt> {
        match self {
            Learner::Prompt(encoder) => Some(encoder.prompt()),
            Learner::Weights(_) => None,
        }
    }
}
