//! Kernels that are bound by memory, forward and backward, on arrays far larger than the caches, after the limit: plain
//! loops that read and write as many arrays and compute nothing.
//!
//! Rates are those of the bytes that must move: every input read once, every output written once. (A store reads its
//! cache line first; the limits do as well.)

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use kernels::Isa;
use kernels::activation::{self, Activation, Gated};
use kernels::cross_entropy::{self, Target};
use kernels::layer_norm::{self, Affine};
use kernels::testing::Rng;
use kernels::{elementwise, rms_norm};
use rayon::prelude::*;

/// 64 MiB: twice the largest cache of the machines we know.
const N: usize = 16 << 20;
const WIDTH: usize = 1024;
const ROWS: usize = N / WIDTH;
const VOCAB: usize = 50257;
/// Numbers a thread takes at a time in the limits.
const CHUNK: usize = 1 << 17;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// `n` numbers; a million random ones again and again.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let some = Rng(seed).normals(1 << 20);
    some.iter().copied().cycle().take(n).collect()
}

/// Times `work`, which moves `arrays` times `n` numbers.
fn time(group: &mut Group, name: &str, arrays: usize, n: usize, mut work: impl FnMut()) {
    group.sample_size(10).throughput(Throughput::Bytes((arrays * n * 4) as u64));
    group.bench_function(name, |b| b.iter(&mut work));
}

struct Data {
    x: Vec<f32>,
    d_y: Vec<f32>,
    up: Vec<f32>,
    y: Vec<f32>,
    z: Vec<f32>,
}

fn limits(c: &mut Criterion, data: &mut Data) {
    let Data { x, d_y, y, .. } = data;
    let mut group = c.benchmark_group("limit");
    time(&mut group, "read 1", 1, N, || {
        let sum = |x: &[f32]| {
            x.as_chunks::<32>().0.iter().fold([0.0; 32], |s, x| std::array::from_fn(|i| s[i] + x[i]))
        };
        black_box(x.par_chunks(CHUNK).map(sum).collect::<Vec<[f32; 32]>>());
    });
    time(&mut group, "read 1, write 1", 2, N, || {
        let pairs = x.par_chunks(CHUNK).zip(y.par_chunks_mut(CHUNK));
        // not a copy, which libraries do in ways of their own
        pairs.for_each(|(x, y)| y.iter_mut().zip(x).for_each(|(y, x)| *y = -x));
    });
    time(&mut group, "read 2, write 1", 3, N, || {
        let pairs = x.par_chunks(CHUNK).zip(d_y.par_chunks(CHUNK)).zip(y.par_chunks_mut(CHUNK));
        pairs.for_each(|((a, b), y)| y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y = a + b));
    });
    time(&mut group, "read 1, update 1", 3, N, || {
        let pairs = x.par_chunks(CHUNK).zip(y.par_chunks_mut(CHUNK));
        pairs.for_each(|(x, y)| y.iter_mut().zip(x).for_each(|(y, x)| *y = 0.5 * *y + x));
    });
}

fn norms(group: &mut Group, isa: Isa, data: &mut Data) {
    let Data { x, d_y, y, .. } = data;
    let (weight, bias) = (Rng(2).normals(WIDTH), Rng(3).normals(WIDTH));
    let affine = Affine { weight: &weight, bias: &bias, eps: 1e-5 };
    let (mut mean, mut rstd) = (vec![0.0; ROWS], vec![0.0; ROWS]);
    time(group, "layer_norm", 2, N, || layer_norm::forward(isa, x, affine, y, &mut mean, &mut rstd));
    time(group, "layer_norm backward", 3, N, || {
        layer_norm::backward_input(isa, x, &weight, &mean, &rstd, d_y, y);
    });
    time(group, "layer_norm backward, accumulated", 4, N, || {
        layer_norm::accumulate_input(isa, x, &weight, &mean, &rstd, d_y, y);
    });
    time(group, "rms_norm", 2, N, || rms_norm::forward(isa, x, &weight, 1e-5, y, &mut rstd));
    time(group, "rms_norm backward", 3, N, || rms_norm::backward_input(isa, x, &weight, &rstd, d_y, y));
    time(group, "rms_norm backward, accumulated", 4, N, || {
        rms_norm::accumulate_input(isa, x, &weight, &rstd, d_y, y);
    });
}

fn activations(group: &mut Group, isa: Isa, data: &mut Data) {
    let Data { x, d_y, up, y, z } = data;
    for act in [Activation::GeluTanh, Activation::GeluErf, Activation::Silu] {
        time(group, &format!("{act:?}"), 2, N, || activation::forward(isa, act, x, y));
        time(group, &format!("{act:?} backward"), 3, N, || activation::backward(isa, act, x, d_y, y));
        let inputs = Gated { act, gate: x, up };
        time(group, &format!("{act:?} gated"), 3, N, || activation::gated_forward(isa, inputs, y));
        time(group, &format!("{act:?} gated backward"), 5, N, || {
            activation::gated_backward(isa, inputs, d_y, y, z);
        });
    }
}

fn softmax(group: &mut Group, isa: Isa, data: &mut Data) {
    let rows = N / VOCAB;
    let n = rows * VOCAB;
    let (logits, d_logits) = (&data.x[..n], &mut data.y[..n]);
    let mut lse = vec![0.0; rows];
    time(group, "log_sum_exp", 1, n, || cross_entropy::log_sum_exp(isa, logits, VOCAB, &mut lse));
    let targets: Vec<Target> =
        (0..rows as u32).map(|row| Target { row, token: 7 * row, weight: 0.3 }).collect();
    time(group, "cross-entropy backward", 2, n, || {
        cross_entropy::backward(isa, logits, VOCAB, &lse, &targets, d_logits);
    });
}

fn sums(group: &mut Group, isa: Isa, data: &mut Data) {
    let Data { x, d_y, y, .. } = data;
    time(group, "add", 3, N, || elementwise::add(isa, x, d_y, y));
    time(group, "accumulate", 3, N, || elementwise::accumulate(isa, x, y));
}

fn rows(c: &mut Criterion) {
    let buffer = || vec![1.0; N];
    let mut data = Data { x: numbers(1, N), d_y: numbers(4, N), up: numbers(5, N), y: buffer(), z: buffer() };
    limits(c, &mut data);
    for isa in Isa::available() {
        let mut group = c.benchmark_group(format!("rows/{}", isa.name()));
        norms(&mut group, isa, &mut data);
        activations(&mut group, isa, &mut data);
        softmax(&mut group, isa, &mut data);
        sums(&mut group, isa, &mut data);
    }
}

criterion_group!(benches, rows);
criterion_main!(benches);
