//! Matrix products: every shape, layout, dtype and instruction set, and the peers (feature `peers`).

use criterion::{Criterion, criterion_group, criterion_main};

mod common;

fn matmul(c: &mut Criterion) {
    common::bench(c, "matmul", "matmul 820x768x768 f32");
    common::bench(c, "weight gradient", "weight gradient 820x768x768");
}

criterion_group!(benches, matmul);
criterion_main!(benches);
