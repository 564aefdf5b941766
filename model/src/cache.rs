//! Keys and values of tokens that were computed before, and attention over them.
//!
//! A sequence that grows by one token needs the keys and values of all tokens before it, and nothing else of them. The
//! cache holds them for many sequences at once, each shared prefix stored once: who sees which key is not the cache's
//! business but the mask's.

use autograd::ops::{self, Qkv, Relation};
use autograd::{Tape, Value};
use kernels::Isa;
use kernels::attention::{self as kernel, Heads, Inputs, Rows};
use tensor::Tensor;

use crate::Config;

/// Keys (after rotation) and values of every layer, in the order the tokens came. For inference only: no gradient
/// flows through what is cached.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    /// What a decoder sees of its encoder, once per layer; empty in other models.
    encoder: Vec<LayerCache>,
    /// Position of every token that all layers have.
    positions: Vec<u32>,
}

/// Keys and values of one layer, `[n, n_kv_heads * head_dim]` each.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerCache {
    k: Vec<f32>,
    v: Vec<f32>,
}

impl KvCache {
    /// An empty cache for a model.
    pub fn new(config: &Config) -> KvCache {
        let of_decoder = config.seq2seq.map(|seq2seq| seq2seq.n_decoder_layers);
        KvCache {
            layers: vec![LayerCache::default(); of_decoder.unwrap_or(config.n_layers)],
            encoder: vec![LayerCache::default(); of_decoder.unwrap_or(0)],
            positions: Vec::new(),
        }
    }

    /// Number of tokens whose keys and values are there.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    pub(crate) fn layer(&mut self, i: usize) -> &mut LayerCache {
        &mut self.layers[i]
    }

    /// Layer `i` of a decoder: its tokens, and the encoder's.
    pub(crate) fn block(&mut self, i: usize) -> (&mut LayerCache, &mut LayerCache) {
        (&mut self.layers[i], &mut self.encoder[i])
    }

    /// Positions of the tokens, in the order they came.
    pub(crate) fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Declares that all layers have appended tokens at these positions.
    pub(crate) fn advance(&mut self, positions: &[u32]) {
        self.positions.extend(positions);
    }
}

/// Attention of one layer, over the cached keys and this step's if there is a cache, else over this step's.
pub(crate) fn attention(
    tape: &Tape,
    qkv: Qkv,
    heads: Heads,
    relation: impl Into<Relation>,
    cache: Option<&mut LayerCache>,
) -> Value {
    match cache {
        Some(cache) => cache.attend(qkv, heads, &relation.into()),
        None => ops::attention(tape, qkv, heads, relation),
    }
}

impl LayerCache {
    fn attend(&mut self, qkv: Qkv, heads: Heads, relation: &Relation) -> Value {
        let (width, kv_width) = (heads.n_heads * heads.head_dim, heads.n_kv_heads * heads.head_dim);
        let q = match qkv {
            Qkv::Split(q, k, v) => {
                self.append((constant(k), 0), (constant(v), 0), kv_width);
                constant(q).clone()
            }
            Qkv::Fused(qkv, rows) => {
                let qkv = constant(qkv);
                self.append((qkv, width), (qkv, 2 * width), kv_width);
                match rows {
                    Some(rows) => take(qkv, width, rows.iter().map(|&r| r as usize)),
                    None => take(qkv, width, 0..qkv.rows()),
                }
            }
        };
        self.look(&q, heads, relation)
    }

    /// Attention over keys and values that are the same in every step: made in the first, kept for the others.
    pub(crate) fn attend_fixed(
        &mut self,
        q: &Value,
        keys_and_values: impl FnOnce() -> (Value, Value),
        heads: Heads,
        relation: &Relation,
    ) -> Value {
        if self.k.is_empty() {
            let (k, v) = keys_and_values();
            self.append((constant(&k), 0), (constant(&v), 0), heads.n_kv_heads * heads.head_dim);
        }
        self.look(constant(q), heads, relation)
    }

    /// Attention over what is here.
    fn look(&self, q: &Tensor, heads: Heads, relation: &Relation) -> Value {
        let (width, kv_width) = (heads.n_heads * heads.head_dim, heads.n_kv_heads * heads.head_dim);
        let inputs = Inputs {
            heads,
            q: Rows { data: q.f32s(), stride: width },
            k: Rows { data: &self.k, stride: kv_width },
            v: Rows { data: &self.v, stride: kv_width },
            mask: relation.mask.mask(),
            bias: relation.bias(),
            n_queries: q.rows(),
        };
        let mut lse = vec![0.0; heads.n_heads * q.rows()];
        Value::constant(Tensor::build(&[q.rows(), width], |y| {
            kernel::forward(Isa::best(), inputs, y, &mut lse)
        }))
    }

    /// Appends `width` columns of each row of two tensors, from a column on.
    fn append(&mut self, k: (&Tensor, usize), v: (&Tensor, usize), width: usize) {
        for (to, (from, column)) in [(&mut self.k, k), (&mut self.v, v)] {
            from.f32s()
                .chunks_exact(from.width())
                .for_each(|row| to.extend_from_slice(&row[column..][..width]));
        }
    }
}

/// The numbers of a value that needs no gradient. Panics for another: a gradient would be lost silently.
fn constant(value: &Value) -> &Tensor {
    assert!(value.node().is_none(), "a cache is for inference: no gradient flows through it");
    value.tensor()
}

/// The first `width` columns of some rows.
fn take(from: &Tensor, width: usize, rows: impl ExactSizeIterator<Item = usize>) -> Tensor {
    Tensor::build(&[rows.len(), width], |to| {
        for (to, row) in to.chunks_exact_mut(width).zip(rows) {
            to.copy_from_slice(&from.f32s()[row * from.width()..][..width]);
        }
    })
}
