//! The forward pass: a running softmax over blocks of keys.

use std::{
    f32::consts::{LN_2, LOG2_E},
    ops::Range,
};

use rayon::prelude::*;

use super::{
    Heads, Inputs, Rows, RowsMut,
    pack::{Column, all_finite, copy, padded, transpose},
    product::{Left, Sink, multiply_all, multiply_visible},
    scores::{Finish, Meeting, Panel, PerPanel, Running, fill_bias, panel_product, panels},
    scratch::{Scratch, with_scratch},
    visible::{Bounds, KEYS, TILE},
};
use crate::{
    Isa,
    simd::{Simd, SimdOp},
};

/// Most tiles of a chunk, of all heads that share keys: their queries and results fill most of the second cache, and the
/// more they are, the less often keys are copied.
const TILES: usize = 16;

/// `out[T, H*D] = softmax(scale · q kᵀ, masked) v`; keeps `lse[T, H]` for the backward pass.
///
/// A query that sees no key gets zeros and `lse = -inf`. Panics when the sizes do not fit together.
pub fn forward(isa: Isa, inputs: Inputs, out: &mut [f32], lse: &mut [f32]) {
    inputs.check();
    let Heads { n_heads, head_dim, .. } = inputs.heads;
    let (t, group) = (inputs.n_queries, inputs.heads.group());
    assert_eq!((out.len(), lse.len()), (t * n_heads * head_dim, n_heads * t), "out and lse");
    let bounds = Bounds::new(inputs.mask, t);
    let chunks = bounds.chunks(inputs.mask, 0..t, TILES.div_ceil(group));
    let n_kv_heads = inputs.kv_heads_per_task(chunks.len());
    let heights = || chunks.iter().map(|chunk| chunk.last().map_or(0, |tile| tile.end) - chunk[0].start);
    let steps = inputs.heads.in_steps(n_kv_heads);
    let (n_pieces, width) = (steps.clone().count(), n_kv_heads * group);
    let outs = RowsMut::of(out, n_heads * head_dim).cut(heights(), n_pieces, width * head_dim);
    let lses = RowsMut::of(lse, n_heads).cut(heights(), n_pieces, width);
    let whole = chunks.iter().flat_map(|tiles| steps.clone().map(move |kv_heads| (&tiles[..], kv_heads)));
    let tasks = whole.zip(outs.zip(lses));
    let work = |((tiles, kv_heads), (out, lse))| {
        let (inputs, bounds) = (&inputs, &bounds);
        with_scratch(|scratch| isa.run(Task { inputs, bounds, tiles, kv_heads, out, lse, scratch }));
    };
    match inputs.is_large() {
        true => tasks.collect::<Vec<_>>().into_par_iter().for_each(work),
        false => tasks.for_each(work),
    }
}

/// Some queries of some heads.
struct Task<'a, 'o, 's> {
    inputs: &'a Inputs<'a>,
    bounds: &'a Bounds,
    /// A chunk of queries.
    tiles: &'a [Range<usize>],
    kv_heads: Range<usize>,
    /// The rows of the queries, the columns of the heads.
    out: RowsMut<'o>,
    lse: RowsMut<'o>,
    scratch: &'s mut Scratch,
}

impl SimdOp for Task<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(mut self, s: S) {
        self.scratch.look(self.bounds, self.inputs.mask, self.tiles);
        for kv_head in self.kv_heads.clone() {
            self.kv_head(s, kv_head);
        }
    }
}

/// Buffers of one key/value head. What belongs to queries is there once per query head and tile, in that order.
struct Buffers<'s> {
    /// The queries times scale, transposed.
    q: &'s mut [f32],
    /// `Σ_j 2^(s_ij - max_i) v_j` so far, in padded rows.
    out: &'s mut [f32],
    /// The running softmax.
    max: &'s mut [f32],
    sum: &'s mut [f32],
    /// The block: keys and values in padded rows.
    k: &'s mut [f32],
    v: &'s mut [f32],
    /// One tile of scores, and of [`Running::keep`].
    scores: &'s mut [f32],
    keep: &'s mut [f32],
}

impl Task<'_, '_, '_> {
    #[inline(always)]
    fn kv_head<S: Simd>(&mut self, s: S, kv_head: usize) {
        let (heads, tiles) = (self.inputs.heads, self.tiles);
        let (head_dim, stride) = (heads.head_dim, padded(heads.head_dim));
        let n = heads.group() * tiles.len();
        let lanes = n * TILE;
        let lengths =
            [lanes * head_dim, lanes * stride, lanes, lanes, KEYS * stride, KEYS * stride, KEYS * TILE, TILE];
        let Scratch { keys, blocks, views, floats } = &mut *self.scratch;
        let [q, out, max, sum, k, v, scores, keep] = floats.pieces(lengths);
        let mut buffers = Buffers { q, out, max, sum, k, v, scores, keep };
        let which = || heads.sharing(kv_head).flat_map(|head| tiles.iter().map(move |tile| (head, tile)));
        for ((head, tile), q) in which().zip(buffers.q.chunks_exact_mut(TILE * head_dim)) {
            let column = Column::of(head, head_dim);
            transpose(s, heads.scale * LOG2_E, (column, self.inputs.q), tile.clone(), q);
        }
        buffers.out.fill(0.0);
        buffers.sum.fill(0.0);
        buffers.max.fill(f32::MIN); // not -inf: the difference of two of those is a NaN
        let column = Column::of(kv_head, head_dim);
        for (b, block) in blocks.iter().enumerate() {
            let rows = || keys[block.keys.clone()].iter().map(|&j| j as usize);
            column.pack(s, 1.0, self.inputs.k, rows(), buffers.k);
            column.pack(s, 1.0, self.inputs.v, rows(), buffers.v);
            let finite = all_finite(s, &buffers.v[..block.keys.len() * stride]);
            for (i, (head, tile)) in which().enumerate() {
                let view = &views[b * tiles.len() + i % tiles.len()];
                let meeting = Meeting { tile, block, view };
                let biased = fill_bias(self.inputs, head, meeting, keys, buffers.scores);
                buffers.visit(s, i, (Finish { meeting, biased }, finite), head_dim);
            }
        }
        for (i, (head, tile)) in which().enumerate() {
            let at = (tile.start - tiles[0].start, head - self.kv_heads.start * heads.group());
            buffers.finish(s, i, (tile.len(), at), (&mut self.out, &mut self.lse), head_dim);
        }
    }
}

impl Buffers<'_> {
    /// Adds what the keys of the block contribute to the queries of the tile, which is the `i`-th. `finite` says whether
    /// the values of the block are.
    #[inline(always)]
    fn visit<S: Simd>(&mut self, s: S, i: usize, (finish, finite): (Finish, bool), head_dim: usize) {
        let meeting = finish.meeting;
        let (lanes, stride) = (i * TILE..(i + 1) * TILE, padded(head_dim));
        let running =
            Running { max: &mut self.max[lanes.clone()], sum: &mut self.sum[lanes.clone()], keep: self.keep };
        let k = Rows { data: self.k, stride };
        let q = &self.q[i * TILE * head_dim..][..TILE * head_dim];
        panels(s, meeting, &mut Softmax { k, q, head_dim, finish, scores: self.scores, running });
        let a = Left::Transposed(Rows { data: self.scores, stride: TILE });
        let out = &mut self.out[i * TILE * stride..][..TILE * stride];
        let v = Rows { data: self.v, stride };
        let mut sink = Rescaled { meeting, keep: self.keep, out, stride };
        let size = [meeting.tile.len(), stride];
        match finite {
            true => multiply_all(s, a, v, size, &mut sink),
            false => multiply_visible(s, a, v, size, &mut sink),
        }
    }

    /// Divides by the sums and writes the results where they belong.
    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        s: S,
        i: usize,
        (n, (first, head)): (usize, (usize, usize)),
        (out, lse): (&mut RowsMut, &mut RowsMut),
        head_dim: usize,
    ) {
        for r in 0..n {
            let (max, sum) = (self.max[i * TILE + r], self.sum[i * TILE + r]);
            let factor = if sum == 0.0 { 0.0 } else { 1.0 / sum };
            let from = &self.out[(i * TILE + r) * padded(head_dim)..][..head_dim];
            copy(s, factor, from, &mut out.row(first + r)[head * head_dim..][..head_dim]);
            // no key: ln(0) is -inf
            lse.row(first + r)[head] = (max + sum.log2()) * LN_2;
        }
    }
}

/// Scores of a panel, and their softmax.
struct Softmax<'a> {
    k: Rows<'a>,
    q: &'a [f32],
    head_dim: usize,
    finish: Finish<'a>,
    scores: &'a mut [f32],
    running: Running<'a>,
}

impl PerPanel for Softmax<'_> {
    #[inline(always)]
    fn panel<S: Simd, const M: usize, const N: usize>(&mut self, s: S, panel: Panel) {
        let operands = (self.k, self.q, self.head_dim);
        let largest = panel_product::<S, M, N>(s, &panel, operands, Some(self.finish), self.scores);
        for v in 0..N {
            let lane = panel.lane + v * S::LANES;
            self.running.softmax(s, (lane, &panel.keys), largest[v], self.scores);
        }
    }
}

/// `out = keep * out + p · v`
struct Rescaled<'a> {
    meeting: Meeting<'a>,
    keep: &'a [f32],
    out: &'a mut [f32],
    stride: usize,
}

impl Sink for Rescaled<'_> {
    #[inline(always)]
    fn depth(&self, queries: Range<usize>) -> Range<usize> {
        self.meeting.view.keys_of(queries)
    }

    #[inline(always)]
    fn meets(&self, query: usize, key: usize) -> bool {
        self.meeting.block.seen(self.meeting.tile.start + query, key)
    }

    #[inline(always)]
    fn take<S: Simd>(&mut self, s: S, i: usize, d: usize, sum: S::V) {
        let out = &mut self.out[i * self.stride + d..];
        s.store(s.mul_add(s.load(out), s.splat(self.keep[i]), sum), out);
    }
}
