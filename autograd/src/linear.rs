//! A linear layer: a weight, which way round it is, and maybe a bias.

use kernels::matmul::{self, Layout, Precision};

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

    /// The weight as the kernels take it.
    pub fn weight(&self) -> matmul::Weight<'_> {
        matmul::Weight {
            elements: self.weight.elements(),
            layout: self.layout,
            n_in: self.n_in(),
            n_out: self.n_out(),
            precision: self.precision,
        }
    }

    /// The bias, `[n_out]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(Weight::f32s)
    }

    /// Weight and bias as values of `tape`.
    pub(crate) fn values(&self, tape: &Tape) -> (Value, Option<Value>) {
        (self.weight.value(tape), self.bias.as_ref().map(|bias| bias.value(tape)))
    }

    /// `d_W` from the rows of input and output, added to `before` where there is a gradient already.
    pub(crate) fn d_weight(&self, x: &[f32], d_y: &[f32], before: Option<&[f32]>, d_w: &mut [f32]) {
        let shape = matmul::reference::Shape { layout: self.layout, n_in: self.n_in(), n_out: self.n_out() };
        matmul::backward_weight(kernels::Isa::best(), (x, d_y), shape, before, d_w);
    }

    /// The dimensions of the weight as it is stored.
    pub(crate) fn shape(&self) -> &[usize] {
        self.weight.shape()
    }
}
