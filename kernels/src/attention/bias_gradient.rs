//! The gradient of the relative bias, for the one kind of run that trains it: full fine-tuning of a T5.
//!
//! ```text
//! d_table[h, clamp(query_i - key_j)] += d_s_ij = p_ij (d_o_i·v_j - d_o_i·o_i)
//! ```
//!
//! A pass of its own over the visible pairs, head by head, written plainly: what the tiles of the backward pass share with
//! it is not worth a special case in them.

use rayon::prelude::*;

use super::{Bias, Inputs, Upstream};

/// `d_table` of [`Bias::table`], `[H, 2 * reach + 1]`. In a fixed order: each head is summed by one thread.
///
/// Panics when the sizes do not fit together or there is no bias.
pub fn backward_bias(inputs: Inputs, upstream: Upstream, d_table: &mut [f32]) {
    inputs.check();
    let bias = inputs.bias.expect("the gradient of a bias needs one");
    assert_eq!(d_table.len(), bias.table.len(), "a gradient for each number of the table");
    let width = d_table.len() / inputs.heads.n_heads;
    d_table
        .par_chunks_mut(width)
        .enumerate()
        .for_each(|(head, d)| of_head(inputs, upstream, (head, bias), d));
}

fn of_head(inputs: Inputs, upstream: Upstream, (head, bias): (usize, Bias), d: &mut [f32]) {
    let heads = inputs.heads;
    let (n_heads, head_dim) = (heads.n_heads, heads.head_dim);
    let (table, reach) = bias.of_head(head, n_heads);
    let (at_q, at_kv) = (head * head_dim, head / heads.group() * head_dim);
    let of_query = |i: usize| {
        let [out, d_out] =
            [upstream.out, upstream.d_out].map(|x| &x[i * n_heads * head_dim + at_q..][..head_dim]);
        (d_out, dot(d_out, out), upstream.lse[i * n_heads + head])
    };
    let queries: Vec<_> = (0..inputs.n_queries).map(of_query).collect();
    // in f64: a number of the table collects from very many pairs
    let mut sums = vec![0.0f64; d.len()];
    for (j, (&begin, &end)) in inputs.mask.begin.iter().zip(inputs.mask.end).enumerate() {
        let (k, v) = (inputs.k.part(j, at_kv, head_dim), inputs.v.part(j, at_kv, head_dim));
        for i in begin as usize..(end as usize).min(inputs.n_queries) {
            let (d_out, mean, lse) = queries[i];
            let distance = i64::from(bias.query_positions[i]) - i64::from(bias.key_positions[j]);
            let at = (distance.clamp(-reach, reach) + reach) as usize;
            let score = heads.scale * dot(inputs.q.part(i, at_q, head_dim), k) + table[at];
            sums[at] += f64::from((score - lse).exp() * (dot(d_out, v) - mean));
        }
    }
    d.iter_mut().zip(sums).for_each(|(d, sum)| *d = sum as f32);
}

/// Eight sums side by side, which the compiler keeps in vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0f32; 8];
    for (a, b) in a.0.iter().zip(b.0) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f32>() + a.1.iter().zip(b.1).map(|(a, b)| a * b).sum::<f32>()
}
