//! Kernels that are bound by memory: norms, activations, softmax.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kernels::Isa;
use kernels::activation::{self, Activation};
use kernels::layer_norm::{self, Affine};
use kernels::testing::Rng;
use kernels::{cross_entropy, rms_norm};

const ROWS: usize = 4096;
const WIDTH: usize = 768;

fn rows(c: &mut Criterion) {
    let x = Rng(1).normals(ROWS * WIDTH);
    let (weight, bias) = (Rng(2).normals(WIDTH), Rng(3).normals(WIDTH));
    let (mut y, mut mean, mut rstd) = (vec![0.0; ROWS * WIDTH], vec![0.0; ROWS], vec![0.0; ROWS]);
    for isa in Isa::available() {
        let mut group = c.benchmark_group(format!("rows/{}", isa.name()));
        group.sample_size(10).throughput(Throughput::Bytes((2 * ROWS * WIDTH * 4) as u64));
        let affine = Affine { weight: &weight, bias: &bias, eps: 1e-5 };
        group.bench_function("layer_norm", |b| {
            b.iter(|| layer_norm::forward(isa, &x, affine, &mut y, &mut mean, &mut rstd));
        });
        group.bench_function("rms_norm", |b| {
            b.iter(|| rms_norm::forward(isa, &x, &weight, 1e-5, &mut y, &mut rstd))
        });
        for act in [Activation::GeluTanh, Activation::GeluErf, Activation::Silu] {
            group
                .bench_function(format!("{act:?}"), |b| b.iter(|| activation::forward(isa, act, &x, &mut y)));
        }
        group.bench_function("log_sum_exp", |b| {
            b.iter(|| cross_entropy::log_sum_exp(isa, &x, WIDTH, &mut mean))
        });
    }
}

criterion_group!(benches, rows);
criterion_main!(benches);
