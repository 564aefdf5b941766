//! Keys and values of tokens that came before, and attention over them.
//!
//! A sequence that grows by one token needs the keys and values of all tokens before it, and nothing else of them. The
//! cache holds them for many sequences at once, each shared prefix stored once: who sees which key is not the cache's
//! business but the mask's.
//!
//! A tuned prefix (Li & Liang 2021) is the same thing: keys and values that were there before the first token. While it is
//! trained they are values of the tape instead of numbers, and nothing is added to them.

use autograd::ops::{self, AttentionLayer, Qkv, Relation, columns, gather_rows, segment_of, stack};
use autograd::{Tape, Value};
use kernels::attention::Heads;
use tensor::Tensor;
use tensor::ops::attention::{self as op, Columns, Inputs};
use tensor::ops::rows;

use crate::Config;

/// Keys (after rotation) and values of every layer, in the order the tokens came.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    /// What a decoder sees of its encoder, once per layer; empty in other models.
    encoder: Vec<LayerCache>,
    /// Position of every token that all layers have.
    positions: Vec<u32>,
}

/// Keys and values of one layer, `[n, n_kv_heads * head_dim]` each.
#[derive(Clone, Debug)]
pub(crate) enum LayerCache {
    /// Of tokens that were computed. For inference only: no gradient flows through them.
    Kept(Kept),
    /// Of a prefix that may be trained.
    Given([Value; 2]),
}

/// Keys and values as numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    k: Growing,
    v: Growing,
}

/// Rows that become more.
#[derive(Clone, Debug, Default)]
struct Growing {
    /// The rows, and room for others.
    room: Option<Tensor>,
    /// How many are there.
    len: usize,
}

/// What a block sees of earlier tokens, and of the encoder.
pub(crate) type Past<'a> = (Option<&'a mut LayerCache>, Option<&'a mut LayerCache>);

impl Default for LayerCache {
    fn default() -> LayerCache {
        LayerCache::Kept(Kept::default())
    }
}

impl KvCache {
    /// An empty cache for a model.
    pub fn new(config: &Config) -> KvCache {
        let n_encoder = config.seq2seq.map_or(0, |seq2seq| seq2seq.n_decoder_layers);
        KvCache {
            layers: vec![LayerCache::default(); config.n_prefix_layers()],
            encoder: vec![LayerCache::default(); n_encoder],
            positions: Vec::new(),
        }
    }

    /// What stands before the first token when a prefix is trained. `prefix` is `[n, 2 * layers * width]`, for each layer
    /// the keys of width `n_kv_heads * head_dim` and then the values, in the order of [`Config::prefix_column`].
    pub fn given(tape: &Tape, prefix: &Value, config: &Config) -> KvCache {
        let width = config.prefix_width();
        let part = |i: usize| columns(tape, prefix, i * width..(i + 1) * width);
        let layer = |i: usize| LayerCache::Given([0, 1].map(|kv| part(config.prefix_column(i) + kv)));
        KvCache {
            layers: (0..config.n_prefix_layers()).map(layer).collect(),
            encoder: Vec::new(),
            positions: (0..prefix.tensor().rows() as u32).collect(),
        }
    }

    /// A cache whose first tokens are a prefix, as [`KvCache::given`] takes it.
    pub fn after(prefix: &Tensor, config: &Config) -> KvCache {
        let mut cache = KvCache::new(config);
        let width = config.prefix_width();
        for (i, layer) in cache.layers.iter_mut().enumerate() {
            let mut kept = Kept::default();
            kept.append([0, 1].map(|kv| (prefix, config.prefix_column(i) + kv)), width);
            *layer = LayerCache::Kept(kept);
        }
        cache.positions = (0..prefix.rows() as u32).collect();
        cache
    }

    /// Keys and values of all tokens, `[n, 2 * layers * width]` as [`KvCache::given`] takes them.
    pub fn as_prefix(&self, config: &Config) -> Tensor {
        let (n, width) = (self.len(), config.prefix_width());
        let all = 2 * self.layers.len() * width;
        Tensor::build(&[n, all], |out| {
            for (i, layer) in self.layers.iter().enumerate() {
                let [k, v] = layer.numbers();
                for t in 0..n {
                    let row = &mut out[t * all + config.prefix_column(i) * width..][..2 * width];
                    row[..width].copy_from_slice(&k[t * width..][..width]);
                    row[width..].copy_from_slice(&v[t * width..][..width]);
                }
            }
        })
    }

    /// Number of tokens whose keys and values are there.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
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

/// Runs block `i` of a step: straight where keys are kept for later, as one segment where a gradient may flow.
pub(crate) fn run_block(
    tape: &Tape,
    inputs: &[&Value],
    (cache, i): (Option<&mut KvCache>, usize),
    forward: impl Fn(&Tape, &[Value], Past) -> Value + 'static,
) -> Value {
    let Some(cache) = cache else {
        return segment_of(tape, inputs, move |tape, x| forward(tape, x, (None, None)));
    };
    match &mut cache.layers[i] {
        LayerCache::Given([k, v]) => {
            let n = inputs.len();
            let all: Vec<&Value> = inputs.iter().copied().chain([&*k, &*v]).collect();
            segment_of(tape, &all, move |tape, all| {
                let mut given = LayerCache::Given([all[n].clone(), all[n + 1].clone()]);
                forward(tape, &all[..n], (Some(&mut given), None))
            })
        }
        kept => {
            let inputs: Vec<Value> = inputs.iter().map(|&x| x.clone()).collect();
            forward(tape, &inputs, (Some(kept), cache.encoder.get_mut(i)))
        }
    }
}

/// Attention of one layer, over the keys of earlier tokens and this step's.
pub(crate) fn attention(
    tape: &Tape,
    qkv: Qkv,
    layer: AttentionLayer,
    relation: impl Into<Relation>,
    past: Option<&mut LayerCache>,
) -> Value {
    match past {
        Some(LayerCache::Kept(kept)) => kept.attend(qkv, layer, &relation.into()),
        Some(LayerCache::Given(past)) => {
            let [q, k, v] = split(tape, qkv, layer.heads);
            let (k, v) = (stack(tape, &past[0], &k), stack(tape, &past[1], &v));
            ops::attention(tape, Qkv::Split(&q, &k, &v), layer, relation)
        }
        None => ops::attention(tape, qkv, layer, relation),
    }
}

/// Wanted queries, keys and values.
fn split(tape: &Tape, qkv: Qkv, heads: Heads) -> [Value; 3] {
    let width = heads.n_heads * heads.head_dim;
    match qkv {
        Qkv::Split(q, k, v) => [q, k, v].map(Value::clone),
        Qkv::Fused(qkv, rows) => {
            let [q, k, v] = [0, 1, 2].map(|i| columns(tape, qkv, i * width..(i + 1) * width));
            [rows.map_or(q.clone(), |rows| gather_rows(tape, &q, rows)), k, v]
        }
    }
}

impl LayerCache {
    fn numbers(&self) -> [&[f32]; 2] {
        match self {
            LayerCache::Kept(Kept { k, v }) => [k, v].map(Growing::numbers),
            LayerCache::Given(values) => values.each_ref().map(|x| x.tensor().f32s()),
        }
    }

    /// Attention over keys and values that are the same in every step: made in the first, kept for the others.
    pub(crate) fn attend_fixed(
        &mut self,
        q: &Value,
        keys_and_values: impl FnOnce() -> (Value, Value),
        layer: AttentionLayer,
        relation: &Relation,
    ) -> Value {
        let LayerCache::Kept(kept) = self else { panic!("a prefix is not fixed") };
        if kept.k.len == 0 {
            let (k, v) = keys_and_values();
            kept.append(
                [(constant(&k), 0), (constant(&v), 0)],
                layer.heads.n_kv_heads * layer.heads.head_dim,
            );
        }
        kept.look(Columns::all(constant(q)), layer, relation)
    }
}

impl Kept {
    fn attend(&mut self, qkv: Qkv, layer: AttentionLayer, relation: &Relation) -> Value {
        let heads = layer.heads;
        match qkv {
            Qkv::Split(q, k, v) => {
                let width = heads.n_kv_heads * heads.head_dim;
                self.append([(constant(k), 0), (constant(v), 0)], width);
                self.look(Columns::all(constant(q)), layer, relation)
            }
            Qkv::Fused(qkv, wanted) => {
                let (qkv, width) = (constant(qkv), heads.n_heads * heads.head_dim);
                self.append([(qkv, 1), (qkv, 2)], width);
                match wanted {
                    Some(wanted) => {
                        let rows = rows::places(wanted.iter().copied(), 3, 0..1);
                        self.look(Columns::all(&rows::cut(qkv, width).take_rows(&rows)), layer, relation)
                    }
                    None => self.look(Columns::all(qkv), layer, relation),
                }
            }
        }
    }

    /// Attention over what is here.
    fn look(&self, q: Columns, layer: AttentionLayer, relation: &Relation) -> Value {
        let [k, v] = [&self.k, &self.v].map(|rows| Columns::all(rows.room.as_ref().expect("there are keys")));
        let (AttentionLayer { heads, precision }, bias) = (layer, relation.bias());
        let (y, _) = op::forward(Inputs { heads, q, k, v, mask: &relation.mask, bias, precision });
        Value::constant(y)
    }

    /// Appends a group of `width` columns of each row of a tensor of keys and of one of values.
    fn append(&mut self, groups: [(&Tensor, usize); 2], width: usize) {
        for (to, (from, group)) in [&mut self.k, &mut self.v].into_iter().zip(groups) {
            let rows = rows::places(0..from.rows() as u32, from.width() / width, group..group + 1);
            to.append(&rows::cut(from, width), &rows);
        }
    }
}

impl Growing {
    /// Appends rows of `from`, in twice the room where it is used up.
    fn append(&mut self, from: &Tensor, rows: &[u32]) {
        let needed = self.len + rows.len();
        let enough = self.room.take_if(|room| needed <= room.rows());
        let mut room = enough.unwrap_or_else(|| {
            let mut more = from.room_beside(&[needed.next_power_of_two(), from.width()]);
            if let Some(before) = &self.room {
                rows::put(&mut more, 0, before, &(0..self.len as u32).collect::<Vec<u32>>());
            }
            more
        });
        rows::put(&mut room, self.len, from, rows);
        (self.room, self.len) = (Some(room), needed);
    }

    fn numbers(&self) -> &[f32] {
        self.room.as_ref().map_or(&[], |room| &room.f32s()[..self.len * room.width()])
    }
}

/// The numbers of a value that needs no gradient. Panics for another: a gradient would be lost silently.
fn constant(value: &Value) -> &Tensor {
    assert!(value.node().is_none(), "a cache is for inference: no gradient flows through it");
    value.tensor()
}
