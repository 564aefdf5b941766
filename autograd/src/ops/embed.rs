//! Token embeddings: rows of the frozen vocabulary table, and rows of the trainable prompt among them.
//!
//! ```text
//! forward    y[t] = table[id]   for Text(id),     y[t] = prompt[k]   for Soft(k)
//! backward   d_prompt[k] += d_y[t]   for every t that is Soft(k)
//! ```
//! The sum goes over the tokens in order, so it has the same bits for any number of threads. The table is frozen, so the
//! gradient of `y` is wanted at the soft tokens only.

use std::sync::Arc;

use kernels::embedding;
use tensor::{Frozen, Tensor};

use crate::{Gradients, NodeId, Op, Tape, Value};

/// Where the embedding of one token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A vocabulary token.
    Text(u32),
    /// A row of the soft prompt.
    Soft(u32),
}

/// `[T, C]`, one row per source. `table` is `[V, C]`; `prompt` is `[P, C]` and must be given when a source is `Soft`.
pub fn embed(tape: &Tape, sources: &Arc<[Source]>, table: &Frozen, prompt: Option<&Value>) -> Value {
    let width = table.shape()[1];
    let y = Tensor::build(&[sources.len(), width], |y| {
        for (out, source) in y.chunks_exact_mut(width).zip(sources.iter()) {
            match *source {
                Source::Text(id) => embedding::row(table.elements(), id as usize, out),
                Source::Soft(k) => {
                    let prompt = prompt.expect("a batch with soft tokens comes with a prompt").tensor();
                    out.copy_from_slice(&prompt.f32s()[k as usize * width..][..width]);
                }
            }
        }
    });
    let Some(prompt) = prompt.filter(|prompt| prompt.node().is_some()) else { return Value::constant(y) };
    let (tokens, soft): (Vec<u32>, Vec<u32>) = soft_tokens(sources).unzip();
    if soft.is_empty() {
        return Value::constant(y);
    }
    let wanted = (tokens.len() < sources.len()).then(|| tokens.into());
    let shape = prompt.tensor().shape().to_vec();
    tape.record_at(y, wanted, &[prompt], || Embed { prompt: prompt.node(), shape, soft })
}

/// Every soft token: its place among the tokens, and its row of the prompt.
fn soft_tokens(sources: &[Source]) -> impl Iterator<Item = (u32, u32)> + '_ {
    sources.iter().enumerate().filter_map(|(t, source)| match *source {
        Source::Soft(k) => Some((t as u32, k)),
        Source::Text(_) => None,
    })
}

struct Embed {
    prompt: Option<NodeId>,
    shape: Vec<usize>,
    /// The row of the prompt that each soft token is, in order.
    soft: Vec<u32>,
}

impl Op for Embed {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let width = d_y.width();
        grads.add(self.prompt, || {
            Tensor::build(&self.shape, |d_prompt| {
                d_prompt.fill(0.0);
                for (d, &k) in d_y.f32s().chunks_exact(width).zip(&self.soft) {
                    let acc = &mut d_prompt[k as usize * width..][..width];
                    acc.iter_mut().zip(d).for_each(|(a, d)| *a += d);
                }
            })
        });
    }
}

/// `y[t] = x[t] + table[rows[t]]` with a frozen table (learned positions). The gradient of `x` is that of `y`.
pub fn add_rows(x: &Value, table: &Frozen, rows: &[u32]) -> Value {
    let width = table.shape()[1];
    let y = Tensor::build(x.tensor().shape(), |y| {
        let tokens = y.chunks_exact_mut(width).zip(x.tensor().f32s().chunks_exact(width)).zip(rows);
        for ((out, x), &row) in tokens {
            embedding::row(table.elements(), row as usize, out);
            out.iter_mut().zip(x).for_each(|(o, x)| *o += x);
        }
    });
    x.shifted(y)
}
