//! Attention in packed sequences and in forests with a shared prefix.
//!
//! Operations are those of the visible pairs alone, `D` multiply-adds each: two products forward (`q kᵀ`, `p v`), five
//! backward (`q kᵀ` again, `d_o vᵀ`, `pᵀ d_o`, `d_s k`, `d_sᵀ q`).

use kernels::Isa;
use kernels::attention::{self, Gradients, Heads, Inputs, Mask, Rows, RowsMut, Upstream, reference};

use super::{WIDTH, compare};
use crate::case::{Case, Kernel, Kind, Work};
use crate::data;

const HEADS: Heads = Heads { n_heads: 12, n_kv_heads: 12, head_dim: 64, scale: 0.125 };
/// The head that is checked.
const CHECKED: usize = 7;

/// Tokens that all rows share, and rows of so many tokens after them.
#[derive(Clone, Copy)]
struct Problem {
    shared: usize,
    rows: usize,
    len: usize,
}

const PROBLEMS: [Problem; 6] = [
    Problem { shared: 0, rows: 32, len: 45 },
    Problem { shared: 20, rows: 32, len: 25 },
    Problem { shared: 100, rows: 32, len: 25 },
    Problem { shared: 0, rows: 8, len: 128 },
    Problem { shared: 0, rows: 1, len: 1024 },
    Problem { shared: 0, rows: 1, len: 4096 },
];

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

    fn pairs(self) -> usize {
        (0..self.tokens()).map(|t| self.end(t) - t).sum()
    }

    fn shape(self) -> String {
        let Problem { shared, rows, len } = self;
        let prefix = if shared > 0 { format!("{shared}+") } else { String::new() };
        format!("{prefix}{rows}x{len}, 12 heads of 64")
    }
}

pub(super) fn cases() -> Vec<Case> {
    PROBLEMS.into_iter().flat_map(|p| [case(p, false), case(p, true)]).collect()
}

fn case(p: Problem, backward: bool) -> Case {
    let (numbers, products) = (p.tokens() * WIDTH, if backward { 5 } else { 2 });
    let flops = 2 * products * p.pairs() * WIDTH;
    let statistics = p.tokens() * HEADS.n_heads;
    Case {
        kernel: if backward { "attention backward" } else { "attention forward" },
        kind: Kind::Attention,
        shape: p.shape(),
        dtype: "f32",
        tiers: true,
        work: match backward {
            false => Work::f32(flops, 3 * numbers, numbers + statistics),
            true => Work::f32(flops, 5 * numbers + statistics, 3 * numbers),
        },
        make: Box::new(move || Box::new(Attention::new(p, backward))),
    }
}

struct Attention {
    backward: bool,
    begin: Vec<u32>,
    end: Vec<u32>,
    /// `[T, 3 * WIDTH]`, as a fused projection leaves it.
    qkv: Vec<f32>,
    out: Vec<f32>,
    lse: Vec<f32>,
    d_out: Vec<f32>,
    gradients: [Vec<f32>; 3],
}

impl Attention {
    fn new(p: Problem, backward: bool) -> Attention {
        let n = p.tokens() * WIDTH;
        let gradients = [(); 3].map(|()| vec![f32::NAN; if backward { n } else { 0 }]);
        let mut attention = Attention {
            backward: false,
            begin: (0..p.tokens() as u32).collect(),
            end: (0..p.tokens()).map(|t| p.end(t) as u32).collect(),
            qkv: data::normals(3, 3 * n, 1.0),
            out: vec![f32::NAN; n],
            lse: vec![f32::NAN; p.tokens() * HEADS.n_heads],
            d_out: data::normals(4, n, 1.0),
            gradients,
        };
        // backward starts from what forward leaves
        attention.run(Isa::best());
        Attention { backward, ..attention }
    }

    fn inputs(&self) -> Inputs<'_> {
        let column = |i: usize| Rows { data: &self.qkv[i * WIDTH..], stride: 3 * WIDTH };
        let mask = Mask { begin: &self.begin, end: &self.end };
        let n_queries = self.begin.len();
        Inputs { heads: HEADS, q: column(0), k: column(1), v: column(2), mask, bias: None, n_queries }
    }

    /// The checked head of a matrix whose rows are `stride` numbers apart, from column `column` on.
    fn head(x: &[f32], stride: usize, column: usize) -> Vec<f32> {
        let at = column + CHECKED * HEADS.head_dim;
        x.chunks_exact(stride).flat_map(|row| &row[at..at + HEADS.head_dim]).copied().collect()
    }
}

impl Kernel for Attention {
    fn run(&mut self, isa: Isa) {
        // what is written is taken out, so that the rest can be borrowed as a whole
        let (mut out, mut lse) = (std::mem::take(&mut self.out), std::mem::take(&mut self.lse));
        let mut gradients = std::mem::take(&mut self.gradients);
        match self.backward {
            false => attention::forward(isa, self.inputs(), &mut out, &mut lse),
            true => {
                let upstream = Upstream { out: &out, lse: &lse, d_out: &self.d_out };
                let [d_q, d_k, d_v] = gradients.each_mut().map(|d| RowsMut::of(d, WIDTH));
                attention::backward(isa, self.inputs(), upstream, Gradients { d_q, d_k, d_v });
            }
        }
        (self.out, self.lse, self.gradients) = (out, lse, gradients);
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        match self.backward {
            false => vec![&mut self.out, &mut self.lse],
            true => self.gradients.iter_mut().map(Vec::as_mut_slice).collect(),
        }
    }

    fn check(&self) -> Result<(), String> {
        let part = |i: usize| data::wide(&Self::head(&self.qkv, 3 * WIDTH, i * WIDTH));
        let [q, k, v] = [0, 1, 2].map(part);
        let heads = Heads { n_heads: 1, n_kv_heads: 1, ..HEADS };
        let mask = Mask { begin: &self.begin, end: &self.end };
        let inputs = reference::Inputs { heads, q: &q, k: &k, v: &v, mask, bias: None };
        if !self.backward {
            let (out, lse) = reference::forward(&inputs);
            compare("out", &Self::head(&self.out, WIDTH, 0), &out, 2e-5)?;
            let of_head: Vec<f32> = self.lse.iter().skip(CHECKED).step_by(HEADS.n_heads).copied().collect();
            return compare("lse", &of_head, &lse, 2e-5);
        }
        let d_out = data::wide(&Self::head(&self.d_out, WIDTH, 0));
        let (d_q, d_k, d_v) = reference::backward(&inputs, &d_out);
        for ((name, expected), actual) in
            [("d_q", d_q), ("d_k", d_k), ("d_v", d_v)].into_iter().zip(&self.gradients)
        {
            compare(name, &Self::head(actual, WIDTH, 0), &expected, 1e-4)?;
        }
        Ok(())
    }
}
