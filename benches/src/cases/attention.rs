//! Attention in packed sequences and in forests with a shared prefix; with key/value heads that query heads share, and with
//! a bias by distance.
//!
//! Operations are those of the visible pairs alone, `D` multiply-adds each: two products forward (`q kᵀ`, `p v`), five
//! backward (`q kᵀ` again, `d_o vᵀ`, `pᵀ d_o`, `d_s k`, `d_sᵀ q`), two for the gradient of the bias (`q kᵀ`, `d_o vᵀ`).

use kernels::Isa;
use kernels::attention::{self, Bias, Gradients, Heads, Inputs, Mask, Rows, RowsMut, Upstream, reference};

use super::{WIDTH, compare};
use crate::case::{Case, Kernel, Kind, Work};
use crate::data;

const N_HEADS: usize = 12;
const HEAD_DIM: usize = 64;
/// Distances with a number of their own, on each side.
const REACH: usize = 32;

/// Tokens that all rows share, and rows of so many tokens after them.
#[derive(Clone, Copy)]
struct Problem {
    shared: usize,
    rows: usize,
    len: usize,
    n_kv_heads: usize,
    biased: bool,
}

const fn plain(shared: usize, rows: usize, len: usize) -> Problem {
    Problem { shared, rows, len, n_kv_heads: N_HEADS, biased: false }
}

const PROBLEMS: [Problem; 8] = [
    plain(0, 32, 45),
    plain(20, 32, 25),
    plain(100, 32, 25),
    plain(0, 8, 128),
    plain(0, 1, 1024),
    plain(0, 1, 4096),
    Problem { n_kv_heads: 4, ..plain(0, 32, 45) },
    Problem { biased: true, ..plain(0, 32, 45) },
];

/// What is computed.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Forward,
    Backward,
    BackwardBias,
}

impl Problem {
    fn tokens(self) -> usize {
        self.shared + self.rows * self.len
    }

    /// Who sees the key of token `t` last: the end of its row, or of everything for a shared token.
    fn end(self, t: usize) -> usize {
        match t.checked_sub(self.shared) {
            None => self.tokens(),
            Some(t) => self.shared + (t / self.len + 1) * self.len,
        }
    }

    /// How far token `t` is from the beginning of its row, shared tokens counted.
    fn position(self, t: usize) -> u32 {
        t.checked_sub(self.shared).map_or(t, |t| self.shared + t % self.len) as u32
    }

    fn pairs(self) -> usize {
        (0..self.tokens()).map(|t| self.end(t) - t).sum()
    }

    fn heads(self) -> Heads {
        Heads { n_heads: N_HEADS, n_kv_heads: self.n_kv_heads, head_dim: HEAD_DIM, scale: 0.125 }
    }

    /// Columns of keys, and of values.
    fn kv_width(self) -> usize {
        self.n_kv_heads * HEAD_DIM
    }

    fn shape(self) -> String {
        let Problem { shared, rows, len, n_kv_heads, biased } = self;
        let prefix = if shared > 0 { format!("{shared}+") } else { String::new() };
        let keys = if n_kv_heads < N_HEADS { format!(" on {n_kv_heads}") } else { String::new() };
        let bias = if biased { ", bias" } else { "" };
        format!("{prefix}{rows}x{len}, {N_HEADS}{keys} heads of {HEAD_DIM}{bias}")
    }
}

pub(super) fn cases() -> Vec<Case> {
    let forms = |p: Problem| {
        let of_bias = p.biased.then_some(Form::BackwardBias);
        [Form::Forward, Form::Backward].into_iter().chain(of_bias).map(move |form| case(p, form))
    };
    PROBLEMS.into_iter().flat_map(forms).collect()
}

fn case(p: Problem, form: Form) -> Case {
    let (of_queries, of_keys) = (p.tokens() * WIDTH, p.tokens() * p.kv_width());
    let statistics = p.tokens() * N_HEADS;
    let products = |n: usize| 2 * n * p.pairs() * WIDTH;
    let (kernel, work) = match form {
        Form::Forward => {
            ("attention forward", Work::f32(products(2), of_queries + 2 * of_keys, of_queries + statistics))
        }
        Form::Backward => (
            "attention backward",
            Work::f32(products(5), 3 * of_queries + 2 * of_keys + statistics, of_queries + 2 * of_keys),
        ),
        Form::BackwardBias => (
            "attention backward bias",
            Work::f32(products(2), 3 * of_queries + 2 * of_keys + statistics, N_HEADS * (2 * REACH + 1)),
        ),
    };
    Case {
        kernel,
        kind: Kind::Attention,
        shape: p.shape(),
        dtype: "f32",
        tiers: form != Form::BackwardBias,
        work,
        make: Box::new(move || Box::new(Attention::new(p, form))),
    }
}

struct Attention {
    p: Problem,
    form: Form,
    begin: Vec<u32>,
    end: Vec<u32>,
    positions: Vec<u32>,
    table: Vec<f32>,
    /// Queries, keys and values side by side, as a fused projection leaves them.
    qkv: Vec<f32>,
    out: Vec<f32>,
    lse: Vec<f32>,
    d_out: Vec<f32>,
    /// Of queries, keys and values; or of the table.
    gradients: Vec<Vec<f32>>,
}

impl Attention {
    fn new(p: Problem, form: Form) -> Attention {
        let (tokens, table) = (p.tokens(), if p.biased { N_HEADS * (2 * REACH + 1) } else { 0 });
        let gradients = match form {
            Form::Forward => Vec::new(),
            Form::Backward => [WIDTH, p.kv_width(), p.kv_width()].map(|width| tokens * width).to_vec(),
            Form::BackwardBias => vec![table],
        };
        let mut attention = Attention {
            p,
            form: Form::Forward,
            begin: (0..tokens as u32).collect(),
            end: (0..tokens).map(|t| p.end(t) as u32).collect(),
            positions: (0..tokens).map(|t| p.position(t)).collect(),
            table: data::normals(5, table, 1.0),
            qkv: data::normals(3, tokens * (WIDTH + 2 * p.kv_width()), 1.0),
            out: vec![f32::NAN; tokens * WIDTH],
            lse: vec![f32::NAN; tokens * N_HEADS],
            d_out: data::normals(4, tokens * WIDTH, 1.0),
            gradients: gradients.into_iter().map(|n| vec![f32::NAN; n]).collect(),
        };
        // backward starts from what forward leaves
        attention.run(Isa::best());
        Attention { form, ..attention }
    }

    /// Where queries, keys and values begin in a row of `qkv`, and how far its rows are apart.
    fn columns(&self) -> ([usize; 3], usize) {
        let kv_width = self.p.kv_width();
        ([0, WIDTH, WIDTH + kv_width], WIDTH + 2 * kv_width)
    }

    fn inputs(&self) -> Inputs<'_> {
        let (first, stride) = self.columns();
        let [q, k, v] = first.map(|first| Rows { data: &self.qkv[first..], stride });
        let mask = Mask { begin: &self.begin, end: &self.end };
        let bias = self.p.biased.then_some(Bias {
            query_positions: &self.positions,
            key_positions: &self.positions,
            table: &self.table,
        });
        Inputs { heads: self.p.heads(), q, k, v, mask, bias, n_queries: self.begin.len() }
    }
}

impl Kernel for Attention {
    fn run(&mut self, isa: Isa) {
        // what is written is taken out, so that the rest can be borrowed as a whole
        let (mut out, mut lse) = (std::mem::take(&mut self.out), std::mem::take(&mut self.lse));
        let mut gradients = std::mem::take(&mut self.gradients);
        let upstream = Upstream { out: &out, lse: &lse, d_out: &self.d_out };
        match (self.form, &mut gradients[..]) {
            (Form::Backward, [d_q, d_k, d_v]) => {
                let d_q = RowsMut::of(d_q, WIDTH);
                let [d_k, d_v] = [d_k, d_v].map(|d| RowsMut::of(d, self.p.kv_width()));
                attention::backward(isa, self.inputs(), upstream, Gradients { d_q, d_k, d_v });
            }
            (Form::BackwardBias, [d_table]) => attention::backward_bias(self.inputs(), upstream, d_table),
            _ => attention::forward(isa, self.inputs(), &mut out, &mut lse),
        }
        (self.out, self.lse, self.gradients) = (out, lse, gradients);
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        match self.form {
            Form::Forward => vec![&mut self.out, &mut self.lse],
            _ => self.gradients.iter_mut().map(Vec::as_mut_slice).collect(),
        }
    }

    /// Of one key/value head and the query heads that share it.
    fn check(&self) -> Result<(), String> {
        let (heads, kv_head) = (self.p.heads(), self.p.n_kv_heads / 2);
        let group = N_HEADS / heads.n_kv_heads;
        let of_group = |x: &[f32], width: usize, n: usize| columns(x, width, kv_head * group * n, group * n);
        let of_head = |x: &[f32]| columns(x, self.p.kv_width(), kv_head * HEAD_DIM, HEAD_DIM);
        let (first, stride) = self.columns();
        let part = |from: usize, n: usize| {
            let at = first[from] + kv_head * n * HEAD_DIM;
            data::wide(&columns(&self.qkv, stride, at, n * HEAD_DIM))
        };
        let (q, k, v) = (part(0, group), part(1, 1), part(2, 1));
        let of_table = |x: &[f32]| of_group(x, x.len(), 2 * REACH + 1);
        let table = if self.p.biased { of_table(&self.table) } else { Vec::new() };
        let bias = self.inputs().bias.map(|bias| Bias { table: &table, ..bias });
        let heads = Heads { n_heads: group, n_kv_heads: 1, ..heads };
        let mask = Mask { begin: &self.begin, end: &self.end };
        let inputs = reference::Inputs { heads, q: &q, k: &k, v: &v, mask, bias };
        let d_out = data::wide(&of_group(&self.d_out, WIDTH, HEAD_DIM));
        match (self.form, &self.gradients[..]) {
            (Form::Backward, [d_q, d_k, d_v]) => {
                let expected = reference::backward(&inputs, &d_out);
                compare("d_q", &of_group(d_q, WIDTH, HEAD_DIM), &expected.0, 1e-4)?;
                compare("d_k", &of_head(d_k), &expected.1, 1e-4)?;
                compare("d_v", &of_head(d_v), &expected.2, 1e-4)
            }
            (Form::BackwardBias, [d_table]) => {
                compare("d_table", &of_table(d_table), &reference::backward_bias(&inputs, &d_out), 1e-4)
            }
            _ => {
                let (out, lse) = reference::forward(&inputs);
                compare("out", &of_group(&self.out, WIDTH, HEAD_DIM), &out, 2e-5)?;
                compare("lse", &of_group(&self.lse, N_HEADS, 1), &lse, 2e-5)
            }
        }
    }
}

/// `n` columns from `first` on of a matrix of `width`.
fn columns(x: &[f32], width: usize, first: usize, n: usize) -> Vec<f32> {
    x.chunks_exact(width).flat_map(|row| &row[first..first + n]).copied().collect()
}
