//! Trainable numbers with a name: what an optimizer moves and a checkpoint keeps.

use autograd::Value;
use tensor::Tensor;

/// Trainable numbers.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// As in PEFT's prompt encoders, or in the checkpoint of the model.
    pub name: String,
    /// f32, `[rows, columns]` or `[length]`.
    pub tensor: Tensor,
}

impl PartialEq for Parameter {
    fn eq(&self, other: &Parameter) -> bool {
        self.name == other.name && self.shape() == other.shape() && self.values() == other.values()
    }
}

impl Parameter {
    /// Panics when the shape has another number of elements.
    pub fn new(name: impl Into<String>, shape: &[usize], values: Vec<f32>) -> Parameter {
        Parameter { name: name.into(), tensor: Tensor::from_vec(shape, values) }
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    /// The numbers.
    pub fn values(&self) -> &[f32] {
        self.tensor.f32s()
    }

    /// The numbers, to be changed. Clones made before keep theirs.
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.tensor.make_mut()
    }

    /// As a value without a gradient.
    pub fn constant(&self) -> Value {
        Value::constant(self.tensor.clone())
    }
}
