//! BERT: an encoder in which every token sees every other, LayerNorm after each half of a block, and a head that says
//! what a mask hides, or which label the text has.
//!
//! ```text
//! x = ln(word[token] + position[position] + token_type[0])       soft tokens in place of word[token]
//! x = ln(x + attention.output(attention(x)))                      per block
//! x = ln(x + output(gelu(intermediate(x))))
//! h = ln(gelu(transform(x)))                                      the head's own layer, before the decoder
//! h = tanh(pooler(x))                                             that of a classifier
//! ```
//!
//! Source: Devlin et al. 2018 (arXiv 1810.04805).

use std::sync::Arc;

use autograd::ops::{Qkv, activation, add_rows, gather_rows, linear, tanh};
use autograd::{Linear, Tape, Value, Weight};
use kernels::activation::Activation;
use kernels::attention::Heads;

use crate::cache::{LayerCache, attention, run_block};
use crate::language_model::Step;
use crate::layers::{LayerNorm, Pass, linear_layer};
use crate::weights::Weights;
use crate::{Config, Error, Result};

/// Weight of the decoder where it is not the token embedding.
pub(crate) const DECODER: &str = "cls.predictions.decoder.weight";

/// The weights of a BERT between the embeddings and the decoder.
#[derive(Clone, Debug)]
pub(crate) struct Bert {
    position_embeddings: Weight,
    token_type_embeddings: Weight,
    norm: LayerNorm,
    layers: Vec<Arc<Block>>,
    head: Head,
}

/// The head's own layer, before the matrix whose outputs are tokens or labels.
#[derive(Clone, Debug)]
struct Head {
    /// `transform` of a masked model, `pooler` of a classifier.
    dense: Linear,
    /// What follows in a masked model; in a classifier it is tanh.
    masked: Option<(Activation, LayerNorm)>,
}

#[derive(Clone, Debug)]
struct Block {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    heads: Heads,
    activation: Activation,
}

/// What the name of every tensor of the encoder starts with: `bert.`, or nothing.
fn prefix(contains: impl Fn(&str) -> bool) -> &'static str {
    if contains("embeddings.word_embeddings.weight") { "" } else { "bert." }
}

/// Name of the token embedding.
pub(crate) fn embedding_name(weights: &Weights) -> String {
    format!("{}embeddings.word_embeddings.weight", prefix(|name| weights.contains(name)))
}

/// Name of a classifier's own layer in a checkpoint that `contains` some names.
pub(crate) fn pooler_name(contains: impl Fn(&str) -> bool) -> String {
    format!("{}pooler.dense", prefix(contains))
}

/// The bias of the decoder, `[vocab_size]`: its own, or the one that files of tied models have beside it.
pub(crate) fn decoder_bias(weights: &Weights, config: &Config) -> Result<Weight> {
    const OWN: &str = "cls.predictions.decoder.bias";
    let name = if weights.contains(OWN) { OWN } else { "cls.predictions.bias" };
    weights.tensor(name, &[config.vocab_size])
}

impl Bert {
    pub(crate) fn load(weights: &Weights, config: &Config) -> Result<Bert> {
        let (prefix, d) = (prefix(|name| weights.contains(name)), config.d_model);
        let table = |part: &str, rows: usize| {
            weights.tensor(&format!("{prefix}embeddings.{part}.weight"), &[rows, d])
        };
        let block = |i| Block::load(weights, config, &format!("{prefix}encoder.layer.{i}")).map(Arc::new);
        Ok(Bert {
            position_embeddings: table("position_embeddings", config.n_positions)?,
            token_type_embeddings: table("token_type_embeddings", config.type_vocab_size)?,
            norm: LayerNorm::load(weights, config, &format!("{prefix}embeddings.LayerNorm"))?,
            layers: (0..config.n_layers).map(block).collect::<Result<_>>()?,
            head: Head::load(weights, config)?,
        })
    }

    /// Every matrix between the embeddings and the decoder.
    pub(crate) fn linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        let blocks = self.layers.iter_mut().flat_map(|block| {
            let Block { query, key, value, attention_output, intermediate, output, .. } =
                Arc::make_mut(block);
            [query, key, value, attention_output, intermediate, output]
        });
        blocks.chain([&mut self.head.dense])
    }

    /// Hidden states of the wanted tokens as the decoder takes them: those of [`Bert::encode`] through the head's own layer.
    pub(crate) fn forward(&self, tape: &Tape, embeds: &Value, step: Step) -> Value {
        let x = self.encode(tape, embeds, step);
        let h = linear(tape, &x, &self.head.dense, None);
        match &self.head.masked {
            Some((f, norm)) => norm.forward(tape, &activation(tape, &h, *f)),
            None => tanh(tape, &h),
        }
    }

    /// Hidden states of the wanted tokens as the last block leaves them. There only they need queries and the MLP. A cache
    /// can only hold a prefix: what a token computes depends on the tokens after it.
    pub(crate) fn encode(&self, tape: &Tape, embeds: &Value, mut step: Step) -> Value {
        let placed = add_rows(tape, embeds, &self.position_embeddings, step.positions);
        let types = vec![0; step.positions.len()];
        let mut x = self.norm.forward(tape, &add_rows(tape, &placed, &self.token_type_embeddings, &types));
        for (i, block) in self.layers.iter().enumerate() {
            let pass = Pass::of(&step, i, self.layers.len());
            let block = block.clone();
            x = run_block(tape, &[&x], (step.cache.as_deref_mut(), i), move |tape, x, (past, _)| {
                block.forward(tape, &x[0], &pass, past)
            });
        }
        x
    }
}

impl Head {
    fn load(weights: &Weights, config: &Config) -> Result<Head> {
        const TRANSFORM: &str = "cls.predictions.transform";
        let dense = |name: &str| linear_layer(weights, name, (config.d_model, config.d_model), true);
        if config.labels.is_some() {
            let dense = dense(&pooler_name(|name| weights.contains(name)))?;
            return Ok(Head { dense, masked: None });
        }
        if !weights.contains(&format!("{TRANSFORM}.dense.weight")) {
            return Err(no_head(weights));
        }
        let norm = LayerNorm::load(weights, config, &format!("{TRANSFORM}.LayerNorm"))?;
        let dense = dense(&format!("{TRANSFORM}.dense"))?;
        Ok(Head { dense, masked: Some((config.activation, norm)) })
    }
}

impl Block {
    fn load(weights: &Weights, config: &Config, name: &str) -> Result<Block> {
        let (d, d_ff) = (config.d_model, config.d_ff);
        let dense = |part: &str, n_in: usize, n_out: usize| {
            linear_layer(weights, &format!("{name}.{part}"), (n_in, n_out), true)
        };
        let norm = |part: &str| LayerNorm::load(weights, config, &format!("{name}.{part}.LayerNorm"));
        Ok(Block {
            query: dense("attention.self.query", d, d)?,
            key: dense("attention.self.key", d, d)?,
            value: dense("attention.self.value", d, d)?,
            attention_output: dense("attention.output.dense", d, d)?,
            attention_norm: norm("attention.output")?,
            intermediate: dense("intermediate.dense", d, d_ff)?,
            output: dense("output.dense", d_ff, d)?,
            output_norm: norm("output")?,
            heads: config.heads(),
            activation: config.activation,
        })
    }

    /// `[T, d_model]` to `[rows or T, d_model]`. The mask counts the queries of `rows`.
    fn forward(&self, tape: &Tape, x: &Value, pass: &Pass, past: Option<&mut LayerCache>) -> Value {
        let wanted = pass.rows.as_ref().map_or_else(|| x.clone(), |rows| gather_rows(tape, x, rows));
        let q = linear(tape, &wanted, &self.query, None);
        let k = linear(tape, x, &self.key, None);
        let v = linear(tape, x, &self.value, None);
        let layer = self.attention_output.attention(self.heads);
        let mixed = attention(tape, Qkv::Split(&q, &k, &v), layer, &pass.mask, past);
        let x = linear(tape, &mixed, &self.attention_output, Some(&wanted));
        let x = self.attention_norm.forward(tape, &x);

        let inner = activation(tape, &linear(tape, &x, &self.intermediate, None), self.activation);
        self.output_norm.forward(tape, &linear(tape, &inner, &self.output, Some(&x)))
    }
}

/// Why a file without the head's first layer cannot be used, by what it has instead.
fn no_head(weights: &Weights) -> Error {
    let other = weights
        .checkpoint()
        .names()
        .find(|name| name.starts_with("classifier") || name.starts_with("qa_outputs"));
    let what = match other {
        Some(name) => format!("they are those of a classifier (`{name}`)"),
        None => "they are an encoder that gives embeddings".into(),
    };
    Error::Unsupported {
        path: weights.checkpoint().path().into(),
        why: format!(
            "the weights have no masked-language-model head (`cls.predictions…`): {what}, which predicts no tokens and \
             cannot be prompted; use the model's BertForMaskedLM version"
        ),
    }
}
