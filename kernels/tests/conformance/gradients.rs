//! Central finite differences in f64 of every reference, forward against backward.

use prompt_tuning_kernels::{
    attention::{Bias, Heads, Mask, reference as attention},
    cross_entropy::reference as cross_entropy,
    elementwise::reference as elementwise,
    layer_norm::reference as layer_norm,
    rms_norm::reference as rms_norm,
    rope::reference as rope,
    testing::{Rng, Tolerance, close},
};

use crate::{activation::ALL, dot};

fn normals(seed: u64, n: usize) -> Vec<f64> {
    let mut rng = Rng(seed);
    (0..n).map(|_| rng.normal()).collect()
}

/// Whether `gradient` is that of `loss` at `x`. The step makes both the cubic term and the rounding about 1e-10.
fn check(x: &[f64], gradient: &[f64], loss: impl Fn(&[f64]) -> f64) {
    const STEP: f64 = 1e-5;
    let slope = |i: usize| {
        let at = |step: f64| {
            let mut x = x.to_vec();
            x[i] += step;
            loss(&x)
        };
        (at(STEP) - at(-STEP)) / (2.0 * STEP)
    };
    let expected: Vec<f64> = (0..x.len()).map(slope).collect();
    close(gradient, &expected, Tolerance::both(1e-7)).unwrap();
}

#[test]
fn layer_norm_input_and_parameters() {
    let (x, weight, bias, d_y) = (normals(1, 9), normals(2, 9), normals(3, 9), normals(4, 9));
    let (_, mean, rstd) = layer_norm::forward(&x, &weight, &bias, 1e-2);
    let d_x = layer_norm::backward_input(&x, &weight, mean, rstd, &d_y);
    check(&x, &d_x, |x| dot(&layer_norm::forward(x, &weight, &bias, 1e-2).0, &d_y));
    let (d_weight, d_bias) = layer_norm::backward_affine(&x, mean, rstd, &d_y);
    check(&weight, &d_weight, |weight| dot(&layer_norm::forward(&x, weight, &bias, 1e-2).0, &d_y));
    check(&bias, &d_bias, |bias| dot(&layer_norm::forward(&x, &weight, bias, 1e-2).0, &d_y));
}

#[test]
fn rms_norm_input_and_weight() {
    let (x, weight, d_y) = (normals(1, 9), normals(2, 9), normals(4, 9));
    let (_, rstd) = rms_norm::forward(&x, &weight, 1e-2);
    let d_x = rms_norm::backward_input(&x, &weight, rstd, &d_y);
    check(&x, &d_x, |x| dot(&rms_norm::forward(x, &weight, 1e-2).0, &d_y));
    let d_weight = rms_norm::backward_weight(&x, rstd, &d_y);
    check(&weight, &d_weight, |weight| dot(&rms_norm::forward(&x, weight, 1e-2).0, &d_y));
}

#[test]
fn activations() {
    use prompt_tuning_kernels::activation::reference::{backward, forward, gated_backward};
    let (x, up, d_y) = (normals(1, 20), normals(2, 20), normals(3, 20));
    for act in ALL {
        let d_x: Vec<f64> = x.iter().zip(&d_y).map(|(&x, &d)| backward(act, x, d)).collect();
        check(&x, &d_x, |x| x.iter().zip(&d_y).map(|(&x, d)| d * forward(act, x)).sum());

        let (d_gate, d_up): (Vec<f64>, Vec<f64>) =
            (0..x.len()).map(|i| gated_backward(act, x[i], up[i], d_y[i])).unzip();
        let gated = |gate: &[f64], up: &[f64]| (0..20).map(|i| d_y[i] * forward(act, gate[i]) * up[i]).sum();
        check(&x, &d_gate, |gate| gated(gate, &up));
        check(&up, &d_up, |up| gated(&x, up));
    }
}

#[test]
fn rotations() {
    let (angles, x, d_y) = (normals(1, 4), normals(2, 8), normals(3, 8));
    check(&x, &rope::backward(&angles, &d_y), |x| dot(&rope::forward(&angles, x), &d_y));
}

#[test]
fn cross_entropy_logits() {
    let logits = normals(1, 11);
    let targets = [(3, 0.5), (7, -1.5), (3, 2.0)];
    let d = cross_entropy::backward(&logits, cross_entropy::log_sum_exp(&logits), &targets);
    check(&logits, &d, |logits| cross_entropy::loss(logits, &targets));
}

#[test]
fn scaling() {
    let (x, d_out) = (normals(1, 5), normals(2, 5));
    let d_x = elementwise::scale_backward(-1.5, &d_out);
    check(&x, &d_x, |x| dot(&elementwise::scale(-1.5, x), &d_out));
}

#[test]
fn attention_inputs() {
    // five queries, six keys, two query heads per key head; nobody sees key 3, query 4 sees nothing
    let heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 3, scale: 0.6 };
    let mask = Mask { begin: &[0, 0, 1, 2, 2, 3], end: &[4, 2, 4, 2, 4, 4] };
    let (q, k, v, d_out) = (normals(1, 60), normals(2, 36), normals(3, 36), normals(4, 60));
    let table: Vec<f32> = (0..4 * 5).map(|i| 0.3 * i as f32 % 1.7).collect();
    let bias = Bias { query_positions: &[0, 1, 2, 3, 4], key_positions: &[0, 1, 2, 3, 1, 2], table: &table };
    for bias in [None, Some(bias)] {
        let inputs = attention::Inputs { heads, q: &q, k: &k, v: &v, mask, bias };
        let (d_q, d_k, d_v) = attention::backward(&inputs, &d_out);
        let loss = |q: &[f64], k: &[f64], v: &[f64]| {
            dot(&attention::forward(&attention::Inputs { heads, q, k, v, mask, bias }).0, &d_out)
        };
        check(&q, &d_q, |q| loss(q, &k, &v));
        check(&k, &d_k, |k| loss(&q, k, &v));
        check(&v, &d_v, |v| loss(&q, &k, v));
    }
}

/// The table is f32 also in the reference, so steps are taken in f32 and are larger.
#[test]
fn attention_bias() {
    let heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 3, scale: 0.6 };
    let mask = Mask { begin: &[0, 0, 1, 2, 2, 3], end: &[4, 2, 4, 2, 4, 4] };
    let (q, k, v, d_out) = (normals(1, 60), normals(2, 36), normals(3, 36), normals(4, 60));
    let table: Vec<f32> = (0..4 * 5).map(|i| 0.3 * i as f32 % 1.7).collect();
    let with = |table: &[f32]| {
        let bias = Bias { query_positions: &[0, 1, 2, 3, 4], key_positions: &[0, 1, 2, 3, 1, 2], table };
        let inputs = attention::Inputs { heads, q: &q, k: &k, v: &v, mask, bias: Some(bias) };
        (dot(&attention::forward(&inputs).0, &d_out), attention::backward_bias(&inputs, &d_out))
    };
    let slope = |i: usize| {
        let at = |step: f32| {
            let mut table = table.clone();
            table[i] += step;
            (f64::from(table[i]), with(&table).0)
        };
        let ((x0, y0), (x1, y1)) = (at(-1e-3), at(1e-3));
        (y1 - y0) / (x1 - x0)
    };
    let expected: Vec<f64> = (0..table.len()).map(slope).collect();
    close(&with(&table).1, &expected, Tolerance::both(1e-5)).unwrap();
}
