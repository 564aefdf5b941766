//! The specification: all pairs, one head at a time.

use super::{Bias, Heads, Mask};
use crate::real::Real;

/// The arguments of both directions; rows lie without gaps.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a, R> {
    /// Heads and scale.
    pub heads: Heads,
    /// `[n_queries, H*D]`
    pub q: &'a [R],
    /// `[n_keys, n_kv_heads*D]`
    pub k: &'a [R],
    /// `[n_keys, n_kv_heads*D]`
    pub v: &'a [R],
    /// Who sees whom.
    pub mask: Mask<'a>,
    /// What is added to the scores.
    pub bias: Option<Bias<'a>>,
}

impl<R: Real> Inputs<'_, R> {
    fn n_queries(&self) -> usize {
        self.q.len() / (self.heads.n_heads * self.heads.head_dim)
    }

    /// Where the head of query `i` begins in `q`, and that of key `j` in `k` and `v`.
    fn places(&self, head: usize, i: usize, j: usize) -> (usize, usize) {
        let Heads { n_heads, n_kv_heads, head_dim, .. } = self.heads;
        ((i * n_heads + head) * head_dim, (j * n_kv_heads + head / (n_heads / n_kv_heads)) * head_dim)
    }

    /// The keys that query `i` sees.
    fn visible(&self, i: usize) -> impl Iterator<Item = usize> {
        let Mask { begin, end } = self.mask;
        (0..begin.len()).filter(move |&j| begin[j] as usize <= i && i < end[j] as usize)
    }

    fn score(&self, head: usize, i: usize, j: usize) -> R {
        let (at_q, at_k) = self.places(head, i, j);
        let mut dot = R::from_f64(0.0);
        for d in 0..self.heads.head_dim {
            dot += self.q[at_q + d] * self.k[at_k + d];
        }
        R::from_f64(f64::from(self.heads.scale)) * dot + R::from_f64(f64::from(self.bias(head, i, j)))
    }

    fn bias(&self, head: usize, i: usize, j: usize) -> f32 {
        let Some(bias) = self.bias else { return 0.0 };
        let (table, reach) = bias.of_head(head, self.heads.n_heads);
        let distance = i64::from(bias.query_positions[i]) - i64::from(bias.key_positions[j]);
        table[(distance.clamp(-reach, reach) + reach) as usize]
    }
}

/// `(out, lse)`
pub fn forward<R: Real>(x: &Inputs<R>) -> (Vec<R>, Vec<R>) {
    let mut out = vec![R::from_f64(0.0); x.q.len()];
    let mut lse = Vec::new();
    for i in 0..x.n_queries() {
        for head in 0..x.heads.n_heads {
            let scores: Vec<R> = x.visible(i).map(|j| x.score(head, i, j)).collect();
            let log_sum = crate::cross_entropy::reference::log_sum_exp(&scores);
            for (j, score) in x.visible(i).zip(scores) {
                let (at_q, at_k) = x.places(head, i, j);
                let p = (score - log_sum).exp();
                for d in 0..x.heads.head_dim {
                    out[at_q + d] += p * x.v[at_k + d];
                }
            }
            lse.push(log_sum);
        }
    }
    (out, lse)
}

/// `(d_q, d_k, d_v)` from the upstream gradient `d_out`.
pub fn backward<R: Real>(x: &Inputs<R>, d_out: &[R]) -> (Vec<R>, Vec<R>, Vec<R>) {
    let zero = R::from_f64(0.0);
    let scale = R::from_f64(f64::from(x.heads.scale));
    let (mut d_q, mut d_k, mut d_v) = (vec![zero; x.q.len()], vec![zero; x.k.len()], vec![zero; x.v.len()]);
    let (_, lse) = forward(x);
    for head in 0..x.heads.n_heads {
        for i in 0..x.n_queries() {
            let (mut p, mut d_p, mut mean_d_p) = (Vec::new(), Vec::new(), zero);
            for j in x.visible(i) {
                let (at_q, at_k) = x.places(head, i, j);
                let p_ij = (x.score(head, i, j) - lse[i * x.heads.n_heads + head]).exp();
                let mut d_p_ij = zero;
                for d in 0..x.heads.head_dim {
                    // in the forward pass this was out[at_q + d] += p * v[at_k + d]
                    d_v[at_k + d] += p_ij * d_out[at_q + d];
                    d_p_ij += d_out[at_q + d] * x.v[at_k + d];
                }
                mean_d_p += p_ij * d_p_ij;
                p.push(p_ij);
                d_p.push(d_p_ij);
            }
            for (n, j) in x.visible(i).enumerate() {
                let (at_q, at_k) = x.places(head, i, j);
                // in the forward pass this was p = exp(score - lse), and lse depends on every score
                let d_score = p[n] * (d_p[n] - mean_d_p);
                for d in 0..x.heads.head_dim {
                    // in the forward pass this was score = scale * Σ_d q[at_q + d] * k[at_k + d]
                    d_q[at_q + d] += scale * d_score * x.k[at_k + d];
                    d_k[at_k + d] += scale * d_score * x.q[at_q + d];
                }
            }
        }
    }
    (d_q, d_k, d_v)
}

/// The gradient of the bias' table: in the forward pass each number was added to the score of every pair at its distance.
pub fn backward_bias<R: Real>(x: &Inputs<R>, d_out: &[R]) -> Vec<R> {
    let bias = x.bias.expect("a bias");
    let (out, lse) = forward(x);
    let mut d_table = vec![R::from_f64(0.0); bias.table.len()];
    for head in 0..x.heads.n_heads {
        let (table, reach) = bias.of_head(head, x.heads.n_heads);
        for i in 0..x.n_queries() {
            for j in x.visible(i) {
                let (at_q, at_k) = x.places(head, i, j);
                let p = (x.score(head, i, j) - lse[i * x.heads.n_heads + head]).exp();
                let mut d_score = R::from_f64(0.0);
                for d in 0..x.heads.head_dim {
                    d_score += p * d_out[at_q + d] * (x.v[at_k + d] - out[at_q + d]);
                }
                let distance = i64::from(bias.query_positions[i]) - i64::from(bias.key_positions[j]);
                d_table[head * table.len() + (distance.clamp(-reach, reach) + reach) as usize] += d_score;
            }
        }
    }
    d_table
}
