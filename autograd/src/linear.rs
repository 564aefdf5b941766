//! A linear layer: a weight, which way round it is, and maybe a bias.
//!
//! The weight is frozen, where it lies in its file, or a value of the tape. This is the only place where the two differ: a
//! frozen weight has no node, so its layer remembers no input and computes no gradient of it.

use kernels::matmul::{Layout, Precision, Weight};
use tensor::{Frozen, Tensor};

use crate::Value;

/// `y = x W + b`
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Parameter,
    layout: Layout,
    bias: Option<Parameter>,
    precision: Precision,
}

/// Numbers of a layer.
#[derive(Clone, Debug)]
enum Parameter {
    Frozen(Frozen),
    Trained(Value),
}

impl Parameter {
    fn tensor(&self) -> &Tensor {
        match self {
            Parameter::Frozen(frozen) => frozen.tensor(),
            Parameter::Trained(value) => value.tensor(),
        }
    }

    fn value(&self) -> Option<&Value> {
        match self {
            Parameter::Frozen(_) => None,
            Parameter::Trained(value) => Some(value),
        }
    }
}

impl Linear {
    /// A frozen layer. Panics when the weight is not a matrix or the bias does not fit it: loaders check shapes before.
    pub fn new(weight: Frozen, layout: Layout, bias: Option<Frozen>) -> Linear {
        let bias = bias.map(|b| Parameter::Frozen(b.widened()));
        Linear::of(Parameter::Frozen(weight), layout, bias)
    }

    /// A layer whose weight and bias are values of the tape: leaves, to be trained. Panics as [`Linear::new`] does.
    pub fn trained(weight: &Value, layout: Layout, bias: Option<&Value>) -> Linear {
        let bias = bias.map(|b| Parameter::Trained(b.clone()));
        Linear::of(Parameter::Trained(weight.clone()), layout, bias)
    }

    fn of(weight: Parameter, layout: Layout, bias: Option<Parameter>) -> Linear {
        assert_eq!(weight.tensor().shape().len(), 2, "a linear layer has a matrix");
        let linear = Linear { weight, layout, bias, precision: Precision::F32 };
        if let Some(bias) = linear.bias() {
            assert_eq!(bias.len(), linear.n_out(), "one bias per output");
        }
        linear
    }

    /// How its products are computed from now on.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// Width of the input.
    pub fn n_in(&self) -> usize {
        match self.layout {
            Layout::OutIn => self.weight.tensor().shape()[1],
            Layout::InOut => self.weight.tensor().shape()[0],
        }
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        match self.layout {
            Layout::OutIn => self.weight.tensor().shape()[0],
            Layout::InOut => self.weight.tensor().shape()[1],
        }
    }

    /// The weight as the kernels take it.
    pub fn weight(&self) -> Weight<'_> {
        Weight {
            elements: self.weight.tensor().elements(),
            layout: self.layout,
            n_in: self.n_in(),
            n_out: self.n_out(),
            precision: self.precision,
        }
    }

    /// The bias, `[n_out]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(|bias| bias.tensor().f32s())
    }

    /// Weight and bias where they are values of the tape.
    pub(crate) fn values(&self) -> [Option<&Value>; 2] {
        [self.weight.value(), self.bias.as_ref().and_then(Parameter::value)]
    }
}
