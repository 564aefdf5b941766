//! One step of each optimizer.

use criterion::{Criterion, criterion_group, criterion_main};

mod common;

fn optim(c: &mut Criterion) {
    for optimizer in ["adamw", "adafactor", "sgd"] {
        common::bench(c, optimizer, &format!("{optimizer} 20x"));
    }
}

criterion_group!(benches, optim);
criterion_main!(benches);
