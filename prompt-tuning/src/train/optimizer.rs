//! The optimizers and what they keep between steps.

use kernels::optim::{Adafactor, AdamW, Sgd};
use serde::{Deserialize, Serialize};
use tensor::Tensor;
use tensor::ops::optim;

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
#[derive(Clone, Debug)]
pub struct Optimizer {
    kind: Kind,
    weight_decay: f32,
    /// Steps taken.
    pub steps: u64,
    /// AdamW: both moments, `[rows*cols]`. Adafactor: `[rows]` and `[cols]`. SGD: the velocity and nothing.
    pub moments: [Tensor; 2],
}

impl PartialEq for Optimizer {
    fn eq(&self, other: &Optimizer) -> bool {
        let numbers = |optimizer: &Optimizer| optimizer.moments.each_ref().map(|m| m.f32s().to_vec());
        let settings = |optimizer: &Optimizer| (optimizer.kind, optimizer.weight_decay, optimizer.steps);
        settings(self) == settings(other) && numbers(self) == numbers(other)
    }
}

impl Optimizer {
    /// An optimizer of `parameter` that has taken no step.
    pub fn new(kind: Kind, weight_decay: f32, parameter: &Tensor) -> Optimizer {
        let shape = parameter.shape();
        let cols = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / cols.max(1);
        let sizes = match kind {
            Kind::Adamw => [rows * cols, rows * cols],
            Kind::Adafactor => [rows, cols],
            Kind::Sgd => [rows * cols, 0],
        };
        let moments = sizes.map(|n| parameter.zeros_beside(&[n]));
        Optimizer { kind, weight_decay, steps: 0, moments }
    }

    /// One step with learning rate `lr`.
    pub fn step(&mut self, lr: f32, param: &mut Tensor, grad: &Tensor) {
        self.steps += 1;
        let weight_decay = self.weight_decay;
        let [a, b] = &mut self.moments;
        match self.kind {
            Kind::Adamw => {
                let settings = AdamW { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay };
                optim::adamw(settings, self.steps, grad, [param, a, b]);
            }
            Kind::Adafactor => {
                let settings = Adafactor { lr, decay: 0.8, clip_threshold: 1.0, eps: 1e-30, weight_decay };
                optim::adafactor(settings, self.steps, grad, [param, a, b]);
            }
            Kind::Sgd => optim::sgd(Sgd { lr, momentum: 0.0, weight_decay }, grad, [param, a]),
        }
    }
}

/// Scales the gradient down to norm `max` when it is longer; returns the norm it had, over all parameters.
pub fn clip(grads: &mut [Tensor], max: Option<f32>) -> f32 {
    let norm = optim::sum_of_squares(grads).sqrt() as f32;
    if let Some(max) = max
        && norm > max
    {
        // torch.nn.utils.clip_grad_norm_ has the same small term
        let factor = max / (norm + 1e-6);
        grads.iter_mut().for_each(|grad| optim::shorten(grad, factor));
    }
    norm
}
