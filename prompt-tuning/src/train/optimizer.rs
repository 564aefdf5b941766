//! The optimizers and what they keep between steps.

use kernels::Isa;
use kernels::optim::{self, FactoredMoments};
use serde::{Deserialize, Serialize};
use tensor::Tensor;

/// Which optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Loshchilov & Hutter 2019.
    #[default]
    Adamw,
    /// Shazeer & Stern 2018, parameter scaling off, as in Lester et al. 2021.
    Adafactor,
    /// Plain gradient descent.
    Sgd,
}

/// An optimizer over one parameter: a matrix, or a vector, which is one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    kind: Kind,
    weight_decay: f32,
    /// Steps taken.
    pub steps: u64,
    /// AdamW: both moments, `[rows*cols]`. Adafactor: `[rows]` and `[cols]`. SGD: the velocity and nothing.
    pub moments: [Vec<f32>; 2],
}

impl Optimizer {
    /// An optimizer that has taken no step.
    pub fn new(kind: Kind, weight_decay: f32, shape: &[usize]) -> Optimizer {
        let cols = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / cols.max(1);
        let sizes = match kind {
            Kind::Adamw => [rows * cols, rows * cols],
            Kind::Adafactor => [rows, cols],
            Kind::Sgd => [rows * cols, 0],
        };
        Optimizer { kind, weight_decay, steps: 0, moments: sizes.map(|n| vec![0.0; n]) }
    }

    /// One step with learning rate `lr`.
    pub fn step(&mut self, lr: f32, param: &mut [f32], grad: &[f32]) {
        self.steps += 1;
        let weight_decay = self.weight_decay;
        let [a, b] = &mut self.moments;
        let isa = Isa::best();
        match self.kind {
            Kind::Adamw => {
                let settings = optim::AdamW { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay };
                optim::adamw(isa, settings, self.steps, param, grad, a, b);
            }
            Kind::Adafactor => {
                let settings =
                    optim::Adafactor { lr, decay: 0.8, clip_threshold: 1.0, eps: 1e-30, weight_decay };
                optim::adafactor(isa, settings, self.steps, param, grad, FactoredMoments { row: a, col: b });
            }
            Kind::Sgd => optim::sgd(isa, optim::Sgd { lr, momentum: 0.0, weight_decay }, param, grad, a),
        }
    }
}

/// Scales the gradient down to norm `max` when it is longer; returns the norm it had, over all parameters.
pub fn clip(grads: &mut [Tensor], max: Option<f32>) -> f32 {
    let squares = grads.iter().map(|grad| kernels::elementwise::sum_of_squares(grad.f32s()));
    let norm = squares.sum::<f64>().sqrt() as f32;
    if let Some(max) = max
        && norm > max
    {
        // torch.nn.utils.clip_grad_norm_ has the same small term
        let factor = max / (norm + 1e-6);
        let numbers = grads.iter_mut().flat_map(|grad| grad.make_mut());
        numbers.for_each(|g| *g *= factor);
    }
    norm
}
