//! A linear layer: a weight, which way round it is, and maybe a bias.

use kernels::attention::Heads;
use kernels::matmul::{Layout, Precision};
use tensor::Tensor;
use tensor::ops::product::Matrix;

use crate::ops::AttentionLayer;
use crate::{Tape, Value, Weight};

/// `y = x W + b`
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    layout: Layout,
    bias: Option<Weight>,
    precision: Precision,
}

impl Linear {
    /// A layer. Panics when the weight is not a matrix or the bias does not fit it: loaders check shapes before.
    pub fn new(weight: impl Into<Weight>, layout: Layout, bias: Option<Weight>) -> Linear {
        let (weight, bias) = (weight.into(), bias.map(|bias| bias.widened()));
        assert_eq!(weight.shape().len(), 2, "a linear layer has a matrix");
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

    /// Attention of the layer whose output this one projects: as precise as its products.
    pub fn attention(&self, heads: Heads) -> AttentionLayer {
        AttentionLayer { heads, precision: self.precision }
    }

    /// Width of the input.
    pub fn n_in(&self) -> usize {
        match self.layout {
            Layout::OutIn => self.weight.shape()[1],
            Layout::InOut => self.weight.shape()[0],
        }
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        match self.layout {
            Layout::OutIn => self.weight.shape()[0],
            Layout::InOut => self.weight.shape()[1],
        }
    }

    /// The weight as operations take it.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix {
            tensor: self.weight.tensor(),
            layout: self.layout,
            n_in: self.n_in(),
            n_out: self.n_out(),
            precision: self.precision,
        }
    }

    /// The bias, `[n_out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref().map(Weight::tensor)
    }

    /// Weight and bias as values of `tape`.
    pub(crate) fn values(&self, tape: &Tape) -> (Value, Option<Value>) {
        (self.weight.value(tape), self.bias.as_ref().map(|bias| bias.value(tape)))
    }
}
