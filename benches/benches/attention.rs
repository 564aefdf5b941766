//! Attention forward and backward: packed sequences, and a forest with a shared prefix.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kernels::Isa;
use kernels::attention::{self, Gradients, Heads, Inputs, Mask, Rows, RowsMut, Upstream};
use kernels::testing::Rng;

const WIDTH: usize = 768;

/// Ends of `rows` sequences of `len` tokens after a prefix of `shared` tokens that all of them see.
fn ends(shared: usize, rows: usize, len: usize) -> Vec<u32> {
    let all = shared + rows * len;
    (0..all).map(|t| if t < shared { all } else { shared + ((t - shared) / len + 1) * len } as u32).collect()
}

fn attention(c: &mut Criterion) {
    let heads = Heads { n_heads: 12, n_kv_heads: 12, head_dim: 64, scale: 0.125 };
    let isa = Isa::best();
    for (shared, rows, len) in
        [(0, 32, 45), (20, 32, 25), (100, 32, 25), (0, 8, 128), (0, 1, 1024), (0, 1, 4096)]
    {
        let end = ends(shared, rows, len);
        let tokens = end.len();
        let begin: Vec<u32> = (0..tokens as u32).collect();
        let qkv = Rng(3).normals(tokens * 3 * WIDTH);
        let column = |i: usize| Rows { data: &qkv[i * WIDTH..], stride: 3 * WIDTH };
        let mask = Mask { begin: &begin, end: &end };
        let inputs =
            Inputs { heads, q: column(0), k: column(1), v: column(2), mask, bias: None, n_queries: tokens };
        let (mut out, mut lse) = (vec![0.0; tokens * WIDTH], vec![0.0; tokens * 12]);
        let name = format!("{shared} shared + {rows} x {len}");
        let mut group = c.benchmark_group("attention");
        group.sample_size(10);
        group.bench_function(BenchmarkId::new("forward", &name), |b| {
            b.iter(|| attention::forward(isa, inputs, &mut out, &mut lse));
        });
        let d_out = Rng(4).normals(tokens * WIDTH);
        let mut d_qkv = vec![0.0; tokens * 3 * WIDTH];
        group.bench_function(BenchmarkId::new("backward", &name), |b| {
            b.iter(|| {
                let upstream = Upstream { out: &out, lse: &lse, d_out: &d_out };
                let [d_q, d_k, d_v] = RowsMut::side_by_side(&mut d_qkv, [WIDTH; 3]);
                attention::backward(isa, inputs, upstream, Gradients { d_q, d_k, d_v });
            });
        });
    }
}

criterion_group!(benches, attention);
criterion_main!(benches);
