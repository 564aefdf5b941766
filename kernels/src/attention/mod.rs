//! Attention with an interval mask, forward and backward, without ever keeping a `[T, T]` matrix.
//!
//! ```text
//! forward   s_ij = scale q_i·k_j  where begin[j] <= i < end[j], else -inf
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
//! and rescales what it has when the maximum grows; the backward pass makes each tile of `p` again from `lse`. A block
//! of keys knows which queries see any of it and which see all of it, so tiles that nobody sees are not computed and
//! tiles that everybody sees need no mask.
//!
//! Sources: Dao 2023, "FlashAttention-2" (arXiv 2307.08691); Wang et al. 2024, "FlashMask" (arXiv 2410.01359) for the
//! interval mask; Ainslie et al. 2023, "GQA" (arXiv 2305.13245) for shared key/value heads.

mod backward;
mod forward;
mod pack;
mod product;
pub mod reference;
mod visible;

pub use backward::backward;
pub use forward::forward;

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

/// Rows of `heads * head_dim` numbers that lie `stride` apart: a matrix, or a column range of a wider one.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Starts at the first number of row 0.
    pub data: &'a [f32],
    /// Distance between the starts of two rows.
    pub stride: usize,
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
    /// Number of query rows.
    pub n_queries: usize,
}

/// What the forward pass left and what comes from above.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// Output of [`forward()`], `[T, H*D]`.
    pub out: &'a [f32],
    /// Log-sum-exp of [`forward()`], `[H, T]`.
    pub lse: &'a [f32],
    /// Gradient of the output, `[T, H*D]`.
    pub d_out: &'a [f32],
}

/// Where the gradients go.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// `[n_queries, n_heads * head_dim]`
    pub d_q: &'a mut [f32],
    /// `[n_keys, n_kv_heads * head_dim]`
    pub d_k: &'a mut [f32],
    /// `[n_keys, n_kv_heads * head_dim]`
    pub d_v: &'a mut [f32],
}

impl<'a> Rows<'a> {
    /// The `width` numbers of row `i` that start at column `column`.
    fn part(self, i: usize, column: usize, width: usize) -> &'a [f32] {
        &self.data[i * self.stride + column..][..width]
    }

    /// Panics unless there are `n` rows of `width` numbers.
    fn check(self, name: &str, n: usize, width: usize) {
        let Rows { data, stride } = self;
        let enough = n == 0 || (stride >= width && data.len() >= (n - 1) * stride + width);
        assert!(enough, "{name}: {} numbers, stride {stride}, are no {n} rows of {width}", data.len());
    }
}

impl Heads {
    /// Query heads that share one key/value head.
    fn group(self) -> usize {
        self.n_heads / self.n_kv_heads
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
    }

    /// Whether the work is worth handing to threads. Does not change the result.
    fn is_large(&self) -> bool {
        self.heads.n_heads * self.heads.head_dim * self.n_queries * self.n_keys() > 1 << 18
    }
}
