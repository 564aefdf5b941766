//! Kernels that are bound by memory, forward and backward, on arrays far larger than the caches, after the limit: what
//! loops reach that read and write as many arrays and compute nothing.
//!
//! Rates are those of the bytes that must move: every input read once, every output written once. (A store reads its
//! cache line first; the limits do as well.)

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prompt_tuning_benches::ceilings::{Streams, Threads};
use prompt_tuning_benches::is_test;

mod common;

/// Kernels by their names, and the shape that leaves the caches.
const KERNELS: [(&str, &str); 9] = [
    ("layer_norm", "16384x"),
    ("rms_norm", "16384x"),
    ("gelu", "4096x"),
    ("silu", "4096x"),
    ("log_sum_exp", "512x"),
    ("cross_entropy", "512x"),
    ("rope", "16384x"),
    ("embedding", ""),
    ("widen", "16384x"),
];
const SUMS: [&str; 4] = ["add", "accumulate", "scale", "sum of rows"];

/// Everything that moves memory at once, of the fastest instruction set.
fn limits(c: &mut Criterion) {
    let bytes = if is_test() { 1 << 20 } else { 256 << 20 };
    let streams = Streams::new(bytes, Threads::All);
    let mut group = c.benchmark_group("limit");
    group.sample_size(10).throughput(Throughput::Bytes(streams.bytes() as u64));
    group.bench_function("read 1", |b| b.iter(|| streams.read_once()));
    group.bench_function("read 1, write 1", |b| b.iter(|| streams.copy_once()));
    group.bench_function("read 2, write 1", |b| b.iter(|| streams.sum_once()));
}

fn rows(c: &mut Criterion) {
    limits(c);
    for (kernel, shape) in KERNELS {
        let small = if kernel == "log_sum_exp" || kernel == "cross_entropy" { "32x" } else { "820x" };
        common::bench(c, &format!("{kernel} {shape}"), &format!("{kernel} {small}"));
    }
    for kernel in SUMS {
        common::bench(c, &format!("{kernel} 16384x"), &format!("{kernel} 820x"));
    }
}

criterion_group!(benches, rows);
criterion_main!(benches);
