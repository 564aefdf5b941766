//! A frozen linear layer: a weight where it lies, which way round it is, and maybe a bias.

use kernels::matmul::{Layout, Precision, Weight};
use tensor::Frozen;

/// `y = x W + b` with frozen `W` and `b`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Frozen,
    layout: Layout,
    bias: Option<Frozen>,
    precision: Precision,
}

impl Linear {
    /// Panics when the weight is not a matrix or the bias does not fit it: loaders check shapes before.
    pub fn new(weight: Frozen, layout: Layout, bias: Option<Frozen>) -> Linear {
        assert_eq!(weight.shape().len(), 2, "a linear layer has a matrix");
        let linear = Linear { weight, layout, bias: bias.map(|b| b.widened()), precision: Precision::F32 };
        if let Some(bias) = &linear.bias {
            assert_eq!(bias.shape(), [linear.n_out()], "one bias per output");
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
    pub fn weight(&self) -> Weight<'_> {
        Weight {
            elements: self.weight.elements(),
            layout: self.layout,
            n_in: self.n_in(),
            n_out: self.n_out(),
            precision: self.precision,
        }
    }

    /// The bias, `[n_out]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(Frozen::f32s)
    }
}
