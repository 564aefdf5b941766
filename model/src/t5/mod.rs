//! T5 (v1.0, v1.1, Flan, mT5): an encoder that reads a text whole and a decoder that answers it token by token.
//!
//! ```text
//! x = shared[token]
//! encoder   x = x + o(attention(q(n), k(n), v(n), bias))         n = layer_norm(x), per block
//!           x = x + wo(act(wi(n)))  or  x + wo(act(wi_0(n)) * wi_1(n))
//!           e = final_layer_norm(x)
//! decoder   the same, and between the two:  x = x + o(attention(q(n), k(e), v(e)))
//!           h = final_layer_norm(x), times 1/sqrt(d_model) where the head is the embedding
//! ```
//!
//! The norm is an RMSNorm, no projection has a bias, scores are not divided by `sqrt(d_kv)`, and positions are in the
//! [`relative`] bias of the scores alone: the first block has the table, all blocks use it. Source: Raffel et al. 2020;
//! Shazeer 2020 for the gated MLP of v1.1.

pub mod relative;

use std::sync::Arc;

use autograd::ops::{
    self, Intervals, Qkv, Relation, RelativeBias, activation, gated, gather_rows, linear, scale, segment,
    spread,
};
use autograd::{Linear, Tape, Value, Weight};
use kernels::activation::Activation;
use kernels::attention::Heads;

use crate::cache::{LayerCache, Past, attention, run_block};
use crate::config::Seq2Seq;
use crate::language_model::{Encoded, Step};
use crate::layers::{RmsNorm, linear_layer};
use crate::weights::Weights;
use crate::{Config, Result};
use relative::Buckets;

/// The weights of a T5 between the embeddings and the head.
#[derive(Clone, Debug)]
pub(crate) struct T5 {
    encoder: Stack,
    decoder: Stack,
    /// What the final hidden states are multiplied by.
    head_scale: f32,
}

/// The encoder, or the decoder.
#[derive(Clone, Debug)]
struct Stack {
    block: Vec<Arc<Block>>,
    /// A number for each bucket and head, `[n, H]`.
    relative_attention_bias: Weight,
    /// The bucket of each distance.
    buckets: Arc<[usize]>,
    final_layer_norm: RmsNorm,
}

#[derive(Clone, Debug)]
struct Block {
    self_attention: Attention,
    /// Only in the decoder.
    enc_dec_attention: Option<Attention>,
    mlp: Mlp,
}

/// A norm, and attention after it.
#[derive(Clone, Debug)]
struct Attention {
    layer_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: Heads,
}

/// A norm, and an MLP after it.
#[derive(Clone, Debug)]
struct Mlp {
    layer_norm: RmsNorm,
    /// `wi`, or `wi_0` and `wi_1`, of which the first is the gate.
    wi: Vec<Linear>,
    wo: Linear,
    activation: Activation,
}

/// Which queries a block computes, if not all, and whom they see.
struct Pass {
    rows: Option<Arc<[u32]>>,
    /// Among the tokens of the stack.
    relation: Relation,
    /// Of the encoder, in the decoder.
    encoded: Option<Arc<Intervals>>,
}

/// Name of the token embedding. Files that share it between encoder and decoder may have kept another of its names.
pub(crate) fn embedding_name(weights: &Weights) -> String {
    let names = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];
    names.into_iter().find(|name| weights.contains(name)).unwrap_or(names[0]).into()
}

impl T5 {
    pub(crate) fn load(weights: &Weights, config: &Config) -> Result<T5> {
        let seq2seq = config.seq2seq.as_ref().expect("the configuration of a T5 says what its decoder is");
        let encoder = (config.n_layers, "encoder");
        let decoder = (seq2seq.n_decoder_layers, "decoder");
        Ok(T5 {
            encoder: Stack::load(weights, config, seq2seq, encoder)?,
            decoder: Stack::load(weights, config, seq2seq, decoder)?,
            head_scale: seq2seq.head_scale,
        })
    }

    /// Every matrix between the embeddings and the head.
    pub(crate) fn linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        let blocks = self.encoder.block.iter_mut().chain(&mut self.decoder.block);
        blocks.flat_map(|block| {
            let Block { self_attention, enc_dec_attention, mlp } = Arc::make_mut(block);
            let attention = std::iter::once(self_attention).chain(enc_dec_attention);
            let projections = attention.flat_map(|a| [&mut a.q, &mut a.k, &mut a.v, &mut a.o]);
            projections.chain(&mut mlp.wi).chain([&mut mlp.wo])
        })
    }

    /// Final hidden states of the encoder at every token, from its embeddings.
    pub(crate) fn encode(
        &self,
        tape: &Tape,
        embeds: &Value,
        positions: &[u32],
        mask: &Arc<Intervals>,
    ) -> Value {
        let mut x = embeds.clone();
        let bias = self.encoder.bias(tape);
        let pass = Arc::new(self.encoder.pass(None, (positions, positions, &bias), (mask, None)));
        for block in &self.encoder.block {
            let (block, pass) = (block.clone(), pass.clone());
            x = segment(tape, &x, move |tape, x| block.forward(tape, x, None, &pass, (None, None)));
        }
        self.encoder.final_layer_norm.forward(tape, &x)
    }

    /// Final hidden states of the wanted tokens of the decoder, as the head takes them. In the last block only they need
    /// queries and the MLP.
    pub(crate) fn forward(&self, tape: &Tape, embeds: &Value, mut step: Step) -> Value {
        let mut x = embeds.clone();
        let last = self.decoder.block.len() - 1;
        let Encoded { states, mask } = step.encoded.expect("a decoder sees an encoder");
        let before = step.cache.as_ref().map_or(&[][..], |cache| cache.positions());
        let key_positions = [before, step.positions].concat();
        let bias = self.decoder.bias(tape);
        for (i, block) in self.decoder.block.iter().enumerate() {
            let rows = step.outputs.filter(|_| i == last);
            let pass =
                self.decoder.pass(rows, (step.positions, &key_positions, &bias), (step.mask, Some(mask)));
            let block = block.clone();
            x = run_block(tape, &[&x, states], (step.cache.as_deref_mut(), i), move |tape, x, past| {
                block.forward(tape, &x[0], Some(&x[1]), &pass, past)
            });
        }
        let x = self.decoder.final_layer_norm.forward(tape, &x);
        if self.head_scale == 1.0 { x } else { scale(tape, &x, self.head_scale) }
    }
}

impl Stack {
    fn load(
        weights: &Weights,
        config: &Config,
        seq2seq: &Seq2Seq,
        (n, name): (usize, &str),
    ) -> Result<Stack> {
        let block = |i| {
            let decoder = name == "decoder";
            Block::load(weights, config, seq2seq, (&format!("{name}.block.{i}"), decoder)).map(Arc::new)
        };
        let buckets = Buckets {
            n: seq2seq.n_buckets,
            max_distance: seq2seq.max_distance,
            bidirectional: name == "encoder",
        };
        let bias = format!("{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        let bias = weights.tensor(&bias, &[buckets.n, config.n_heads])?;
        Ok(Stack {
            block: (0..n).map(block).collect::<Result<_>>()?,
            relative_attention_bias: bias.widened(),
            buckets: buckets.by_distance(),
            final_layer_norm: RmsNorm::load(weights, config, &format!("{name}.final_layer_norm"))?,
        })
    }

    /// The bias by distance, `[H, 2 * max_distance + 1]`.
    fn bias(&self, tape: &Tape) -> Value {
        spread(tape, &self.relative_attention_bias, &self.buckets)
    }

    /// What a block needs that computes the queries `rows`, or all. The masks are those of the keys and of the encoder.
    fn pass(
        &self,
        rows: Option<&Arc<[u32]>>,
        (query_positions, key_positions, bias): (&[u32], &[u32], &Value),
        (mask, encoded): (&Arc<Intervals>, Option<&Arc<Intervals>>),
    ) -> Pass {
        let of_rows = |mask: &Arc<Intervals>| {
            rows.map_or_else(|| mask.clone(), |rows| Arc::new(mask.for_queries(rows)))
        };
        let query_positions = match rows {
            Some(rows) => rows.iter().map(|&row| query_positions[row as usize]).collect(),
            None => query_positions.into(),
        };
        let bias = RelativeBias { query_positions, key_positions: key_positions.into(), table: bias.clone() };
        Pass {
            rows: rows.cloned(),
            relation: Relation { mask: of_rows(mask), bias: Some(bias) },
            encoded: encoded.map(of_rows),
        }
    }
}

impl Block {
    fn load(
        weights: &Weights,
        config: &Config,
        seq2seq: &Seq2Seq,
        (name, decoder): (&str, bool),
    ) -> Result<Block> {
        let attention = |layer: usize, part: &str| {
            let name = format!("{name}.layer.{layer}");
            Attention::load(weights, config, (&format!("{name}.{part}"), &format!("{name}.layer_norm")))
        };
        let mlp = format!("{name}.layer.{}", if decoder { 2 } else { 1 });
        Ok(Block {
            self_attention: attention(0, "SelfAttention")?,
            enc_dec_attention: decoder.then(|| attention(1, "EncDecAttention")).transpose()?,
            mlp: Mlp::load(weights, config, seq2seq, &mlp)?,
        })
    }

    /// `[T, d_model]` to `[rows or T, d_model]`; `states` are the encoder's.
    fn forward(
        &self,
        tape: &Tape,
        x: &Value,
        states: Option<&Value>,
        pass: &Pass,
        (before, encoder_cache): Past,
    ) -> Value {
        let mut x = self.self_attention.among(tape, x, pass, before);
        if let (Some(attention), Some(states), Some(mask)) = (&self.enc_dec_attention, states, &pass.encoded)
        {
            x = attention.of_encoder(tape, &x, states, mask, encoder_cache);
        }
        self.mlp.forward(tape, &x)
    }
}

impl Attention {
    fn load(weights: &Weights, config: &Config, (name, norm): (&str, &str)) -> Result<Attention> {
        // no 1/sqrt(d): it is in how the weights were initialised
        let heads = Heads { scale: 1.0, ..config.heads() };
        let (d, inner) = (config.d_model, heads.n_heads * heads.head_dim);
        let projection =
            |part: &str, n_in, n_out| linear_layer(weights, &format!("{name}.{part}"), (n_in, n_out), false);
        Ok(Attention {
            layer_norm: RmsNorm::load(weights, config, norm)?,
            q: projection("q", d, inner)?,
            k: projection("k", d, inner)?,
            v: projection("v", d, inner)?,
            o: projection("o", inner, d)?,
            heads,
        })
    }

    /// The tokens of a stack among each other.
    fn among(&self, tape: &Tape, x: &Value, pass: &Pass, cache: Option<&mut LayerCache>) -> Value {
        let wanted =
            |v: &Value| pass.rows.as_ref().map_or_else(|| v.clone(), |rows| gather_rows(tape, v, rows));
        let n = self.layer_norm.forward(tape, x);
        let q = linear(tape, &wanted(&n), &self.q, None);
        let k = linear(tape, &n, &self.k, None);
        let v = linear(tape, &n, &self.v, None);
        let layer = self.o.attention(self.heads);
        let mixed = attention(tape, Qkv::Split(&q, &k, &v), layer, pass.relation.clone(), cache);
        linear(tape, &mixed, &self.o, Some(&wanted(x)))
    }

    /// The decoder's tokens look at the encoder's states, whose keys and values a cache keeps from the first step on.
    fn of_encoder(
        &self,
        tape: &Tape,
        x: &Value,
        states: &Value,
        mask: &Arc<Intervals>,
        cache: Option<&mut LayerCache>,
    ) -> Value {
        let q = linear(tape, &self.layer_norm.forward(tape, x), &self.q, None);
        let keys_and_values = || (linear(tape, states, &self.k, None), linear(tape, states, &self.v, None));
        let layer = self.o.attention(self.heads);
        let mixed = match cache {
            Some(cache) => cache.attend_fixed(&q, keys_and_values, layer, &mask.into()),
            None => {
                let (k, v) = keys_and_values();
                ops::attention(tape, Qkv::Split(&q, &k, &v), layer, mask)
            }
        };
        linear(tape, &mixed, &self.o, Some(x))
    }
}

impl Mlp {
    fn load(weights: &Weights, config: &Config, seq2seq: &Seq2Seq, name: &str) -> Result<Mlp> {
        let inner = if seq2seq.gated_mlp { &["wi_0", "wi_1"][..] } else { &["wi"] };
        let projection =
            |part: &str, sizes| linear_layer(weights, &format!("{name}.DenseReluDense.{part}"), sizes, false);
        let (d, d_ff) = (config.d_model, config.d_ff);
        Ok(Mlp {
            layer_norm: RmsNorm::load(weights, config, &format!("{name}.layer_norm"))?,
            wi: inner.iter().map(|part| projection(part, (d, d_ff))).collect::<Result<_>>()?,
            wo: projection("wo", (d_ff, d))?,
            activation: config.activation,
        })
    }

    fn forward(&self, tape: &Tape, x: &Value) -> Value {
        let n = self.layer_norm.forward(tape, x);
        let inner: Vec<Value> = self.wi.iter().map(|wi| linear(tape, &n, wi, None)).collect();
        let inner = match &inner[..] {
            [gate, up] => gated(tape, gate, up, self.activation),
            plain => activation(tape, &plain[0], self.activation),
        };
        linear(tape, &inner, &self.wo, Some(x))
    }
}
