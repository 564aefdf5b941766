//! GPT-2: learned positions, LayerNorm before each half of a block, one fused projection for queries, keys and values.
//!
//! ```text
//! x = wte[token] + wpe[position]
//! x = x + c_proj(attention(c_attn(ln_1(x))))         per block
//! x = x + c_proj(gelu(c_fc(ln_2(x))))
//! h = ln_f(x)
//! ```
//!
//! Its linear layers are "Conv1D": the weight is `[in, out]`, but not in GGUF files. Source: Radford et al. 2019.

use std::sync::Arc;

use autograd::ops::{Qkv, activation, add_rows, gather_rows, linear};
use autograd::{Linear, Tape, Value, Weight};
use kernels::activation::Activation;
use kernels::attention::Heads;
use kernels::matmul::Layout;

use crate::cache::{LayerCache, attention, run_block};
use crate::language_model::Step;
use crate::layers::{LayerNorm, Pass};
use crate::weights::Weights;
use crate::{Config, Result};

/// The weights of a GPT-2 between the embeddings and the head.
#[derive(Clone, Debug)]
pub(crate) struct Gpt2 {
    wpe: Weight,
    layers: Vec<Arc<Block>>,
    ln_f: LayerNorm,
}

#[derive(Clone, Debug)]
struct Block {
    ln_1: LayerNorm,
    c_attn: Linear,
    attn_c_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    mlp_c_proj: Linear,
    heads: Heads,
    activation: Activation,
}

/// What every tensor's name starts with: `transformer.`, or nothing in the files of the original models.
fn prefix(weights: &Weights) -> &'static str {
    if weights.contains("wte.weight") { "" } else { "transformer." }
}

/// Name of the token embedding.
pub(crate) fn embedding_name(weights: &Weights) -> String {
    format!("{}wte.weight", prefix(weights))
}

impl Gpt2 {
    pub(crate) fn load(weights: &Weights, config: &Config) -> Result<Gpt2> {
        let prefix = prefix(weights);
        let block = |i| Block::load(weights, config, &format!("{prefix}h.{i}")).map(Arc::new);
        Ok(Gpt2 {
            wpe: weights.tensor(&format!("{prefix}wpe.weight"), &[config.n_positions, config.d_model])?,
            layers: (0..config.n_layers).map(block).collect::<Result<_>>()?,
            ln_f: LayerNorm::load(weights, config, &format!("{prefix}ln_f"))?,
        })
    }

    /// Every matrix between the embeddings and the head.
    pub(crate) fn linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.layers.iter_mut().flat_map(|block| {
            let block = Arc::make_mut(block);
            [&mut block.c_attn, &mut block.attn_c_proj, &mut block.c_fc, &mut block.mlp_c_proj]
        })
    }

    /// Final hidden states of the wanted tokens. In the last block only they need queries and the MLP.
    pub(crate) fn forward(&self, tape: &Tape, embeds: &Value, mut step: Step) -> Value {
        let mut x = add_rows(tape, embeds, &self.wpe, step.positions);
        for (i, block) in self.layers.iter().enumerate() {
            let pass = Pass::of(&step, i, self.layers.len());
            let block = block.clone();
            x = run_block(tape, &[&x], (step.cache.as_deref_mut(), i), move |tape, x, (past, _)| {
                block.forward(tape, &x[0], &pass, past)
            });
        }
        self.ln_f.forward(tape, &x)
    }
}

impl Block {
    fn load(weights: &Weights, config: &Config, name: &str) -> Result<Block> {
        let (d, d_ff) = (config.d_model, config.d_ff);
        let heads = config.heads();
        let matrix = |part: &str, n_in, n_out| {
            conv1d(weights, &format!("{name}.{part}"), config.conv1d, (n_in, n_out))
        };
        Ok(Block {
            ln_1: LayerNorm::load(weights, config, &format!("{name}.ln_1"))?,
            c_attn: matrix("attn.c_attn", d, 3 * d)?,
            attn_c_proj: matrix("attn.c_proj", d, d)?,
            ln_2: LayerNorm::load(weights, config, &format!("{name}.ln_2"))?,
            c_fc: matrix("mlp.c_fc", d, d_ff)?,
            mlp_c_proj: matrix("mlp.c_proj", d_ff, d)?,
            heads,
            activation: config.activation,
        })
    }

    /// `[T, d_model]` to `[rows or T, d_model]`. The mask counts the queries of `rows`.
    fn forward(&self, tape: &Tape, x: &Value, pass: &Pass, past: Option<&mut LayerCache>) -> Value {
        let rows = pass.rows.as_ref();
        let qkv = linear(tape, &self.ln_1.forward(tape, x), &self.c_attn, None);
        let layer = self.attn_c_proj.attention(self.heads);
        let mixed = attention(tape, Qkv::Fused(&qkv, rows), layer, &pass.mask, past);
        let x = rows.map_or_else(|| x.clone(), |rows| gather_rows(tape, x, rows));
        let x = linear(tape, &mixed, &self.attn_c_proj, Some(&x));

        let inner = linear(tape, &self.ln_2.forward(tape, &x), &self.c_fc, None);
        linear(tape, &activation(tape, &inner, self.activation), &self.mlp_c_proj, Some(&x))
    }
}

fn conv1d(weights: &Weights, name: &str, layout: Layout, (n_in, n_out): (usize, usize)) -> Result<Linear> {
    let shape = match layout {
        Layout::InOut => [n_in, n_out],
        Layout::OutIn => [n_out, n_in],
    };
    let weight = weights.tensor(&format!("{name}.weight"), &shape)?;
    let bias = weights.tensor(&format!("{name}.bias"), &[n_out])?;
    Ok(Linear::new(weight, layout, Some(bias)))
}
