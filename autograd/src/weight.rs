//! A weight of a model: frozen, where it lies in its file, or a value of the tape that is trained.
//!
//! This is the only place where the two differ. A frozen weight is a constant of every tape, so an operation over it
//! remembers nothing for its gradient and computes none. A trainable one is a value like any other: a leaf while a model is
//! trained, a constant when it is used.

use kernels::Elements;
use tensor::{Frozen, Tensor};

use crate::{Tape, Value};

/// Numbers of a layer.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Where it lies.
    Frozen(Frozen),
    /// In f32, with a gradient if it is a leaf.
    Trainable(Value),
}

impl From<Frozen> for Weight {
    fn from(frozen: Frozen) -> Weight {
        Weight::Frozen(frozen)
    }
}

impl From<&Value> for Weight {
    fn from(value: &Value) -> Weight {
        Weight::Trainable(value.clone())
    }
}

impl Weight {
    /// The numbers, to be read.
    pub fn tensor(&self) -> &Tensor {
        match self {
            Weight::Frozen(frozen) => frozen.tensor(),
            Weight::Trainable(value) => value.tensor(),
        }
    }

    /// As a value of `tape`: a constant unless its gradient is wanted.
    pub fn value(&self, tape: &Tape) -> Value {
        match self {
            Weight::Frozen(frozen) => Value::constant(frozen.tensor().clone()),
            Weight::Trainable(value) => tape.adopt(value),
        }
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        self.tensor().shape()
    }

    /// The numbers in their dtype.
    pub fn elements(&self) -> Elements<'_> {
        self.tensor().elements()
    }

    /// The numbers of an f32 weight. Panics for another dtype; see [`Weight::widened`].
    pub fn f32s(&self) -> &[f32] {
        self.tensor().f32s()
    }

    /// An f32 version: itself, or a widened copy. For the small vectors (norms, biases) only.
    pub fn widened(&self) -> Weight {
        match self {
            Weight::Frozen(frozen) => Weight::Frozen(frozen.widened()),
            Weight::Trainable(value) => Weight::Trainable(value.clone()),
        }
    }
}
