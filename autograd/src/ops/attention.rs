//! Attention with the interval mask.
//!
//! ```text
//! forward    s = scale · q kᵀ + bias, masked,   p = softmax(s),   y = p v
//! backward   d_v = pᵀ d_y,   d_p = d_y vᵀ,   d_s = p * (d_p - rowsum(d_y * y)),
//!            d_q = scale · d_s k,   d_k = scale · d_sᵀ q,   d_bias = d_s summed by distance where it is trained
//! ```
//! Remembers `q`, `k`, `v`, `y` and one `lse` per head and query; probabilities are made again, tile by tile.
//! Sources: Vaswani et al. 2017; Dao et al. 2022 (tiles); arXiv 2410.01359 (column intervals).

use std::sync::Arc;

use kernels::Isa;
use kernels::attention::{self as kernel, Bias, Heads, Inputs, Mask, Rows, RowsMut, Upstream};
use tensor::Tensor;

use crate::{Gradients, NodeId, Op, Tape, Value};

/// Key `j` is seen by exactly the queries in `[begin[j], end[j])`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// First query that sees the key.
    pub begin: Vec<u32>,
    /// One past the last query that sees the key.
    pub end: Vec<u32>,
}

impl Intervals {
    /// Everybody before sees everybody after: one plain causal sequence.
    pub fn causal(len: usize) -> Intervals {
        Intervals { begin: (0..len as u32).collect(), end: vec![len as u32; len] }
    }

    /// The same mask when only the queries `rows` (ascending) remain.
    pub fn for_queries(&self, rows: &[u32]) -> Intervals {
        let at = |x: &u32| rows.partition_point(|r| r < x) as u32;
        Intervals { begin: self.begin.iter().map(at).collect(), end: self.end.iter().map(at).collect() }
    }

    /// The same mask with `n` keys before the others, seen by all of `n_queries`.
    pub fn behind(&self, n: usize, n_queries: usize) -> Intervals {
        let begin = std::iter::repeat_n(0, n).chain(self.begin.iter().copied());
        let end = std::iter::repeat_n(n_queries as u32, n).chain(self.end.iter().copied());
        Intervals { begin: begin.collect(), end: end.collect() }
    }

    /// As the kernels take it.
    pub fn mask(&self) -> Mask<'_> {
        Mask { begin: &self.begin, end: &self.end }
    }
}

/// A bias by how far a query is behind a key (T5): see [`Bias`].
#[derive(Clone, Debug)]
pub struct RelativeBias {
    /// Position of each query.
    pub query_positions: Arc<[u32]>,
    /// Position of each key.
    pub key_positions: Arc<[u32]>,
    /// `[H, 2 * reach + 1]`
    pub table: Value,
}

/// Who sees whom, and what is added to the scores for it.
#[derive(Clone, Debug)]
pub struct Relation {
    /// Who sees whom.
    pub mask: Arc<Intervals>,
    /// What is added, if anything.
    pub bias: Option<RelativeBias>,
}

impl From<&Arc<Intervals>> for Relation {
    fn from(mask: &Arc<Intervals>) -> Relation {
        Relation { mask: mask.clone(), bias: None }
    }
}

impl Relation {
    /// The bias as the kernels take it.
    pub fn bias(&self) -> Option<Bias<'_>> {
        let RelativeBias { query_positions, key_positions, table } = self.bias.as_ref()?;
        Some(Bias { query_positions, key_positions, table: table.tensor().f32s() })
    }
}

/// The inputs of attention as the projections leave them.
#[derive(Clone, Copy, Debug)]
pub enum Qkv<'a> {
    /// Three matrices, `[queries, H*D]`, `[keys, KV*D]`, `[keys, KV*D]`.
    Split(&'a Value, &'a Value, &'a Value),
    /// One matrix `[T, 3*H*D]` (GPT-2), of which only the queries in the given rows are wanted, if rows are given.
    Fused(&'a Value, Option<&'a Arc<[u32]>>),
}

/// `[queries, H*D]`. Intervals and positions count the queries that are wanted.
pub fn attention(tape: &Tape, qkv: Qkv, heads: Heads, relation: impl Into<Relation>) -> Value {
    let relation = relation.into();
    let (tensors, inputs): (Tensors, Vec<&Value>) = match qkv {
        Qkv::Split(q, k, v) => {
            (Tensors::Split([q.tensor().clone(), k.tensor().clone(), v.tensor().clone()]), vec![q, k, v])
        }
        Qkv::Fused(qkv, None) => (Tensors::Fused(qkv.tensor().clone()), vec![qkv]),
        Qkv::Fused(qkv, Some(rows)) => {
            let (rows, q) = (rows.clone(), take_queries(qkv.tensor(), heads, rows));
            (Tensors::FusedRows { qkv: qkv.tensor().clone(), rows, q }, vec![qkv])
        }
    };
    let table = relation.bias.as_ref().map(|bias| tape.adopt(&bias.table));
    let n = tensors.n_queries();
    let mut lse = empty(heads.n_heads, n);
    let y = Tensor::build(&[n, heads.n_heads * heads.head_dim], |y| {
        kernel::forward(Isa::best(), tensors.inputs(heads, &relation), y, whole(&mut lse));
    });
    let all: Vec<&Value> = inputs.iter().copied().chain(&table).collect();
    tape.record(y.clone(), &all, || Attention {
        nodes: inputs.iter().map(|v| v.node()).collect(),
        table: table.as_ref().and_then(Value::node),
        tensors,
        heads,
        relation,
        y,
        lse,
    })
}

/// Room for a kernel that writes all of it.
fn empty(rows: usize, width: usize) -> Tensor {
    Tensor::build(&[rows, width], |_| ())
}

fn whole(tensor: &mut Tensor) -> &mut [f32] {
    tensor.get_mut().expect("nobody else has it yet")
}

fn take_queries(qkv: &Tensor, heads: Heads, rows: &[u32]) -> Tensor {
    let (stride, width) = (qkv.width(), heads.n_heads * heads.head_dim);
    Tensor::build(&[rows.len(), width], |q| {
        for (out, &row) in q.chunks_exact_mut(width).zip(rows) {
            out.copy_from_slice(&qkv.f32s()[row as usize * stride..][..width]);
        }
    })
}

enum Tensors {
    Split([Tensor; 3]),
    Fused(Tensor),
    FusedRows { qkv: Tensor, rows: Arc<[u32]>, q: Tensor },
}

impl Tensors {
    fn n_queries(&self) -> usize {
        match self {
            Tensors::Split([q, ..]) | Tensors::Fused(q) | Tensors::FusedRows { q, .. } => q.rows(),
        }
    }

    fn inputs<'a>(&'a self, heads: Heads, relation: &'a Relation) -> Inputs<'a> {
        let whole = |t: &'a Tensor| Rows { data: t.f32s(), stride: t.width() };
        let width = heads.n_heads * heads.head_dim;
        // an empty batch has no numbers to skip
        let column = |t: &'a Tensor, i: usize| Rows {
            data: t.f32s().get(i * width..).unwrap_or(&[]),
            stride: t.width(),
        };
        let [q, k, v] = match self {
            Tensors::Split(three) => three.each_ref().map(whole),
            Tensors::Fused(qkv) => [0, 1, 2].map(|i| column(qkv, i)),
            Tensors::FusedRows { qkv, q, .. } => [whole(q), column(qkv, 1), column(qkv, 2)],
        };
        let (mask, bias) = (relation.mask.mask(), relation.bias());
        Inputs { heads, q, k, v, mask, bias, n_queries: self.n_queries() }
    }
}

struct Attention {
    nodes: Vec<Option<NodeId>>,
    /// Of the bias.
    table: Option<NodeId>,
    tensors: Tensors,
    heads: Heads,
    relation: Relation,
    y: Tensor,
    /// `[H, queries]`
    lse: Tensor,
}

impl Op for Attention {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        grads.add(self.table, || self.d_table(&d_y));
        let n_keys = self.relation.mask.begin.len();
        let widths = [self.heads.n_heads, self.heads.n_kv_heads, self.heads.n_kv_heads];
        let widths = widths.map(|n| n * self.heads.head_dim);
        if let Tensors::Split(_) = self.tensors {
            let rows = [self.tensors.n_queries(), n_keys, n_keys];
            let mut d = [0, 1, 2].map(|i| empty(rows[i], widths[i]));
            let into = d.each_mut().map(|d| {
                let width = d.width();
                RowsMut::of(whole(d), width)
            });
            self.backward_into(&d_y, into);
            for (node, d) in self.nodes.iter().zip(d) {
                grads.add(*node, || d);
            }
            return;
        }
        let mut d_qkv = empty(n_keys, widths.iter().sum());
        let [mut d_q, d_k, d_v] = RowsMut::side_by_side(whole(&mut d_qkv), widths);
        if let Tensors::FusedRows { rows, .. } = &self.tensors {
            d_q = d_q.keep(rows);
        }
        self.backward_into(&d_y, [d_q, d_k, d_v]);
        grads.add(self.nodes[0], || d_qkv);
    }
}

impl Attention {
    fn d_table(&self, d_y: &Tensor) -> Tensor {
        let bias = self.relation.bias.as_ref().expect("the bias that is trained");
        let upstream = Upstream { out: self.y.f32s(), lse: self.lse.f32s(), d_out: d_y.f32s() };
        Tensor::build(bias.table.tensor().shape(), |d| {
            kernel::backward_bias(self.tensors.inputs(self.heads, &self.relation), upstream, d);
        })
    }

    fn backward_into(&self, d_y: &Tensor, [d_q, d_k, d_v]: [RowsMut; 3]) {
        let upstream = Upstream { out: self.y.f32s(), lse: self.lse.f32s(), d_out: d_y.f32s() };
        let inputs = self.tensors.inputs(self.heads, &self.relation);
        kernel::backward(Isa::best(), inputs, upstream, kernel::Gradients { d_q, d_k, d_v });
    }
}
