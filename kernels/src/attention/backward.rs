//! The backward pass: each tile of probabilities is made again from the kept log-sum-exp.

use rayon::prelude::*;

use super::{
    Gradients, Inputs, Rows, Upstream,
    forward::hide,
    pack::{Column, PackTransposed, padded},
    product::{Left, Product},
    visible::{KEYS, KeyBlock, QUERIES, Tile, key_blocks},
};
use crate::{
    Isa,
    simd::{Simd, SimdOp, math},
    slices::load,
};

/// The gradients of [`forward`](super::forward()) with respect to `q`, `k` and `v`.
///
/// A query that saw no key has a zero gradient and gives none. Panics when the sizes do not fit together.
pub fn backward(isa: Isa, inputs: Inputs, upstream: Upstream, grads: Gradients) {
    inputs.check();
    let (t, n_keys) = (inputs.n_queries, inputs.n_keys());
    let (n_heads, head_dim) = (inputs.heads.n_heads, inputs.heads.head_dim);
    let (q_width, kv_width) = (n_heads * head_dim, inputs.heads.n_kv_heads * head_dim);
    assert_eq!((upstream.out.len(), upstream.d_out.len()), (t * q_width, t * q_width), "out and d_out");
    assert_eq!((upstream.lse.len(), grads.d_q.len()), (n_heads * t, t * q_width), "lse and d_q");
    assert_eq!((grads.d_k.len(), grads.d_v.len()), (n_keys * kv_width, n_keys * kv_width), "d_k and d_v");

    let blocks = key_blocks(inputs.mask, t);
    let work = |head: usize| {
        let mut head = Head::new(isa, &inputs, &upstream, head);
        blocks.iter().for_each(|block| head.visit(block));
        head.grads
    };
    // heads lie side by side in a row of a gradient, so a task cannot write there: it hands back its columns
    let done: Vec<HeadGradients> = match inputs.is_large() {
        true => (0..n_heads).into_par_iter().map(work).collect(),
        false => (0..n_heads).map(work).collect(),
    };
    let scale = inputs.heads.scale;
    let large = inputs.is_large();
    // in the forward pass the scores were (scale * q) · k; the keys met scale * q, so only d_q still needs the scale
    gather(large, grads.d_q, head_dim, q_width, |head| (scale, vec![&done[head].d_q[..]]));
    let group = |kv: usize| &done[kv * inputs.heads.group()..][..inputs.heads.group()];
    gather(large, grads.d_k, head_dim, kv_width, |kv| (1.0, group(kv).iter().map(|g| &g.d_k[..]).collect()));
    gather(large, grads.d_v, head_dim, kv_width, |kv| (1.0, group(kv).iter().map(|g| &g.d_v[..]).collect()));
}

/// Fills the rows of `out`, each head the factor times the sum of its parts (padded rows), in their order.
fn gather<'a, F>(large: bool, out: &mut [f32], head_dim: usize, width: usize, parts_of: F)
where
    F: Fn(usize) -> (f32, Vec<&'a [f32]>),
{
    let heads: Vec<(f32, Vec<&[f32]>)> = (0..width / head_dim).map(parts_of).collect();
    let fill = |(i, out): (usize, &mut [f32])| {
        for (out, (factor, parts)) in out.chunks_exact_mut(head_dim).zip(&heads) {
            let row = |part: &&'a [f32]| &part[i * padded(head_dim)..][..head_dim];
            out.copy_from_slice(row(&parts[0]));
            for part in &parts[1..] {
                out.iter_mut().zip(row(part)).for_each(|(out, x)| *out += x);
            }
            out.iter_mut().for_each(|x| *x *= factor);
        }
    };
    match large {
        true => out.par_chunks_exact_mut(width).with_min_len(32).enumerate().for_each(fill),
        false => out.chunks_exact_mut(width).enumerate().for_each(fill),
    }
}

/// What one query head gives, in padded rows: `d_q / scale`, and its share of `d_k` and `d_v`.
struct HeadGradients {
    d_q: Vec<f32>,
    d_k: Vec<f32>,
    d_v: Vec<f32>,
}

/// One query head while it meets one block of keys after the other.
struct Head<'a> {
    isa: Isa,
    inputs: &'a Inputs<'a>,
    /// Columns of the key/value head.
    kv: Column,
    /// The queries times scale and the upstream gradient, in padded rows.
    q: Vec<f32>,
    d_out: Vec<f32>,
    lse: &'a [f32],
    /// `D_i = d_out_i · out_i`
    delta: Vec<f32>,
    grads: HeadGradients,
    /// The packed block: keys in padded rows, keys and values transposed.
    k: Vec<f32>,
    k_transposed: Vec<f32>,
    v_transposed: Vec<f32>,
    /// One tile each: scores, then probabilities; and the gradients of those, then of the scores.
    p: Vec<f32>,
    d_s: Vec<f32>,
}

impl<'a> Head<'a> {
    fn new(isa: Isa, inputs: &'a Inputs, upstream: &Upstream<'a>, head: usize) -> Self {
        let heads = inputs.heads;
        let (t, n_keys, head_dim) = (inputs.n_queries, inputs.n_keys(), heads.head_dim);
        let columns = Column::of(head, head_dim);
        let zeros = |rows: usize| vec![0.0; rows * padded(head_dim)];
        let (mut q, mut d_out, mut delta) = (zeros(t), zeros(t), vec![0.0; t]);
        columns.pack(inputs.q, 0..t, heads.scale, &mut q);
        let rows = |data: &'a [f32]| Rows { data, stride: heads.n_heads * head_dim };
        columns.pack(rows(upstream.d_out), 0..t, 1.0, &mut d_out);
        isa.run(Delta { columns, out: rows(upstream.out), d_out: rows(upstream.d_out), delta: &mut delta });
        Head {
            isa,
            inputs,
            kv: Column::of(head / heads.group(), head_dim),
            q,
            d_out,
            lse: &upstream.lse[head * t..][..t],
            delta,
            grads: HeadGradients { d_q: zeros(t), d_k: zeros(n_keys), d_v: zeros(n_keys) },
            k: zeros(KEYS),
            k_transposed: vec![0.0; head_dim * KEYS],
            v_transposed: vec![0.0; head_dim * KEYS],
            p: vec![0.0; QUERIES * KEYS],
            d_s: vec![0.0; QUERIES * KEYS],
        }
    }

    /// Adds what the pairs with the keys of `block` contribute.
    fn visit(&mut self, block: &KeyBlock) {
        if block.tiles(0..self.inputs.n_queries).next().is_none() {
            return;
        }
        self.kv.pack(self.inputs.k, block.keys.clone(), 1.0, &mut self.k);
        for (x, out) in [(self.inputs.k, &mut self.k_transposed), (self.inputs.v, &mut self.v_transposed)] {
            self.isa.run(PackTransposed { column: self.kv, x, rows: block.keys.clone(), out });
        }
        for tile in block.tiles(0..self.inputs.n_queries) {
            self.probabilities(block, &tile);
            self.add_gradients(block, &tile);
        }
    }

    /// `p` and `d_s` of one tile.
    fn probabilities(&mut self, block: &KeyBlock, tile: &Tile) {
        let (stride, n) = (padded(self.kv.head_dim), tile.queries.len());
        let size = [n, self.kv.head_dim, KEYS];
        let from_first = tile.queries.start * stride;
        let product = |a: &[f32], b: &[f32], c: &mut [f32]| {
            let (a, b) = (Left::Plain(Rows { data: a, stride }), Rows { data: b, stride: KEYS });
            self.isa.run(Product { a, b, c, c_stride: KEYS, size, add: false });
        };
        product(&self.q[from_first..], &self.k_transposed, &mut self.p);
        product(&self.d_out[from_first..], &self.v_transposed, &mut self.d_s);
        self.isa.run(SoftmaxBackward {
            p: &mut self.p[..n * KEYS],
            d_s: &mut self.d_s[..n * KEYS],
            mask: tile.masked.then_some((block, tile.queries.start)),
            lse: &self.lse[tile.queries.clone()],
            delta: &self.delta[tile.queries.clone()],
        });
    }

    /// `d_v += pᵀ d_out`, `d_k += d_sᵀ (scale q)`, `d_q / scale += d_s k`
    fn add_gradients(&mut self, block: &KeyBlock, tile: &Tile) {
        let (stride, n, n_keys) = (padded(self.kv.head_dim), tile.queries.len(), block.keys.len());
        let (first_query, first_key) = (tile.queries.start * stride, block.keys.start * stride);
        let product = |a: Left, b: &[f32], c: &mut [f32], m: usize, k: usize| {
            let b = Rows { data: b, stride };
            self.isa.run(Product { a, b, c, c_stride: stride, size: [m, k, stride], add: true });
        };
        let tile_of = |data| Rows { data, stride: KEYS };
        let (p, d_s, grads) = (tile_of(&self.p), tile_of(&self.d_s), &mut self.grads);
        product(Left::Transposed(p), &self.d_out[first_query..], &mut grads.d_v[first_key..], n_keys, n);
        product(Left::Transposed(d_s), &self.q[first_query..], &mut grads.d_k[first_key..], n_keys, n);
        product(Left::Plain(d_s), &self.k, &mut grads.d_q[first_query..], n, n_keys);
    }
}

/// `delta_i = d_out_i · out_i` for the columns of one head.
struct Delta<'a> {
    columns: Column,
    out: Rows<'a>,
    d_out: Rows<'a>,
    delta: &'a mut [f32],
}

impl SimdOp for Delta<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (i, delta) in self.delta.iter_mut().enumerate() {
            let (out, d_out) = (self.columns.row(self.out, i), self.columns.row(self.d_out, i));
            let mut sum = s.splat(0.0);
            for d in (0..out.len()).step_by(S::LANES) {
                sum = s.mul_add(load(s, out, d), load(s, d_out, d), sum);
            }
            *delta = s.sum(sum);
        }
    }
}

/// One tile: scores to probabilities, `d_p` to `d_s`.
struct SoftmaxBackward<'a> {
    /// Rows of [`KEYS`], one per query: scores in, `p = e^(s - lse)` out.
    p: &'a mut [f32],
    /// The same: `d_p` in, `d_s = p (d_p - delta)` out.
    d_s: &'a mut [f32],
    /// The mask and the number of the first query, where some pair may be invisible.
    mask: Option<(&'a KeyBlock, usize)>,
    lse: &'a [f32],
    delta: &'a [f32],
}

impl SimdOp for SoftmaxBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let rows = self.p.chunks_exact_mut(KEYS).zip(self.d_s.chunks_exact_mut(KEYS));
        for (r, ((p, d_s), (&lse, &delta))) in rows.zip(self.lse.iter().zip(self.delta)).enumerate() {
            if lse == f32::NEG_INFINITY {
                p.fill(0.0); // sees no key: e^(-inf - -inf) would be a NaN
                d_s.fill(0.0);
                continue;
            }
            if let Some((block, first)) = self.mask {
                hide(s, block, first + r, p);
            }
            for j in (0..KEYS).step_by(S::LANES) {
                let probability = math::exp(s, s.sub(s.load(&p[j..]), s.splat(lse)));
                let centered = s.sub(s.load(&d_s[j..]), s.splat(delta));
                s.store(probability, &mut p[j..]);
                s.store(s.mul(probability, centered), &mut d_s[j..]);
            }
        }
    }
}
