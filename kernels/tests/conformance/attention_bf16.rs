//! Attention on tensor cores against all pairs one by one, of the rounded inputs: what else is rounded is bounded.

use half::bf16;
use prompt_tuning_kernels::attention::{Mask, reference};
use prompt_tuning_kernels::matmul::Precision;

use crate::attention::{Case, Data, Shape};
use crate::device::{Device, on_the_gpu};
use crate::named;

/// The largest relative error of a number that is rounded to bf16: half of the distance of two numbers of 8 bits.
const ROUNDING: f64 = 1.0 / 256.0;

/// How far results may be from those of the rounded inputs.
///
/// Rounded are, beside the inputs, the probabilities and the gradients of the scores, each by a share `r` = [`ROUNDING`] of it at most.
/// Of the sums that they are factors of:
///
/// ```text
/// |δo_i|    <= r Σ_j p_ij |v_j|                |δd_v_j| <= r Σ_i p_ij |d_o_i|
/// |δd_s_ij| <= r |d_s_ij| + p_ij |δD_i|        |δd_q_i| <= scale Σ_j |δd_s_ij| |k_j|,  |δd_k_j| <= scale Σ_i |δd_s_ij| |q_i|
/// ```
///
/// `D_i = d_o_i·o_i` is of the `d_o_i` before they were rounded and of the `o_i` with their error:
/// `|δD_i| <= Σ |d_o_i| (r |o_i| + |δo_i|)`. A rounding of what is rounded already adds another share `r` of all this; so
/// all is multiplied by 1 + 3 r.
struct Bounds {
    out: Vec<f64>,
    d_q: Vec<f64>,
    d_k: Vec<f64>,
    d_v: Vec<f64>,
}

/// One visible pair of a head, and where its numbers lie.
struct Pair {
    p: f64,
    d_p: f64,
    query: usize,
    at_q: usize,
    at_k: usize,
}

type Inputs<'a> = reference::Inputs<'a, f64>;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Every visible pair, with its probability and the gradient of that.
fn pairs(x: &Inputs, lse: &[f64], d_out: &[f64]) -> Vec<Pair> {
    let (heads, mut all) = (x.heads, Vec::new());
    let (n_heads, width) = (heads.n_heads, heads.head_dim);
    for (j, (&begin, &end)) in x.mask.begin.iter().zip(x.mask.end).enumerate() {
        for i in begin as usize..(end as usize).min(lse.len() / n_heads) {
            for head in 0..n_heads {
                let query = i * n_heads + head;
                let at_q = query * width;
                let at_k = (j * heads.n_kv_heads + head / (n_heads / heads.n_kv_heads)) * width;
                let score = f64::from(heads.scale) * dot(&x.q[at_q..][..width], &x.k[at_k..][..width]);
                let p = (score + bias(x, head, i, j) - lse[query]).exp();
                let d_p = dot(&d_out[at_q..][..width], &x.v[at_k..][..width]);
                all.push(Pair { p, d_p, query, at_q, at_k });
            }
        }
    }
    all
}

fn bias(x: &Inputs, head: usize, i: usize, j: usize) -> f64 {
    let Some(bias) = x.bias else { return 0.0 };
    let of_head = bias.table.len() / x.heads.n_heads;
    let reach = (of_head / 2) as i64;
    let distance = i64::from(bias.query_positions[i]) - i64::from(bias.key_positions[j]);
    f64::from(bias.table[head * of_head + (distance.clamp(-reach, reach) + reach) as usize])
}

/// `to += factor |x|`, row by row.
fn add_magnitudes(to: &mut [f64], factor: f64, x: &[f64]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += factor * x.abs());
}

impl Bounds {
    fn new(x: &Inputs, (out, lse): (&[f64], &[f64]), d_out: &[f64]) -> Bounds {
        let (width, scale, r) = (x.heads.head_dim, f64::from(x.heads.scale).abs(), ROUNDING);
        let zeros = |x: &[f64]| vec![0.0; x.len()];
        let mut bounds = Bounds { out: zeros(x.q), d_q: zeros(x.q), d_k: zeros(x.k), d_v: zeros(x.v) };
        let pairs = pairs(x, lse, d_out);
        for &Pair { p, at_q, at_k, .. } in &pairs {
            add_magnitudes(&mut bounds.out[at_q..][..width], r * p, &x.v[at_k..][..width]);
            add_magnitudes(&mut bounds.d_v[at_k..][..width], r * p, &d_out[at_q..][..width]);
        }
        let dots: Vec<(f64, f64)> = (0..lse.len())
            .map(|query| {
                let row = |x: &[f64]| x[query * width..][..width].to_vec();
                let (d_out, out, of_out) = (row(d_out), row(out), row(&bounds.out));
                let error =
                    d_out.iter().zip(&out).zip(&of_out).map(|((d, o), e)| d.abs() * (r * o.abs() + e));
                (dot(&d_out, &out), error.sum())
            })
            .collect();
        for &Pair { p, d_p, query, at_q, at_k } in &pairs {
            let (dot, of_dot) = dots[query];
            let error = scale * p * (r * (d_p - dot).abs() + of_dot);
            add_magnitudes(&mut bounds.d_q[at_q..][..width], error, &x.k[at_k..][..width]);
            add_magnitudes(&mut bounds.d_k[at_k..][..width], error, &x.q[at_q..][..width]);
        }
        bounds
    }
}

/// Within the bound of each number, and what sums in f32 add: as [`crate::attention`] allows it, relative to the largest.
fn within(actual: &[f32], expected: &[f64], bound: &[f64], of_sums: f64) -> Result<(), String> {
    assert_eq!((actual.len(), bound.len()), (expected.len(), expected.len()));
    let largest = expected.iter().filter(|x| x.is_finite()).fold(1.0, |m: f64, x| m.max(x.abs()));
    let wrong =
        actual.iter().zip(expected).zip(bound).enumerate().find(|(_, ((actual, expected), bound))| {
            let difference = (f64::from(**actual) - **expected).abs();
            let is_near = difference <= **bound * (1.0 + 3.0 * ROUNDING) + of_sums * largest;
            // minus infinity is the sum of nothing
            f64::from(**actual) != **expected && !is_near
        });
    wrong.map_or(Ok(()), |(i, ((actual, expected), bound))| {
        Err(format!("number {i} is {actual}, not {expected} +- {bound:e}"))
    })
}

fn rounded(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| bf16::from_f32(x).to_f64()).collect()
}

fn check(device: Device, data: &Data, spread: f32) -> Result<(), String> {
    let mask = Mask { begin: &data.mask.begin, end: &data.mask.end };
    let [q, k, v, d_out] = [&data.q, &data.k, &data.v, &data.d_out].map(|x| rounded(x));
    let inputs = reference::Inputs { heads: data.heads, q: &q, k: &k, v: &v, mask, bias: data.bias() };
    let (out, lse) = reference::forward(&inputs);
    let (d_q, d_k, d_v) = reference::backward(&inputs, &d_out);
    let bounds = Bounds::new(&inputs, (&out, &lse), &d_out);
    let actual = data.run(device);
    let of_sums = 2e-6 * (1.0 + f64::from(spread));
    named("lse", within(&actual.lse, &lse, &vec![0.0; lse.len()], of_sums))?;
    named("out", within(&actual.out, &out, &bounds.out, of_sums))?;
    named("d_v", within(&actual.d_v, &d_v, &bounds.d_v, of_sums))?;
    named("d_q", within(&actual.d_q, &d_q, &bounds.d_q, of_sums))?;
    named("d_k", within(&actual.d_k, &d_k, &bounds.d_k, of_sums))
}

fn check_all(cases: &[Case]) {
    on_the_gpu(cases, |device, case| {
        let data = Data { precision: Precision::Bf16, ..case.data(7) };
        check(device, &data, case.spread)?;
        let biased = Data { precision: Precision::Bf16, ..case.biased(8, 5) };
        named("with a bias", check(device, &biased, case.spread + 1.0))
    });
}

fn case(shape: Shape, heads: (usize, usize, usize)) -> Case {
    Case { shape, heads, spread: 1.0 }
}

/// Around the tiles and the rows of a warp.
#[test]
fn lengths_around_every_tile() {
    let mut cases = Vec::new();
    for n in [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129] {
        cases.push(case(Shape::Causal { tokens: n }, (2, 1, 16)));
        cases.push(case(Shape::Forest { tokens: n }, (1, 1, 40)));
        cases.push(case(Shape::Random { queries: 130 - n, keys: n }, (1, 1, 64)));
        cases.push(case(Shape::Segments { tokens: n }, (1, 1, 100)));
        cases.push(case(Shape::Decode { queries: 1, keys: n }, (4, 2, 24)));
    }
    cases.extend([0, 1, 5].map(|n| case(Shape::Random { queries: n + 1, keys: 5 - n }, (2, 2, 5))));
    check_all(&cases);
}

/// Around the widths at which there is another kernel, or groups of numbers are whole.
#[test]
fn heads_of_every_width() {
    let mut cases = Vec::new();
    for width in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 36, 48, 63, 64, 65, 80, 127, 128] {
        cases.push(case(Shape::Forest { tokens: 40 }, (2, 1, width)));
        cases.push(case(Shape::Random { queries: 20, keys: 37 }, (2, 2, width)));
    }
    check_all(&cases);
}

#[test]
fn larger_shapes() {
    check_all(&[
        case(Shape::Forest { tokens: 300 }, (3, 1, 64)),
        case(Shape::Rows { shared: 100, rows: 9, len: 25 }, (2, 2, 24)),
        // more tiles than are looked at in one go, most of them hidden
        case(Shape::Causal { tokens: 600 }, (1, 1, 64)),
        case(Shape::Segments { tokens: 600 }, (1, 1, 16)),
        case(Shape::Cross { queries: 60, keys: 1100 }, (1, 1, 32)),
        case(Shape::Decode { queries: 32, keys: 300 }, (2, 1, 64)),
        case(Shape::Decode { queries: 3, keys: 500 }, (2, 1, 80)),
        case(Shape::Last { shared: 90, rows: 30, len: 9 }, (6, 2, 64)),
        case(Shape::Forest { tokens: 130 }, (1, 1, 128)),
        case(Shape::Nothing, (2, 2, 20)),
        Case { spread: 30.0, ..case(Shape::Forest { tokens: 150 }, (2, 1, 32)) },
    ]);
}

/// Wider heads have no kernel on tensor cores: they are computed as in f32, to the bit.
#[test]
fn wide_heads_are_not_rounded() {
    on_the_gpu(&[129, 256], |device, &width| {
        let of = |precision| {
            let results =
                Data { precision, ..case(Shape::Causal { tokens: 9 }, (1, 1, width)).data(3) }.run(device);
            [results.out, results.lse, results.d_q, results.d_k, results.d_v]
        };
        let is_same = of(Precision::F32) == of(Precision::Bf16);
        is_same.then_some(()).ok_or("other numbers than in f32".into())
    });
}
