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

use kernels::attention::Heads;
use kernels::matmul::Precision;
pub use tensor::Intervals;
use tensor::Tensor;
use tensor::ops::attention::{self as op, Bias, Columns, Inputs, Upstream};
use tensor::ops::rows::{cut, places};

use crate::{Gradients, NodeId, Op, Tape, Value};

/// A bias by how far a query is behind a key (T5): see [`kernels::attention::Bias`].
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
    /// The bias as operations take it.
    pub fn bias(&self) -> Option<Bias<'_>> {
        let RelativeBias { query_positions, key_positions, table } = self.bias.as_ref()?;
        Some(Bias { query_positions, key_positions, table: table.tensor() })
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

/// How a layer computes attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionLayer {
    /// Heads and scale.
    pub heads: Heads,
    /// What a GPU rounds the factors of its products to; a CPU computes in f32.
    pub precision: Precision,
}

impl From<Heads> for AttentionLayer {
    fn from(heads: Heads) -> AttentionLayer {
        AttentionLayer { heads, precision: Precision::F32 }
    }
}

/// `[queries, H*D]`. Intervals and positions count the queries that are wanted.
pub fn attention(
    tape: &Tape,
    qkv: Qkv,
    layer: impl Into<AttentionLayer>,
    relation: impl Into<Relation>,
) -> Value {
    let (mut layer, relation) = (layer.into(), relation.into());
    let (tensors, inputs): (Tensors, Vec<&Value>) = match qkv {
        Qkv::Split(q, k, v) => {
            (Tensors::Split([q.tensor().clone(), k.tensor().clone(), v.tensor().clone()]), vec![q, k, v])
        }
        Qkv::Fused(qkv, None) => (Tensors::Fused(qkv.tensor().clone()), vec![qkv]),
        Qkv::Fused(qkv, Some(rows)) => {
            let (rows, q) = (rows.clone(), take_queries(qkv.tensor(), layer.heads, rows));
            (Tensors::FusedRows { qkv: qkv.tensor().clone(), rows, q }, vec![qkv])
        }
    };
    let table = relation.bias.as_ref().map(|bias| tape.adopt(&bias.table));
    if table.as_ref().and_then(Value::node).is_some() {
        // the gradient of a bias is computed in f32, and needs the scores that the forward pass had
        layer.precision = Precision::F32;
    }
    let (y, lse) = op::forward(tensors.inputs(layer, &relation));
    let all: Vec<&Value> = inputs.iter().copied().chain(&table).collect();
    tape.record(y.clone(), &all, || Attention {
        nodes: inputs.iter().map(|v| v.node()).collect(),
        table: table.as_ref().and_then(Value::node),
        tensors,
        layer,
        relation,
        y,
        lse,
    })
}

/// The queries of some rows, the first of three groups of columns.
fn take_queries(qkv: &Tensor, heads: Heads, rows: &[u32]) -> Tensor {
    cut(qkv, heads.n_heads * heads.head_dim).take_rows(&places(rows.iter().copied(), 3, 0..1))
}

enum Tensors {
    Split([Tensor; 3]),
    Fused(Tensor),
    FusedRows { qkv: Tensor, rows: Arc<[u32]>, q: Tensor },
}

impl Tensors {
    fn inputs<'a>(&'a self, layer: AttentionLayer, relation: &'a Relation) -> Inputs<'a> {
        let AttentionLayer { heads, precision } = layer;
        let width = heads.n_heads * heads.head_dim;
        let column = |tensor: &'a Tensor, i: usize| Columns { tensor, from: i * width };
        let [q, k, v] = match self {
            Tensors::Split(three) => three.each_ref().map(Columns::all),
            Tensors::Fused(qkv) => [0, 1, 2].map(|i| column(qkv, i)),
            Tensors::FusedRows { qkv, q, .. } => [Columns::all(q), column(qkv, 1), column(qkv, 2)],
        };
        Inputs { heads, q, k, v, mask: &relation.mask, bias: relation.bias(), precision }
    }
}

struct Attention {
    nodes: Vec<Option<NodeId>>,
    /// Of the bias.
    table: Option<NodeId>,
    tensors: Tensors,
    layer: AttentionLayer,
    relation: Relation,
    y: Tensor,
    lse: Tensor,
}

impl Op for Attention {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let inputs = self.tensors.inputs(self.layer, &self.relation);
        let upstream = Upstream { out: &self.y, lse: &self.lse, d_out: &d_y };
        grads.add(self.table, || op::backward_bias(inputs, upstream));
        let rows = match &self.tensors {
            Tensors::Split(_) => {
                let d = op::backward(inputs, upstream);
                return self.nodes.iter().zip(d).for_each(|(node, d)| grads.add(*node, || d));
            }
            Tensors::Fused(_) => None,
            Tensors::FusedRows { rows, .. } => Some(&**rows),
        };
        grads.add(self.nodes[0], || op::backward_fused(inputs, upstream, rows));
    }
}
