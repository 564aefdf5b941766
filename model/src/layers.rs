//! Layers that several architectures have, as their files name them.

use std::sync::Arc;

use autograd::ops::{Intervals, layer_norm, rms_norm};
use autograd::{Linear, Tape, Value, Weight};
use kernels::matmul::Layout;

use crate::language_model::Step;
use crate::weights::Weights;
use crate::{Config, Result};

/// LayerNorm with weight and bias.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    weight: Weight,
    bias: Weight,
    eps: f32,
}

impl LayerNorm {
    /// `{name}.weight` and `{name}.bias`, which the first BERTs called gamma and beta; `[d_model]` each.
    pub(crate) fn load(weights: &Weights, config: &Config, name: &str) -> Result<LayerNorm> {
        let vector = |part: &str, old: &str| {
            let old = format!("{name}.{old}");
            let name = if weights.contains(&old) { old } else { format!("{name}.{part}") };
            weights.tensor(&name, &[config.d_model])
        };
        Ok(LayerNorm {
            weight: vector("weight", "gamma")?.widened(),
            bias: vector("bias", "beta")?.widened(),
            eps: config.norm_eps,
        })
    }

    pub(crate) fn forward(&self, tape: &Tape, x: &Value) -> Value {
        layer_norm(tape, x, &self.weight, &self.bias, self.eps)
    }
}

/// RMSNorm: no mean, no bias.
#[derive(Clone, Debug)]
pub(crate) struct RmsNorm {
    weight: Weight,
    eps: f32,
}

impl RmsNorm {
    /// `{name}.weight`, `[d_model]`.
    pub(crate) fn load(weights: &Weights, config: &Config, name: &str) -> Result<RmsNorm> {
        let weight = weights.tensor(&format!("{name}.weight"), &[config.d_model])?;
        Ok(RmsNorm { weight: weight.widened(), eps: config.norm_eps })
    }

    pub(crate) fn forward(&self, tape: &Tape, x: &Value) -> Value {
        rms_norm(tape, x, &self.weight, self.eps)
    }
}

/// Which queries a block computes, if not all, and who they see.
pub(crate) struct Pass {
    pub(crate) rows: Option<Arc<[u32]>>,
    pub(crate) mask: Arc<Intervals>,
}

impl Pass {
    /// Block `i` of `n`: the last one computes the wanted tokens alone.
    pub(crate) fn of(step: &Step, i: usize, n: usize) -> Pass {
        match step.outputs.filter(|_| i + 1 == n) {
            Some(rows) => Pass { rows: Some(rows.clone()), mask: Arc::new(step.mask.for_queries(rows)) },
            None => Pass { rows: None, mask: step.mask.clone() },
        }
    }
}

/// `{name}.weight` as torch's `Linear` keeps it, `[n_out, n_in]`, and `{name}.bias`.
pub(crate) fn linear_layer(
    weights: &Weights,
    name: &str,
    (n_in, n_out): (usize, usize),
    bias: bool,
) -> Result<Linear> {
    let weight = weights.tensor(&format!("{name}.weight"), &[n_out, n_in])?;
    let bias = bias.then(|| weights.tensor(&format!("{name}.bias"), &[n_out])).transpose()?;
    Ok(Linear::new(weight, Layout::OutIn, bias))
}
