//! Attention forward and backward: packed sequences, forests with a shared prefix, shared key/value heads, a bias.

use criterion::{Criterion, criterion_group, criterion_main};

mod common;

fn attention(c: &mut Criterion) {
    common::bench(c, "attention", "attention 20+32x25");
}

criterion_group!(benches, attention);
criterion_main!(benches);
