//! Llama and its family (SmolLM2, Qwen2, Mistral): rotary positions, RMSNorm before each half of a block, queries that
//! share keys and values in groups, a gated MLP.
//!
//! ```text
//! x = embed_tokens[token]
//! x = x + o_proj(attention(rope(q_proj(n)), rope(k_proj(n)), v_proj(n)))      n = input_layernorm(x), per block
//! x = x + down_proj(silu(gate_proj(m)) * up_proj(m))                          m = post_attention_layernorm(x)
//! h = norm(x)
//! ```
//!
//! Qwen2 has a bias on queries, keys and values. Source: Touvron et al. 2023.

use std::sync::Arc;

use autograd::ops::{Intervals, Qkv, gated, gather_rows, linear, rope};
use autograd::{Linear, Tape, Value};
use kernels::activation::Activation;
use kernels::attention::Heads;
use kernels::rope::{Pairs, Table};
use tensor::ops::rope::Angles;

use crate::cache::{LayerCache, attention, run_block};
use crate::language_model::Step;
use crate::layers::{RmsNorm, linear_layer};
use crate::weights::Weights;
use crate::{Config, Result};

/// The weights of a Llama between the embeddings and the head.
#[derive(Clone, Debug)]
pub(crate) struct Llama {
    /// One per pair of lanes of a head.
    frequencies: Vec<f32>,
    pairs: Pairs,
    layers: Vec<Arc<Block>>,
    norm: RmsNorm,
}

#[derive(Clone, Debug)]
struct Block {
    input_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    post_attention_layernorm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    heads: Heads,
    activation: Activation,
}

/// Which queries a block computes, if not all, who they see, and the angles of queries and keys.
struct Pass {
    rows: Option<Arc<[u32]>>,
    mask: Arc<Intervals>,
    query_angles: Arc<Angles>,
    key_angles: Arc<Angles>,
}

/// Name of the token embedding.
pub(crate) fn embedding_name(_: &Weights) -> String {
    "model.embed_tokens.weight".into()
}

impl Llama {
    pub(crate) fn load(weights: &Weights, config: &Config) -> Result<Llama> {
        let block = |i| Block::load(weights, config, &format!("model.layers.{i}")).map(Arc::new);
        Ok(Llama {
            frequencies: frequencies(weights, config)?,
            pairs: config.rope.map(|rope| rope.pairs).unwrap_or_default(),
            layers: (0..config.n_layers).map(block).collect::<Result<_>>()?,
            norm: RmsNorm::load(weights, config, "model.norm")?,
        })
    }

    /// Every matrix between the embeddings and the head.
    pub(crate) fn linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.layers.iter_mut().flat_map(|block| {
            let Block { q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, .. } =
                Arc::make_mut(block);
            [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]
        })
    }

    /// Final hidden states of the wanted tokens. In the last block only they need queries and the MLP.
    pub(crate) fn forward(&self, tape: &Tape, embeds: &Value, mut step: Step) -> Value {
        let mut x = embeds.clone();
        let last = self.layers.len() - 1;
        let angles = self.angles(step.positions);
        for (i, block) in self.layers.iter().enumerate() {
            let pass = self.pass(&step, step.outputs.filter(|_| i == last), &angles);
            let block = block.clone();
            x = run_block(tape, &[&x], (step.cache.as_deref_mut(), i), move |tape, x, (past, _)| {
                block.forward(tape, &x[0], &pass, past)
            });
        }
        self.norm.forward(tape, &x)
    }

    fn angles(&self, positions: &[u32]) -> Arc<Angles> {
        Arc::new(Table::new(positions, &self.frequencies, self.pairs).into())
    }

    /// What a block needs that computes the queries `rows` of a step, or all.
    fn pass(&self, step: &Step, rows: Option<&Arc<[u32]>>, angles: &Arc<Angles>) -> Pass {
        let (mask, query_angles) = match rows {
            Some(rows) => {
                let positions: Vec<u32> = rows.iter().map(|&r| step.positions[r as usize]).collect();
                (Arc::new(step.mask.for_queries(rows)), self.angles(&positions))
            }
            None => (step.mask.clone(), angles.clone()),
        };
        Pass { rows: rows.cloned(), mask, query_angles, key_angles: angles.clone() }
    }
}

/// Frequencies of the rotation. GGUF files hold what Llama 3 divides them by as a tensor.
fn frequencies(weights: &Weights, config: &Config) -> Result<Vec<f32>> {
    const DIVISORS: &str = "rope_freqs.weight";
    let Some(rope) = config.rope else { return Ok(Vec::new()) };
    let mut frequencies = rope.frequencies(config.head_dim);
    if weights.contains(DIVISORS) {
        let divisors = weights.tensor(DIVISORS, &[frequencies.len()])?.widened();
        frequencies.iter_mut().zip(divisors.f32s()).for_each(|(f, divisor)| *f /= divisor);
    }
    Ok(frequencies)
}

impl Block {
    fn load(weights: &Weights, config: &Config, name: &str) -> Result<Block> {
        let (d, d_ff) = (config.d_model, config.d_ff);
        let heads = config.heads();
        let (q, kv) = (heads.n_heads * heads.head_dim, heads.n_kv_heads * heads.head_dim);
        let projection = |part: &str, n_in: usize, n_out: usize, bias: bool| {
            linear_layer(weights, &format!("{name}.{part}"), (n_in, n_out), bias)
        };
        Ok(Block {
            input_layernorm: RmsNorm::load(weights, config, &format!("{name}.input_layernorm"))?,
            q_proj: projection("self_attn.q_proj", d, q, config.qkv_bias)?,
            k_proj: projection("self_attn.k_proj", d, kv, config.qkv_bias)?,
            v_proj: projection("self_attn.v_proj", d, kv, config.qkv_bias)?,
            o_proj: projection("self_attn.o_proj", q, d, config.attention_out_bias)?,
            post_attention_layernorm: RmsNorm::load(
                weights,
                config,
                &format!("{name}.post_attention_layernorm"),
            )?,
            gate_proj: projection("mlp.gate_proj", d, d_ff, config.mlp_bias)?,
            up_proj: projection("mlp.up_proj", d, d_ff, config.mlp_bias)?,
            down_proj: projection("mlp.down_proj", d_ff, d, config.mlp_bias)?,
            heads,
            activation: config.activation,
        })
    }

    /// `[T, d_model]` to `[rows or T, d_model]`.
    fn forward(&self, tape: &Tape, x: &Value, pass: &Pass, past: Option<&mut LayerCache>) -> Value {
        let wanted =
            |v: &Value| pass.rows.as_ref().map_or_else(|| v.clone(), |rows| gather_rows(tape, v, rows));
        let n = self.input_layernorm.forward(tape, x);
        let q = rope(tape, &linear(tape, &wanted(&n), &self.q_proj, None), &pass.query_angles);
        let k = rope(tape, &linear(tape, &n, &self.k_proj, None), &pass.key_angles);
        let v = linear(tape, &n, &self.v_proj, None);
        let layer = self.o_proj.attention(self.heads);
        let mixed = attention(tape, Qkv::Split(&q, &k, &v), layer, &pass.mask, past);
        let x = linear(tape, &mixed, &self.o_proj, Some(&wanted(x)));

        let m = self.post_attention_layernorm.forward(tape, &x);
        let gate = linear(tape, &m, &self.gate_proj, None);
        let up = linear(tape, &m, &self.up_proj, None);
        linear(tape, &gated(tape, &gate, &up, self.activation), &self.down_proj, Some(&x))
    }
}
