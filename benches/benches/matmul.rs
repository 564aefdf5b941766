//! Matrix products at the shapes of GPT-2: every instruction set of this CPU, and the peers.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::Isa;
use kernels::matmul::{Elements, Epilogue, Layout, Weight, forward};
use kernels::testing::Rng;
use prompt_tuning_benches::peers::{self, Product};
use prompt_tuning_benches::{FEW_ROWS, MATMULS};

fn matmul(c: &mut Criterion) {
    for &(m, k, n) in MATMULS.iter().chain(&FEW_ROWS) {
        let mut group = c.benchmark_group(format!("matmul/{m}x{k}x{n}"));
        group.sample_size(10).throughput(Throughput::Elements((2 * m * k * n) as u64));
        let (x, w) = (Rng(1).normals(m * k), Rng(2).normals(n * k));
        let mut out = vec![0.0; m * n];
        for isa in Isa::available() {
            for layout in [Layout::OutIn, Layout::InOut] {
                let weight = Weight { elements: Elements::F32(&w), layout, n_in: k, n_out: n };
                let id = BenchmarkId::new(isa.name(), format!("{layout:?}"));
                group.bench_function(id, |b| {
                    b.iter(|| forward(isa, &x, weight, Epilogue::default(), &mut out))
                });
            }
        }
        let p = Product { m, k, n, x: &x, w: &w };
        group.bench_function("gemm crate", |b| b.iter(|| peers::gemm(p, &mut out)));
        group.bench_function("matrixmultiply crate", |b| b.iter(|| peers::matrixmultiply(p, &mut out)));
    }
}

criterion_group!(benches, matmul);
criterion_main!(benches);
