//! What the gradient tests share: the check against a formula in f64, and formulas of parts.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;

use kernels::activation::Activation;
use kernels::attention::Heads;
use kernels::testing::{Rng, Tolerance, close};
use prompt_tuning_autograd::ops::Intervals;
use prompt_tuning_autograd::{Gradients, NodeId, Op, Tape, Value, Weight};
use tensor::{Frozen, Tensor};

/// `Σ c * x`: gives every output its own gradient from above.
struct Dot {
    input: Option<NodeId>,
    shape: Vec<usize>,
    c: Vec<f32>,
}

impl Op for Dot {
    fn backward(self: Box<Self>, d_out: Tensor, grads: &mut Gradients) {
        let factor = d_out.f32s()[0];
        grads.add(self.input, || Tensor::from_vec(&self.shape, self.c.iter().map(|c| c * factor).collect()));
    }
}

pub(crate) fn dot(tape: &Tape, x: &Value, c: &[f32]) -> Value {
    let loss = x.tensor().f32s().iter().zip(c).map(|(x, c)| x * c).sum();
    let (input, shape, c) = (x.node(), x.tensor().shape().to_vec(), c.to_vec());
    tape.record(Tensor::from_vec(&[1], vec![loss]), &[x], || Dot { input, shape, c })
}

pub(crate) type Forward<'a> = &'a dyn Fn(&Tape, &[Value]) -> Value;
pub(crate) type Formula<'a> = &'a dyn Fn(&[Vec<f64>]) -> Vec<f64>;

/// `shapes` are those of the inputs, all of which are leaves.
pub(crate) fn check(name: &str, shapes: &[&[usize]], forward: Forward, formula: Formula) {
    let mut rng = Rng(name.len() as u64);
    let data: Vec<Vec<f32>> = shapes.iter().map(|s| rng.normals(s.iter().product())).collect();
    let wide: Vec<Vec<f64>> = data.iter().map(|x| x.iter().map(|&x| f64::from(x)).collect()).collect();

    let tape = Tape::new();
    let leaves: Vec<Value> = shapes.iter().zip(&data).map(|(s, x)| tape.leaf(s, x.clone())).collect();
    let out = forward(&tape, &leaves);
    let c = rng.normals(out.tensor().len());
    close(out.tensor().f32s(), &formula(&wide), Tolerance::both(2e-5))
        .unwrap_or_else(|e| panic!("{name}: output: {e}"));

    let loss = dot(&tape, &out, &c);
    let mut grads = tape.backward(&loss);
    let value =
        |inputs: &[Vec<f64>]| formula(inputs).iter().zip(&c).map(|(y, &c)| y * f64::from(c)).sum::<f64>();
    for (i, leaf) in leaves.iter().enumerate() {
        let expected: Vec<f64> = (0..wide[i].len()).map(|j| difference(&value, &wide, i, j)).collect();
        let actual = grads.take(leaf);
        assert_eq!(actual.shape(), shapes[i]);
        close(actual.f32s(), &expected, Tolerance { absolute: 1e-4, relative: 1e-4 })
            .unwrap_or_else(|e| panic!("{name}: gradient of input {i}: {e}"));
    }

    // the same on constants records nothing
    let tape = Tape::new();
    let constants: Vec<Value> =
        shapes.iter().zip(&data).map(|(s, x)| Value::constant(Tensor::from_vec(s, x.clone()))).collect();
    assert!(
        forward(&tape, &constants).node().is_none() && tape.is_empty(),
        "{name}: inference recorded something"
    );
}

fn difference(value: &dyn Fn(&[Vec<f64>]) -> f64, at: &[Vec<f64>], i: usize, j: usize) -> f64 {
    const H: f64 = 1e-5;
    let shifted = |h: f64| {
        let mut inputs = at.to_vec();
        inputs[i][j] += h;
        value(&inputs)
    };
    (shifted(H) - shifted(-H)) / (2.0 * H)
}

pub(crate) fn frozen(shape: &[usize], seed: u64) -> (Weight, Vec<f64>) {
    let data = Rng(seed).normals(shape.iter().product());
    let wide = data.iter().map(|&x| f64::from(x)).collect();
    (Weight::from(Frozen::new(Tensor::from_vec(shape, data))), wide)
}

/// `x[T, n_in] · W` where `w(i, o)` gives the weight.
pub(crate) fn product(x: &[f64], n_in: usize, n_out: usize, w: &dyn Fn(usize, usize) -> f64) -> Vec<f64> {
    let row = |x: &[f64], o: usize| (0..n_in).map(|i| x[i] * w(i, o)).sum();
    x.chunks(n_in).flat_map(|x| (0..n_out).map(move |o| row(x, o))).collect()
}

/// LayerNorm of one row.
pub(crate) fn normalised(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let rstd = (var + 1e-5).sqrt().recip();
    x.iter().zip(weight).zip(bias).map(|((x, w), b)| (x - mean) * rstd * w + b).collect()
}

pub(crate) fn act(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::GeluErf => x * normal_cdf(x),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Relu => x.max(0.0),
    }
}

/// By Simpson's rule from -12: exact far beyond what is tested here.
fn normal_cdf(x: f64) -> f64 {
    const N: usize = 4000;
    let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let h = (x + 12.0) / N as f64;
    let term = |i: usize| {
        density(-12.0 + i as f64 * h) * if i == 0 || i == N { 1.0 } else { (2 + 2 * (i % 2)) as f64 }
    };
    (0..=N).map(term).sum::<f64>() * h / 3.0
}

/// All pairs, in f64. `q` has `heads` heads, `k` and `v` have `kv`.
pub(crate) fn plain_attention(heads: Heads, q: &[f64], k: &[f64], v: &[f64], mask: &Intervals) -> Vec<f64> {
    plain_biased_attention(heads, [q, k, v], mask, &|_, _, _| 0.0)
}

/// The same with `bias(head, query, key)` added to the scores.
pub(crate) fn plain_biased_attention(
    heads: Heads,
    [q, k, v]: [&[f64]; 3],
    mask: &Intervals,
    bias: &dyn Fn(usize, usize, usize) -> f64,
) -> Vec<f64> {
    let (h, kv, d) = (heads.n_heads, heads.n_kv_heads, heads.head_dim);
    let mut y = vec![0.0; q.len()];
    for i in 0..q.len() / (h * d) {
        for head in 0..h {
            let q = &q[(i * h + head) * d..][..d];
            let key = |x: &'_ [f64], j: usize| x[(j * kv + head * kv / h) * d..][..d].to_vec();
            let seen: Vec<usize> = (0..mask.begin.len())
                .filter(|&j| (mask.begin[j]..mask.end[j]).contains(&(i as u32)))
                .collect();
            let score = |&j: &usize| {
                let dot = q.iter().zip(key(k, j)).map(|(a, b)| a * b).sum::<f64>();
                f64::from(heads.scale) * dot + bias(head, i, j)
            };
            let p: Vec<f64> = seen.iter().map(|j| score(j).exp()).collect();
            let total: f64 = p.iter().sum();
            for (j, p) in seen.iter().zip(&p) {
                let out = &mut y[(i * h + head) * d..][..d];
                out.iter_mut().zip(key(v, *j)).for_each(|(y, v)| *y += p / total * v);
            }
        }
    }
    y
}

/// A root of two tokens and two branches.
pub(crate) fn forest() -> Arc<Intervals> {
    Arc::new(Intervals::new(vec![0, 1, 2, 3, 4], vec![5, 5, 4, 4, 5]))
}
