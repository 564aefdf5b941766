//! The forward pass: a running softmax over blocks of keys.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    Inputs, Rows,
    pack::{Column, PackTransposed, padded},
    product::{Dots, Left, Product},
    visible::{KEYS, KeyBlock, QUERIES, Tile, key_blocks},
};
use crate::{
    Isa,
    simd::{MAX_LANES, Simd, SimdOp, math},
};

/// Queries of a task. A block of keys is packed once per task, so fewer queries would pack more often.
const CHUNK: usize = 512;
/// Up to this many queries read the keys where they lie, because packing would cost more than the product.
const FEW: usize = 4;

/// `out[T, H*D] = softmax(scale · q kᵀ, masked) v`; keeps `lse[H, T]` for the backward pass.
///
/// A query that sees no key gets zeros and `lse = -inf`. Panics when the sizes do not fit together.
pub fn forward(isa: Isa, inputs: Inputs, out: &mut [f32], lse: &mut [f32]) {
    inputs.check();
    let (t, n_heads, head_dim) = (inputs.n_queries, inputs.heads.n_heads, inputs.heads.head_dim);
    let width = n_heads * head_dim;
    assert_eq!((out.len(), lse.len()), (t * width, n_heads * t), "out and lse");
    if out.is_empty() {
        return;
    }
    let blocks = key_blocks(inputs.mask, t);
    let n_chunks = t.div_ceil(CHUNK);
    let work = |task: usize| {
        let first = task % n_chunks * CHUNK;
        let mut chunk = Chunk::new(isa, &inputs, task / n_chunks, first..(first + CHUNK).min(t));
        blocks.iter().for_each(|block| chunk.visit(block));
        chunk.finish()
    };
    // heads lie side by side in a row of `out`, so a task cannot write there: it hands back its columns
    let tasks = 0..n_heads * n_chunks;
    let done: Vec<Finished> = match inputs.is_large() {
        true => tasks.into_par_iter().map(work).collect(),
        false => tasks.map(work).collect(),
    };
    for (head, lse) in lse.chunks_exact_mut(t).enumerate() {
        let parts = &done[head * n_chunks..][..n_chunks];
        lse.chunks_mut(CHUNK).zip(parts).for_each(|(lse, part)| lse.copy_from_slice(&part.lse));
    }
    let copy_row = |(i, out): (usize, &mut [f32])| {
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let part = &done[head * n_chunks + i / CHUNK];
            out.copy_from_slice(&part.out[i % CHUNK * padded(head_dim)..][..head_dim]);
        }
    };
    match inputs.is_large() {
        true => out.par_chunks_exact_mut(width).with_min_len(32).enumerate().for_each(copy_row),
        false => out.chunks_exact_mut(width).enumerate().for_each(copy_row),
    }
}

/// The result of one chunk of queries of one head.
struct Finished {
    /// Padded rows.
    out: Vec<f32>,
    lse: Vec<f32>,
}

/// Some queries of one head while they meet one block of keys after the other.
struct Chunk<'a> {
    isa: Isa,
    inputs: &'a Inputs<'a>,
    /// Columns of the key/value head.
    kv: Column,
    queries: Range<usize>,
    /// The queries times scale, in padded rows.
    q: Vec<f32>,
    /// `Σ_j e^(s_ij - max_i) v_j` so far, in padded rows.
    out: Vec<f32>,
    /// Largest score so far.
    max: Vec<f32>,
    /// `Σ_j e^(s_ij - max_i)` so far.
    sum: Vec<f32>,
    /// The packed block: keys transposed, values in padded rows.
    k: Vec<f32>,
    v: Vec<f32>,
    /// One tile.
    scores: Vec<f32>,
}

impl<'a> Chunk<'a> {
    fn new(isa: Isa, inputs: &'a Inputs, head: usize, queries: Range<usize>) -> Self {
        let heads = inputs.heads;
        let (n, padded) = (queries.len(), padded(heads.head_dim));
        let mut q = vec![0.0; n * padded];
        Column::of(head, heads.head_dim).pack(inputs.q, queries.clone(), heads.scale, &mut q);
        Chunk {
            isa,
            inputs,
            kv: Column::of(head / heads.group(), heads.head_dim),
            queries,
            q,
            out: vec![0.0; n * padded],
            max: vec![f32::NEG_INFINITY; n],
            sum: vec![0.0; n],
            k: vec![0.0; heads.head_dim * KEYS],
            v: vec![0.0; KEYS * padded],
            scores: vec![0.0; QUERIES * KEYS],
        }
    }

    /// Adds what the keys of `block` contribute.
    fn visit(&mut self, block: &KeyBlock) {
        let n_seen: usize = block.tiles(self.queries.clone()).map(|tile| tile.queries.len()).sum();
        if n_seen == 0 {
            return;
        }
        let (few, head_dim) = (n_seen <= FEW, self.kv.head_dim);
        if !few {
            let (column, x, rows) = (self.kv, self.inputs.k, block.keys.clone());
            self.isa.run(PackTransposed { column, x, rows, out: &mut self.k });
        }
        // without packing, rows must be whole vectors
        let values_in_place = few && head_dim.is_multiple_of(MAX_LANES);
        if !values_in_place {
            self.kv.pack(self.inputs.v, block.keys.clone(), 1.0, &mut self.v);
        }
        for tile in block.tiles(self.queries.clone()) {
            self.scores(block, &tile, few);
            self.softmax(block, &tile);
            self.add_values(block, &tile, values_in_place);
        }
    }

    /// Where the tile's queries begin in this chunk, and how many there are.
    fn place(&self, tile: &Tile) -> (usize, usize) {
        (tile.queries.start - self.queries.start, tile.queries.len())
    }

    /// `scores = q kᵀ`
    fn scores(&mut self, block: &KeyBlock, tile: &Tile, few: bool) {
        let ((first, n), head_dim) = (self.place(tile), self.kv.head_dim);
        let stride = padded(head_dim);
        let q = Rows { data: &self.q[first * stride..], stride };
        let out = &mut self.scores[..];
        if few {
            let k = self.kv.rows_from(self.inputs.k, block.keys.start);
            let n_keys = block.keys.len();
            self.isa.run(Dots { q, n_queries: n, k, n_keys, head_dim, out, out_stride: KEYS });
        } else {
            let b = Rows { data: &self.k, stride: KEYS };
            let size = [n, head_dim, KEYS];
            self.isa.run(Product { a: Left::Plain(q), b, c: out, c_stride: KEYS, size, add: false });
        }
    }

    /// `scores = e^(scores - max)`, with `max`, `sum` and `out` brought up to date.
    fn softmax(&mut self, block: &KeyBlock, tile: &Tile) {
        let ((first, n), stride) = (self.place(tile), padded(self.kv.head_dim));
        self.isa.run(Softmax {
            scores: &mut self.scores[..n * KEYS],
            mask: tile.masked.then_some((block, tile.queries.start)),
            max: &mut self.max[first..],
            sum: &mut self.sum[first..],
            out: &mut self.out[first * stride..],
            width: stride,
        });
    }

    /// `out += scores · v`
    fn add_values(&mut self, block: &KeyBlock, tile: &Tile, values_in_place: bool) {
        let ((first, n), stride) = (self.place(tile), padded(self.kv.head_dim));
        let b = match values_in_place {
            true => self.kv.rows_from(self.inputs.v, block.keys.start),
            false => Rows { data: &self.v, stride },
        };
        let a = Left::Plain(Rows { data: &self.scores, stride: KEYS });
        let c = &mut self.out[first * stride..];
        self.isa.run(Product { a, b, c, c_stride: stride, size: [n, block.keys.len(), stride], add: true });
    }

    /// Divides by the sums.
    fn finish(mut self) -> Finished {
        let rows = self.out.chunks_exact_mut(padded(self.kv.head_dim));
        for (out, &sum) in rows.zip(&self.sum) {
            if sum != 0.0 {
                out.iter_mut().for_each(|x| *x /= sum);
            }
        }
        // no key: max is -inf and ln(0) as well
        let lse = self.max.iter().zip(&self.sum).map(|(max, sum)| max + sum.ln()).collect();
        Finished { out: self.out, lse }
    }
}

/// One tile of the running softmax.
struct Softmax<'a> {
    /// Rows of [`KEYS`], one per query.
    scores: &'a mut [f32],
    /// The mask and the number of the first query, where some pair may be invisible.
    mask: Option<(&'a KeyBlock, usize)>,
    max: &'a mut [f32],
    sum: &'a mut [f32],
    /// Rows of `width`.
    out: &'a mut [f32],
    width: usize,
}

impl SimdOp for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let running = self.max.iter_mut().zip(self.sum).zip(self.out.chunks_exact_mut(self.width));
        for (r, (scores, ((max, sum), out))) in self.scores.chunks_exact_mut(KEYS).zip(running).enumerate() {
            if let Some((block, first)) = self.mask {
                hide(s, block, first + r, scores);
            }
            let mut largest = s.splat(*max);
            for j in (0..KEYS).step_by(S::LANES) {
                largest = s.max(largest, s.load(&scores[j..]));
            }
            let new_max = s.max_lane(largest);
            // Nothing seen yet: e^(-inf - -inf) would be a NaN. A NaN among the scores is no such case: `max` may have
            // dropped it, and it must not pass for a query that sees nothing.
            if new_max == f32::NEG_INFINITY && scores.iter().all(|&score| score == f32::NEG_INFINITY) {
                scores.fill(0.0);
                continue;
            }
            let mut new_sum = s.splat(0.0);
            for j in (0..KEYS).step_by(S::LANES) {
                let p = math::exp(s, s.sub(s.load(&scores[j..]), s.splat(new_max)));
                s.store(p, &mut scores[j..]);
                new_sum = s.add(new_sum, p);
            }
            if new_max != *max {
                let shrink = (*max - new_max).exp();
                *sum *= shrink;
                for d in (0..out.len()).step_by(S::LANES) {
                    s.store(s.mul(s.load(&out[d..]), s.splat(shrink)), &mut out[d..]);
                }
            }
            *max = new_max;
            *sum += s.sum(new_sum);
        }
    }
}

/// Sets the scores of keys that `query` does not see to `-inf`.
#[inline(always)]
pub(super) fn hide<S: Simd>(s: S, block: &KeyBlock, query: usize, scores: &mut [f32]) {
    let (query, hidden) = (s.splat(query as f32), s.splat(f32::NEG_INFINITY));
    for j in (0..KEYS).step_by(S::LANES) {
        let score = s.select_lt(query, s.load(&block.end[j..]), s.load(&scores[j..]), hidden);
        s.store(s.select_lt(query, s.load(&block.begin[j..]), hidden, score), &mut scores[j..]);
    }
}
