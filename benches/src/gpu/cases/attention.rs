//! Attention: of long sequences, forward and backward, in f32 and on tensor cores; and of a step of generation.

use kernels::attention::Heads;
use kernels::matmul::Precision;
use tensor::ops::attention::{self, Columns, Inputs, Upstream};
use tensor::{Device, Intervals, Tensor};

use super::{Case, Size, Work, of_tensors, random};

/// All cases.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let (lengths, n_heads, head_dim): (&[usize], _, _) = match size {
        Size::Full => (&[1024, 4096, 16_384], 16, 64),
        Size::Small => (&[40], 2, 8),
    };
    let heads = Heads { n_heads, n_kv_heads: n_heads, head_dim, scale: (head_dim as f32).powf(-0.5) };
    lengths.iter().flat_map(|&t| of_length(t, heads)).collect()
}

fn of_length(t: usize, heads: Heads) -> Vec<Case> {
    let sequence = |precision| Sequence { t, heads, precision };
    let (exact, rounded) = (sequence(Precision::F32), sequence(Precision::Bf16));
    vec![
        exact.forward("attention"),
        exact.backward("attention, backward"),
        rounded.forward("attention in bf16"),
        rounded.backward("attention in bf16, backward"),
        step_of_generation(8, t, heads),
    ]
}

/// A sequence with a causal mask.
#[derive(Clone, Copy)]
struct Sequence {
    t: usize,
    heads: Heads,
    precision: Precision,
}

/// Queries, keys, values and the gradient of the output.
struct Made {
    of: Sequence,
    tensors: [Tensor; 4],
    mask: Intervals,
}

impl Sequence {
    fn width(self) -> usize {
        self.heads.n_heads * self.heads.head_dim
    }

    fn make(self, device: Device) -> Result<Made, String> {
        let make = |seed| random(seed, &[self.t, self.width()], device);
        let tensors = [make(1)?, make(2)?, make(3)?, make(4)?];
        Ok(Made { of: self, tensors, mask: Intervals::causal(self.t) })
    }

    fn forward(self, name: &'static str) -> Case {
        self.case(name, 2.0, 4, |made| Box::new(move || vec![attention::forward(made.inputs()).0]))
    }

    /// What the forward pass leaves is there before: it is not timed.
    fn backward(self, name: &'static str) -> Case {
        self.case(name, 5.0, 8, |made| {
            let (out, lse) = attention::forward(made.inputs());
            Box::new(move || {
                let upstream = Upstream { out: &out, lse: &lse, d_out: &made.tensors[3] };
                attention::backward(made.inputs(), upstream).into()
            })
        })
    }

    /// With so many products of half of the pairs, and so many matrices read or written.
    fn case(self, name: &'static str, products: f64, matrices: usize, work: fn(Made) -> Work) -> Case {
        let Sequence { t, heads: Heads { n_heads, head_dim, .. }, precision } = self;
        Case {
            name,
            problem: format!("{t} tokens, {n_heads} heads of {head_dim}, causal"),
            flops: products * (t * t * self.width()) as f64,
            bytes: 4.0 * (matrices * t * self.width()) as f64,
            // the CPU rounds no factors: 2^-8 each, and some of them in one number
            tolerance: if precision == Precision::F32 { 1e-4 } else { 2e-2 },
            is_compared: t <= 4096,
            make: Box::new(move |device| Ok(work(self.make(device)?))),
        }
    }
}

impl Made {
    fn inputs(&self) -> Inputs<'_> {
        let [q, k, v] = [0, 1, 2].map(|i| Columns::all(&self.tensors[i]));
        let Sequence { heads, precision, .. } = self.of;
        Inputs { heads, q, k, v, mask: &self.mask, bias: None, precision }
    }
}

/// Attention of the last token of each of some sequences, which share all keys.
fn step_of_generation(n: usize, t: usize, heads: Heads) -> Case {
    let width = heads.n_heads * heads.head_dim;
    let shapes: [&[usize]; 3] = [&[n, width], &[t, width], &[t, width]];
    let case = of_tensors("attention, a step", shapes, n * width, move |all| {
        let [q, k, v] = all.each_ref().map(Columns::all);
        let mask = Intervals::new(vec![0; t], vec![n as u32; t]);
        let inputs = Inputs { heads, q, k, v, mask: &mask, bias: None, precision: Precision::F32 };
        vec![attention::forward(inputs).0]
    });
    let problem = format!("{n} queries, {t} keys, {} heads of {}", heads.n_heads, heads.head_dim);
    Case { problem, flops: 4.0 * (n * t * width) as f64, tolerance: 1e-4, ..case }
}
