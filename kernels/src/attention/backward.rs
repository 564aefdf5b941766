//! The backward pass: each tile of probabilities is made again from the kept log-sum-exp.

use std::{f32::consts::LOG2_E, ops::Range};

use rayon::prelude::*;

use super::{
    Gradients, Heads, Inputs, Rows, RowsMut, Upstream,
    pack::{Column, all_finite, copy, padded, transpose},
    product::{Left, Sink, multiply_all, multiply_visible},
    scores::{Finish, Meeting, Panel, PerPanel, fill_bias, panel_product, panels},
    scratch::{Scratch, with_scratch},
    visible::{Bounds, Island, KEYS, TILE},
};
use crate::{
    Isa,
    simd::{Simd, SimdOp, math},
    slices::{load, store},
};

/// Most tiles of a chunk, of all heads that share keys. A tile has more buffers than in the forward pass.
const TILES: usize = 8;

/// The gradients of [`forward`](super::forward()) with respect to `q`, `k` and `v`.
///
/// A query that saw no key has a zero gradient and gives none. Panics when the sizes do not fit together.
pub fn backward(isa: Isa, inputs: Inputs, upstream: Upstream, grads: Gradients) {
    inputs.check();
    let (t, n_keys) = (inputs.n_queries, inputs.n_keys());
    let Heads { n_heads, n_kv_heads, head_dim, .. } = inputs.heads;
    let (q_width, kv_width) = (n_heads * head_dim, n_kv_heads * head_dim);
    assert_eq!((upstream.out.len(), upstream.d_out.len()), (t * q_width, t * q_width), "out and d_out");
    assert_eq!(upstream.lse.len(), n_heads * t, "lse");
    grads.d_q.check("d_q", t, q_width);
    grads.d_k.check("d_k", n_keys, kv_width);
    grads.d_v.check("d_v", n_keys, kv_width);

    let bounds = Bounds::new(inputs.mask, t);
    let islands = bounds.islands();
    let n_kv_heads = inputs.kv_heads_per_task(islands.len());
    let queries = || islands.iter().map(|island| island.queries.len());
    let keys = || islands.iter().map(|island| island.keys.len());
    let steps = inputs.heads.in_steps(n_kv_heads);
    let (n_pieces, width) = (steps.clone().count(), n_kv_heads * head_dim);
    let d_q = grads.d_q.cut(queries(), n_pieces, width * inputs.heads.group());
    let [d_k, d_v] = [grads.d_k, grads.d_v].map(|d| d.cut(keys(), n_pieces, width));
    let whole = islands.iter().flat_map(|island| steps.clone().map(move |kv_heads| (island, kv_heads)));
    let tasks =
        whole.zip(d_q.zip(d_k.zip(d_v))).map(|(what, (d_q, (d_k, d_v)))| (what, Gradients { d_q, d_k, d_v }));
    let work = |((island, kv_heads), grads): ((&Island, Range<usize>), Gradients)| {
        let (inputs, upstream, bounds) = (&inputs, &upstream, &bounds);
        with_scratch(|scratch| {
            isa.run(Task { inputs, upstream, bounds, island, kv_heads, grads, scratch });
        });
    };
    match inputs.is_large() {
        true => tasks.collect::<Vec<_>>().into_par_iter().for_each(work),
        false => tasks.for_each(work),
    }
}

/// An island for some heads. Nobody else adds to its gradients.
struct Task<'a, 'o, 's> {
    inputs: &'a Inputs<'a>,
    upstream: &'a Upstream<'a>,
    bounds: &'a Bounds,
    island: &'a Island,
    kv_heads: Range<usize>,
    /// The rows of the island, the columns of the heads.
    grads: Gradients<'o>,
    scratch: &'s mut Scratch,
}

impl SimdOp for Task<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(mut self, s: S) {
        self.grads.d_k.zero();
        self.grads.d_v.zero();
        let (mask, most) = (self.inputs.mask, TILES.div_ceil(self.inputs.heads.group()));
        for tiles in self.bounds.chunks(mask, self.island.queries.clone(), most) {
            self.scratch.look(self.bounds, mask, &tiles);
            for kv_head in self.kv_heads.clone() {
                self.kv_head(s, &tiles, kv_head);
            }
        }
    }
}

/// Buffers of one key/value head and chunk. What belongs to queries is there once per query head and tile.
struct Buffers<'s> {
    queries: Queries<'s>,
    /// `d_q / scale` so far, in padded rows.
    d_q: &'s mut [f32],
    /// The block: keys and values in padded rows.
    k: &'s mut [f32],
    v: &'s mut [f32],
    /// One tile each: scores, then probabilities; and the gradients of those, then of the scores.
    p: &'s mut [f32],
    d_s: &'s mut [f32],
}

/// What is known of the queries.
struct Queries<'s> {
    /// The queries times scale: in padded rows, and transposed for powers of two.
    q: &'s mut [f32],
    q_transposed: &'s mut [f32],
    /// The upstream gradient, both ways.
    d_out: &'s mut [f32],
    d_out_transposed: &'s mut [f32],
    /// The log-sum-exp, for powers of two.
    lse: &'s mut [f32],
    /// `D_i = d_out_i · out_i`
    delta: &'s mut [f32],
}

/// A meeting, and whether every factor of its products is finite.
#[derive(Clone, Copy)]
struct Checked<'a> {
    meeting: Meeting<'a>,
    finite: bool,
}

impl Task<'_, '_, '_> {
    #[inline(always)]
    fn kv_head<S: Simd>(&mut self, s: S, tiles: &[Range<usize>], kv_head: usize) {
        let heads = self.inputs.heads;
        let (head_dim, stride) = (heads.head_dim, padded(heads.head_dim));
        let lanes = heads.group() * tiles.len() * TILE;
        let (rows, columns, block, tile) = (lanes * stride, lanes * head_dim, KEYS * stride, KEYS * TILE);
        let lengths = [rows, columns, rows, columns, lanes, lanes, rows, block, block, tile, tile];
        let Scratch { keys, blocks, views, floats } = &mut *self.scratch;
        let [q, q_transposed, d_out, d_out_transposed, lse, delta, d_q, k, v, p, d_s] =
            floats.pieces(lengths);
        let queries = Queries { q, q_transposed, d_out, d_out_transposed, lse, delta };
        let mut buffers = Buffers { queries, d_q, k, v, p, d_s };
        let which = || heads.sharing(kv_head).flat_map(|head| tiles.iter().map(move |tile| (head, tile)));
        let mut finite_queries = true;
        for (i, (head, tile)) in which().enumerate() {
            buffers.queries.fill(s, i, tile, (self.inputs, self.upstream, head));
            finite_queries &= buffers.queries.are_finite(s, i, tile.len());
        }
        buffers.d_q.fill(0.0);
        let column = Column::of(kv_head, head_dim);
        let at = (kv_head - self.kv_heads.start) * head_dim..(kv_head - self.kv_heads.start + 1) * head_dim;
        for (b, block) in blocks.iter().enumerate() {
            let of_block = &keys[block.keys.clone()];
            column.pack(s, 1.0, self.inputs.k, of_block.iter().map(|&j| j as usize), buffers.k);
            column.pack(s, 1.0, self.inputs.v, of_block.iter().map(|&j| j as usize), buffers.v);
            let finite_rows = finite_queries && all_finite(s, &buffers.k[..of_block.len() * stride]);
            for (i, (head, tile)) in which().enumerate() {
                let view = &views[b * tiles.len() + i % tiles.len()];
                let meeting = Meeting { tile, block, view };
                let biased = fill_bias(self.inputs, head, meeting, keys, buffers.p);
                let finite_scores = buffers.probabilities(s, i, Finish { meeting, biased }, head_dim);
                let finite = finite_rows && finite_scores;
                let to = Place { keys: of_block, first_key: self.island.keys.start, columns: at.clone() };
                buffers.add_gradients(s, i, Checked { meeting, finite }, (&mut self.grads, &to));
            }
        }
        for (i, (head, tile)) in which().enumerate() {
            let first = (head - self.kv_heads.start * heads.group()) * head_dim;
            for (r, from) in tile.clone().zip(buffers.d_q[i * TILE * stride..].chunks_exact(stride)) {
                let to = self.grads.d_q.row(r - self.island.queries.start);
                copy(s, heads.scale, &from[..head_dim], &mut to[first..][..head_dim]);
            }
        }
    }
}

impl Queries<'_> {
    /// Fills in the queries of a tile, which is the `i`-th.
    #[inline(always)]
    fn fill<S: Simd>(
        &mut self,
        s: S,
        i: usize,
        tile: &Range<usize>,
        (inputs, upstream, head): (&Inputs, &Upstream, usize),
    ) {
        let Heads { n_heads, head_dim, scale, .. } = inputs.heads;
        let column = Column::of(head, head_dim);
        let rows = |data| Rows { data, stride: n_heads * head_dim };
        let (out, d_out) = (rows(upstream.out), rows(upstream.d_out));
        let (in_rows, in_columns) = (TILE * padded(head_dim), TILE * head_dim);
        let scales = [(inputs.q, scale * LOG2_E), (d_out, 1.0)];
        let transposed = [&mut *self.q_transposed, &mut *self.d_out_transposed];
        for ((x, factor), to) in scales.into_iter().zip(transposed) {
            let to = &mut to[i * in_columns..][..in_columns];
            transpose(s, factor, (column, x), tile.clone(), to);
        }
        column.pack(s, scale, inputs.q, tile.clone(), &mut self.q[i * in_rows..]);
        column.pack(s, 1.0, d_out, tile.clone(), &mut self.d_out[i * in_rows..]);
        for (r, query) in tile.clone().enumerate() {
            let lse = upstream.lse[query * n_heads + head];
            // sees no key: all its scores are -inf, and -inf - -inf would be a NaN
            self.lse[i * TILE + r] = if lse == f32::NEG_INFINITY { 0.0 } else { lse * LOG2_E };
            self.delta[i * TILE + r] = dot(s, column.row(out, query), column.row(d_out, query));
        }
        // lanes without a query are computed as well, and shall not look like numbers that are not finite
        for x in [&mut *self.lse, &mut *self.delta] {
            x[i * TILE + tile.len()..(i + 1) * TILE].fill(0.0);
        }
    }

    /// Whether the rows of a tile of so many queries, which is the `i`-th, are.
    #[inline(always)]
    fn are_finite<S: Simd>(&self, s: S, i: usize, n: usize) -> bool {
        let stride = self.q.len() / self.lse.len();
        let rows = i * TILE * stride..(i * TILE + n) * stride;
        all_finite(s, &self.q[rows.clone()]) && all_finite(s, &self.d_out[rows])
    }
}

impl Buffers<'_> {
    /// `p` and `d_s` of one tile. Whether both are finite, also where a query does not see a key.
    #[inline(always)]
    fn probabilities<S: Simd>(&mut self, s: S, i: usize, finish: Finish, head_dim: usize) -> bool {
        let stride = padded(head_dim);
        let columns = i * TILE * head_dim..(i + 1) * TILE * head_dim;
        let lanes = i * TILE..(i + 1) * TILE;
        let mut softmax = SoftmaxBackward {
            finish,
            k: Rows { data: self.k, stride },
            v: Rows { data: self.v, stride },
            q: &self.queries.q_transposed[columns.clone()],
            d_out: &self.queries.d_out_transposed[columns],
            head_dim,
            lse: &self.queries.lse[lanes.clone()],
            delta: &self.queries.delta[lanes],
            p: self.p,
            d_s: self.d_s,
            finite: true,
        };
        panels(s, finish.meeting, &mut softmax);
        softmax.finite
    }

    /// `d_v += pᵀ d_out`, `d_k += d_sᵀ (scale q)`, `d_q / scale += d_s k`
    #[inline(always)]
    fn add_gradients<S: Simd>(
        &mut self,
        s: S,
        i: usize,
        checked: Checked,
        (grads, place): (&mut Gradients, &Place),
    ) {
        let Checked { meeting, .. } = checked;
        let stride = self.k.len() / KEYS;
        let rows = |data| Rows { data, stride };
        let tile = |data| Rows { data, stride: TILE };
        let rows_of_tile = i * TILE * stride..(i + 1) * TILE * stride;
        let (p, d_s) = (tile(self.p), tile(self.d_s));
        let size = [meeting.block.keys.len(), stride];
        let d_out = rows(&self.queries.d_out[rows_of_tile.clone()]);
        let mut d_v = OfKeys { meeting, place, grad: &mut grads.d_v };
        checked.multiply(s, Left::Plain(p), d_out, size, &mut d_v);
        let q = rows(&self.queries.q[rows_of_tile.clone()]);
        let mut d_k = OfKeys { meeting, place, grad: &mut grads.d_k };
        checked.multiply(s, Left::Plain(d_s), q, size, &mut d_k);
        let mut d_q = OfQueries { meeting, grad: &mut self.d_q[rows_of_tile], stride };
        checked.multiply(s, Left::Transposed(d_s), rows(self.k), [meeting.tile.len(), stride], &mut d_q);
    }
}

impl Checked<'_> {
    /// `a · b`
    #[inline(always)]
    fn multiply<S: Simd>(self, s: S, a: Left, b: Rows, size: [usize; 2], sink: &mut impl Sink) {
        match self.finite {
            true => multiply_all(s, a, b, size, sink),
            false => multiply_visible(s, a, b, size, sink),
        }
    }
}

/// Where the gradients of a block's keys lie.
struct Place<'a> {
    keys: &'a [u32],
    /// The key of the first row.
    first_key: usize,
    columns: Range<usize>,
}

/// `grad += aᵀ b` for the keys of a block.
struct OfKeys<'a, 'o> {
    meeting: Meeting<'a>,
    place: &'a Place<'a>,
    grad: &'a mut RowsMut<'o>,
}

impl Sink for OfKeys<'_, '_> {
    #[inline(always)]
    fn depth(&self, keys: Range<usize>) -> Range<usize> {
        self.meeting.block.seeing(self.meeting.tile, keys)
    }

    #[inline(always)]
    fn meets(&self, key: usize, query: usize) -> bool {
        self.meeting.block.seen(self.meeting.tile.start + query, key)
    }

    #[inline(always)]
    fn take<S: Simd>(&mut self, s: S, j: usize, d: usize, sum: S::V) {
        let Place { keys, first_key, columns } = self.place;
        let grad = &mut self.grad.row(keys[j] as usize - first_key)[columns.clone()];
        // the last vectors of a row may be padding
        if d < grad.len() {
            store(s, s.add(load(s, grad, d), sum), grad, d);
        }
    }
}

/// `grad += a b` for the queries of a tile.
struct OfQueries<'a> {
    meeting: Meeting<'a>,
    grad: &'a mut [f32],
    stride: usize,
}

impl Sink for OfQueries<'_> {
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
        let grad = &mut self.grad[i * self.stride + d..];
        s.store(s.add(s.load(grad), sum), grad);
    }
}

#[inline(always)]
fn dot<S: Simd>(s: S, x: &[f32], y: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for d in (0..x.len()).step_by(S::LANES) {
        sum = s.mul_add(load(s, x, d), load(s, y, d), sum);
    }
    s.sum(sum)
}

/// One tile: scores to probabilities, `d_p` to `d_s`.
struct SoftmaxBackward<'a> {
    finish: Finish<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
    q: &'a [f32],
    d_out: &'a [f32],
    head_dim: usize,
    lse: &'a [f32],
    delta: &'a [f32],
    /// `p = 2^(s - lse)`
    p: &'a mut [f32],
    /// `d_s = p (d_p - delta)`
    d_s: &'a mut [f32],
    /// Whether all `d_s` so far are.
    finite: bool,
}

impl PerPanel for SoftmaxBackward<'_> {
    #[inline(always)]
    fn panel<S: Simd, const M: usize, const N: usize>(&mut self, s: S, panel: Panel) {
        let operands = (self.k, self.q, self.head_dim);
        panel_product::<S, M, N>(s, &panel, operands, Some(self.finish), self.p);
        let operands = (self.v, self.d_out, self.head_dim);
        panel_product::<S, M, N>(s, &panel, operands, None, self.d_s);
        for v in 0..N {
            let lane = panel.lane + v * S::LANES;
            let (lse, delta) = (s.load(&self.lse[lane..]), s.load(&self.delta[lane..]));
            let rows = panel.keys.start * TILE..panel.keys.end * TILE;
            // 0 times a finite number is 0
            let mut zero = s.splat(0.0);
            let p = self.p[rows.clone()].chunks_exact_mut(TILE);
            for (p, d_s) in p.zip(self.d_s[rows].chunks_exact_mut(TILE)) {
                let (p, d_s) = (&mut p[lane..], &mut d_s[lane..]);
                let probability = math::exp2(s, s.sub(s.load(p), lse));
                let centered = s.sub(s.load(d_s), delta);
                let gradient = s.mul(probability, centered);
                zero = s.mul_add(gradient, s.splat(0.0), zero);
                s.store(probability, p);
                s.store(gradient, d_s);
            }
            self.finite &= s.sum(zero) == 0.0;
        }
    }
}
