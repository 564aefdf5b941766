//! Token embeddings: rows of the vocabulary table, and rows of the trainable prompt among them.
//!
//! ```text
//! forward    y[t] = table[id]   for Text(id),     y[t] = prompt[k]   for Soft(k)
//! backward   d_table[id] += d_y[t]  and  d_prompt[k] += d_y[t]   for every such t, where they are trained
//! ```
//! The sums go over the tokens in order, so they have the same bits for any number of threads. With a frozen table the
//! gradient of `y` is wanted at the soft tokens only.

use std::sync::Arc;

use tensor::Tensor;
use tensor::ops::rows::{self, gather, scatter};

use crate::{Gradients, NodeId, Op, Tape, Value, Weight};

/// Where the embedding of one token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A vocabulary token.
    Text(u32),
    /// A row of the soft prompt.
    Soft(u32),
}

/// `[T, C]`, one row per source. `table` is `[V, C]`; `prompt` is `[P, C]` and must be given when a source is `Soft`.
pub fn embed(tape: &Tape, sources: &Arc<[Source]>, table: &Weight, prompt: Option<&Value>) -> Value {
    let n_texts = table.shape()[0] as u32;
    let row = |source: &Source| match *source {
        Source::Text(id) => {
            assert!(id < n_texts, "token {id} of a vocabulary of {n_texts}");
            id
        }
        Source::Soft(k) => n_texts + k,
    };
    let rows: Vec<u32> = sources.iter().map(row).collect();
    let y = gather(table.tensor(), prompt.map(Value::tensor), &rows);
    let table = table.value(tape);
    let is_wanted = |source: &Source| match source {
        Source::Text(_) => table.node().is_some(),
        Source::Soft(_) => prompt.is_some_and(|prompt| prompt.node().is_some()),
    };
    let wanted: Vec<u32> = (0u32..).zip(&**sources).filter(|(_, s)| is_wanted(s)).map(|(t, _)| t).collect();
    if wanted.is_empty() {
        return Value::constant(y);
    }
    let learning = wanted.iter().map(|&t| sources[t as usize]).collect();
    let wanted = (wanted.len() < sources.len()).then(|| wanted.into());
    let inputs: Vec<&Value> = prompt.into_iter().chain([&table]).collect();
    let part = |value: &Value| value.node().map(|node| (node, value.tensor().shape().to_vec()));
    tape.record_at(y, wanted, &inputs, || Embed {
        table: part(&table),
        prompt: prompt.and_then(part),
        learning,
    })
}

struct Embed {
    /// Node and shape.
    table: Option<(NodeId, Vec<usize>)>,
    prompt: Option<(NodeId, Vec<usize>)>,
    /// Where each row comes from whose gradient is wanted.
    learning: Vec<Source>,
}

impl Op for Embed {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let texts = |source: &Source| match *source {
            Source::Text(id) => id,
            Source::Soft(_) => NOWHERE,
        };
        let soft = |source: &Source| match *source {
            Source::Soft(k) => k,
            Source::Text(_) => NOWHERE,
        };
        if let Some((node, shape)) = &self.table {
            add_to_rows(grads, *node, shape, &d_y, self.learning.iter().map(texts));
        }
        if let Some((node, shape)) = &self.prompt {
            add_to_rows(grads, *node, shape, &d_y, self.learning.iter().map(soft));
        }
    }
}

/// A row that no table has.
const NOWHERE: u32 = u32::MAX;

/// Adds each row of `d_y` to the row of the node's gradient that `rows` names.
fn add_to_rows(
    grads: &mut Gradients,
    node: NodeId,
    shape: &[usize],
    d_y: &Tensor,
    rows: impl Iterator<Item = u32>,
) {
    let rows: Vec<u32> = rows.collect();
    grads.add_into(Some(node), shape, |before| scatter(d_y, &rows, shape, before));
}

/// `y[t] = x[t] + table[rows[t]]` (learned positions). The gradient of `x` is that of `y`; that of the table collects it
/// by row.
pub fn add_rows(tape: &Tape, x: &Value, table: &Weight, rows: &[u32]) -> Value {
    let y = rows::add_rows(x.tensor(), table.tensor(), rows);
    let table = table.value(tape);
    let Some(node) = table.node() else { return x.shifted(y) };
    tape.record(y, &[x, &table], || AddRows {
        input: x.node(),
        table: (node, table.tensor().shape().to_vec()),
        rows: rows.into(),
    })
}

struct AddRows {
    input: Option<NodeId>,
    table: (NodeId, Vec<usize>),
    rows: Vec<u32>,
}

impl Op for AddRows {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let (node, shape) = &self.table;
        add_to_rows(grads, *node, shape, &d_y, self.rows.iter().copied());
        grads.add(self.input, || d_y);
    }
}
