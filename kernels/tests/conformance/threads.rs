//! The same bits with one thread, two and five.

use prompt_tuning_kernels::{
    Isa, activation, attention, cross_entropy, elementwise, layer_norm, rms_norm, rope,
};

use crate::{
    activation::ALL,
    attention::{Case, Shape},
    device::Device,
    normals,
};

/// The bits of what `work` returns, computed in a pool of each size.
fn same_bits(name: &str, work: impl Fn() -> Vec<f32> + Sync) {
    let bits = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&work).iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
    };
    let alone = bits(1);
    for threads in [2, 5] {
        assert!(bits(threads) == alone, "{name} on {threads} threads");
    }
}

#[test]
fn attention_does_not_depend_on_threads() {
    let cases =
        [(Shape::Forest { tokens: 700 }, (4, 2, 64)), (Shape::Decode { queries: 2, keys: 3000 }, (8, 2, 64))];
    for isa in Isa::available() {
        for (shape, heads) in cases {
            let data = Case { shape, heads, spread: 1.0 }.data(1);
            same_bits(isa.name(), || {
                let attention = data.run(Device::Cpu(isa));
                [attention.out, attention.lse, attention.d_q, attention.d_k, attention.d_v].concat()
            });
        }
    }
}

#[test]
fn row_kernels_do_not_depend_on_threads() {
    let (rows, cols) = (300, 513);
    let n = rows * cols;
    let (x, d_y, weight) = (normals(1, n), normals(2, n), normals(3, cols));
    for isa in Isa::available() {
        same_bits("norms", || {
            let (mut y, mut mean, mut rstd, mut d_x) =
                (vec![0.0; n], vec![0.0; rows], vec![0.0; rows], vec![0.0; n]);
            let affine = layer_norm::Affine { weight: &weight, bias: &weight, eps: 1e-5 };
            layer_norm::forward(isa, &x, affine, &mut y, &mut mean, &mut rstd);
            layer_norm::backward_input(isa, &x, &weight, &mean, &rstd, &d_y, &mut d_x);
            let mut all = [y.clone(), mean, rstd.clone(), d_x.clone()].concat();
            rms_norm::forward(isa, &x, &weight, 1e-5, &mut y, &mut rstd);
            rms_norm::backward_input(isa, &x, &weight, &rstd, &d_y, &mut d_x);
            all.extend([y, rstd, d_x].concat());
            all
        });
        same_bits("cross-entropy", || {
            let (mut lse, mut d) = (vec![0.0; rows], vec![0.0; n]);
            cross_entropy::log_sum_exp(isa, &x, cols, &mut lse);
            let target = |row| cross_entropy::Target { row, token: row % 7, weight: 0.3 };
            let targets: Vec<_> = (0..rows as u32).map(target).collect();
            cross_entropy::backward(isa, &x, cols, &lse, &targets, &mut d);
            [lse, d].concat()
        });
    }
}

#[test]
fn elementwise_kernels_do_not_depend_on_threads() {
    let n = 100_003;
    let (x, d_y) = (normals(1, n), normals(2, n));
    for isa in Isa::available() {
        same_bits("elementwise", || {
            let (mut sum, mut out) = (vec![0.0; n], vec![0.0; n]);
            elementwise::add(isa, &x, &d_y, &mut sum);
            elementwise::scale(isa, 0.3, &sum, &mut out);
            elementwise::accumulate(isa, &x, &mut out);
            sum.push(elementwise::sum_of_squares(&x) as f32);
            [sum, out].concat()
        });
        for act in ALL {
            same_bits("activation", || {
                let (mut d_gate, mut d_up) = (vec![0.0; n], vec![0.0; n]);
                let inputs = activation::Gated { act, gate: &x, up: &d_y };
                activation::gated_backward(isa, inputs, &x, &mut d_gate, &mut d_up);
                [d_gate, d_up].concat()
            });
        }
        same_bits("rope", || {
            let positions: Vec<u32> = (0..500).collect();
            let table = rope::Table::new(&positions, &[1.0, 0.1, 0.01], rope::Pairs::Halves);
            let mut y = vec![0.0; 500 * 60];
            rope::forward(isa, &table, &x[..500 * 60], &mut y);
            y
        });
    }
}

#[test]
#[should_panic(expected = "out and lse")]
fn wrong_sizes_panic() {
    let heads = attention::Heads { n_heads: 1, n_kv_heads: 1, head_dim: 2, scale: 1.0 };
    let rows = attention::Rows { data: &[0.0; 4], stride: 2 };
    let mask = attention::Mask { begin: &[0, 0], end: &[2, 2] };
    let inputs = attention::Inputs { heads, q: rows, k: rows, v: rows, mask, bias: None, n_queries: 2 };
    attention::forward(Isa::best(), inputs, &mut [0.0; 3], &mut [0.0; 2]);
}
