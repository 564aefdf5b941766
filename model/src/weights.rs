//! Where the weights of a model come from: its checkpoint, where they lie, or values that are trained in their place.

use std::cell::RefCell;
use std::collections::HashMap;

use autograd::{Value, Weight};
use tensor::Checkpoint;

use crate::Result;

/// Values that stand in for weights, by the weight's name in the checkpoint, or are weights that it lacks.
pub type Trained = HashMap<String, Value>;

/// The weights of a model by name, as the loaders of the architectures ask for them.
pub(crate) struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    trained: &'a Trained,
    asked: RefCell<Vec<String>>,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, trained: &'a Trained) -> Weights<'a> {
        Weights { checkpoint, trained, asked: RefCell::default() }
    }

    /// The file or files.
    pub(crate) fn checkpoint(&self) -> &'a Checkpoint {
        self.checkpoint
    }

    /// Whether the checkpoint has a tensor of this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.checkpoint.contains(name)
    }

    /// The weight `name`, which must have the shape `expected`.
    ///
    /// # Errors
    /// It is missing, has another shape, or a dtype we do not compute with.
    pub(crate) fn tensor(&self, name: &str, expected: &[usize]) -> Result<Weight> {
        let weight = match self.trained.get(name) {
            Some(value) => {
                assert_eq!(value.tensor().shape(), expected, "what stands in for `{name}`");
                Weight::from(value)
            }
            None => Weight::from(self.checkpoint.tensor(name, expected)?),
        };
        let mut asked = self.asked.borrow_mut();
        if !asked.iter().any(|known| known == name) {
            asked.push(name.to_string());
        }
        Ok(weight)
    }

    /// The names that were asked for, in order.
    pub(crate) fn into_asked(self) -> Vec<String> {
        self.asked.into_inner()
    }
}
