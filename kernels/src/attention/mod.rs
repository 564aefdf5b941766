//! Attention with an interval mask, forward and backward, without ever keeping a `[T, T]` matrix.
//!
//! ```text
//! forward   s_ij = scale q_i·k_j + bias_ij  where begin[j] <= i < end[j], else -inf
//!           lse_i = log Σ_j e^(s_ij),   p_ij = e^(s_ij - lse_i),   o_i = Σ_j p_ij v_j
//! backward  d_v_j = Σ_i p_ij d_o_i
//!           d_p_ij = d_o_i·v_j
//!           d_s_ij = p_ij (d_p_ij - D_i),   D_i = Σ_j p_ij d_p_ij = d_o_i·o_i
//!           d_q_i = scale Σ_j d_s_ij k_j,   d_k_j = scale Σ_i d_s_ij q_i
//! ```
//!
//! Derivation of `d_s`: a softmax has `∂p_ij/∂s_il = p_ij (δ_jl - p_il)`; summing `d_p_ij` over it gives
//! `p_il (d_p_il - Σ_j p_ij d_p_ij)`, and the sum is `d_o_i·Σ_j p_ij v_j = d_o_i·o_i`, which needs no row of `p`.
//!
//! The scores exist one tile of queries × keys at a time. The forward pass keeps a running maximum and sum per query
//! and rescales what it has when the maximum grows; the backward pass makes each tile of `p` again from `lse`. A tile
//! meets only the keys that one of its queries sees, and knows which of them each query sees, so the work follows the
//! visible pairs; where everybody sees everybody there is no mask. Exponentials are powers of two (`log2(e)` is part of
//! the scale), which are cheaper.
//!
//! A NaN or an infinity in a row of `q`, `k`, `v` or `d_out` reaches those that see it and nobody else. Within a tile hidden
//! pairs are products with zero, which leaves no trace of a finite number only; so each tile is looked over, and one that
//! holds such a number goes through its visible pairs one by one.
//!
//! Sources: Dao 2023, "FlashAttention-2" (arXiv 2307.08691); Wang et al. 2024, "FlashMask" (arXiv 2410.01359) for the
//! interval mask; Ainslie et al. 2023, "GQA" (arXiv 2305.13245) for shared key/value heads.

// Loops that run up to a constant are unrolled, and what they index stays in registers.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

mod backward;
mod bias;
mod bias_gradient;
#[cfg(feature = "cuda")]
pub mod cuda;
mod forward;
mod pack;
mod product;
pub mod reference;
mod rows;
mod scores;
mod scratch;
mod visible;

pub use backward::backward;
pub use bias::Bias;
pub use bias_gradient::backward_bias;
pub use forward::forward;
pub use rows::{Rows, RowsMut};

/// Heads and scale of an attention layer.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads (`H`).
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads` (grouped-query attention).
    pub n_kv_heads: usize,
    /// Width of one head (`D`).
    pub head_dim: usize,
    /// What the scores are multiplied by, usually `1/sqrt(head_dim)`.
    pub scale: f32,
}

/// The mask: key `j` is seen by exactly the queries in `[begin[j], end[j])`.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// First query that sees the key, for each key.
    pub begin: &'a [u32],
    /// One past the last query that sees the key, for each key.
    pub end: &'a [u32],
}

/// The arguments forward and backward share.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Heads and scale.
    pub heads: Heads,
    /// `n_queries` rows of `n_heads * head_dim`.
    pub q: Rows<'a>,
    /// One row of `n_kv_heads * head_dim` per key.
    pub k: Rows<'a>,
    /// One row of `n_kv_heads * head_dim` per key.
    pub v: Rows<'a>,
    /// Who sees whom; its length is the number of keys.
    pub mask: Mask<'a>,
    /// What is added to the scores, if anything. Its gradient is [`backward_bias`].
    pub bias: Option<Bias<'a>>,
    /// Number of query rows.
    pub n_queries: usize,
}

/// What the forward pass left and what comes from above.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// Output of [`forward()`], `[T, H*D]`.
    pub out: &'a [f32],
    /// Log-sum-exp of [`forward()`], `[T, H]`.
    pub lse: &'a [f32],
    /// Gradient of the output, `[T, H*D]`.
    pub d_out: &'a [f32],
}

/// Where the gradients go: rows of their own, or columns of one matrix.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// `n_queries` rows of `n_heads * head_dim`.
    pub d_q: RowsMut<'a>,
    /// One row of `n_kv_heads * head_dim` per key.
    pub d_k: RowsMut<'a>,
    /// One row of `n_kv_heads * head_dim` per key.
    pub d_v: RowsMut<'a>,
}

impl Heads {
    /// Query heads that share one key/value head.
    fn group(self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Query heads of a key/value head.
    fn sharing(self, kv_head: usize) -> Range<usize> {
        kv_head * self.group()..(kv_head + 1) * self.group()
    }

    /// The key/value heads in steps of `n`.
    fn in_steps(self, n: usize) -> impl Iterator<Item = Range<usize>> + Clone {
        (0..self.n_kv_heads).step_by(n).map(move |first| first..(first + n).min(self.n_kv_heads))
    }
}

impl Inputs<'_> {
    fn n_keys(&self) -> usize {
        self.mask.begin.len()
    }

    /// Panics when the sizes do not fit together.
    fn check(&self) {
        let Heads { n_heads, n_kv_heads, head_dim, .. } = self.heads;
        assert!(
            n_heads * n_kv_heads * head_dim > 0 && n_heads.is_multiple_of(n_kv_heads),
            "{:?}",
            self.heads
        );
        assert_eq!(self.mask.begin.len(), self.mask.end.len(), "begin and end of every key");
        self.q.check("q", self.n_queries, n_heads * head_dim);
        self.k.check("k", self.n_keys(), n_kv_heads * head_dim);
        self.v.check("v", self.n_keys(), n_kv_heads * head_dim);
        if let Some(bias) = &self.bias {
            bias.check(n_heads, self.n_queries, self.n_keys());
        }
    }

    /// Whether the work is worth handing to threads. Does not change the result.
    fn is_large(&self) -> bool {
        self.heads.n_heads * self.heads.head_dim * self.n_queries * self.n_keys() > 1 << 18
    }

    /// How many key/value heads are one task, if there are `n_pieces` of the batch: enough tasks to even out threads
    /// that others slow down, but as few as possible, because every task looks at the mask.
    fn kv_heads_per_task(&self, n_pieces: usize) -> usize {
        let n_tasks = 16 * rayon::current_num_threads();
        self.heads.n_kv_heads.div_ceil(n_tasks.div_ceil(n_pieces.max(1)))
    }
}
