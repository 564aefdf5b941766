//! How near the kernels come to the machine's limits: one table, limits and peers measured in the same run.
//!
//! `cargo run --release -p prompt-tuning-benches --bin roofline`

use half::bf16;
use kernels::Isa;
use kernels::attention::{self, Heads, Inputs, Mask, Rows};
use kernels::layer_norm::{self, Affine};
use kernels::matmul::{Elements, Epilogue, Layout, Weight, forward};
use kernels::testing::Rng;
use prompt_tuning_benches::peers::{self, Product};
use prompt_tuning_benches::{FEW_ROWS, MATMULS, best_of, limits};

fn main() {
    let bandwidth = limits::read_bandwidth();
    println!("{} threads, {bandwidth:.1} GB/s read from memory", rayon::current_num_threads());
    for isa in Isa::available().into_iter().rev() {
        let peak = limits::fma_peak(isa);
        println!("\n{}: {peak:.0} GFLOP/s peak", isa.name());
        println!(
            "{:>20} {:>16} {:>16} {:>16} {:>10} {:>10}",
            "m x k x n", "f32 [out,in]", "f32 [in,out]", "bf16 [out,in]", "gemm", "mmul"
        );
        MATMULS.iter().chain(&FEW_ROWS).for_each(|&shape| matmul_line(isa, shape, peak, bandwidth));
    }
    let isa = Isa::best();
    let peak = limits::fma_peak(isa);
    println!("\nattention, 12 heads of 64, causal ({})", isa.name());
    for (rows, len) in [(32, 45), (8, 128), (1, 1024), (1, 4096)] {
        attention_line(isa, rows, len, peak);
    }
    println!("\nlayer norm, 16384 rows of 768 ({})", isa.name());
    layer_norm_line(isa, bandwidth);
}

fn matmul_line(isa: Isa, (m, k, n): (usize, usize, usize), peak: f64, bandwidth: f64) {
    let (x, w) = (Rng(1).normals(m * k), Rng(2).normals(n * k));
    let narrow: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
    let mut out = vec![0.0; m * n];
    let flops = (2 * m * k * n) as f64;
    let repeats = (2e10 / flops).clamp(3.0, 100.0) as usize;
    let mut cell = |elements, layout| {
        let weight = Weight { elements, layout, n_in: k, n_out: n };
        let seconds = best_of(repeats, || forward(isa, &x, weight, Epilogue::default(), &mut out));
        // the slower of arithmetic and of reading the weight once is what is possible
        let bytes = (k * n) as f64 * if matches!(elements, Elements::F32(_)) { 4.0 } else { 2.0 };
        let possible = (flops / peak).max(if m <= 32 { bytes / bandwidth } else { 0.0 }) / 1e9;
        format!("{:7.1} ({:3.0} %)", flops / seconds / 1e9, 100.0 * possible / seconds)
    };
    let cells = [
        cell(Elements::F32(&w), Layout::OutIn),
        cell(Elements::F32(&w), Layout::InOut),
        cell(Elements::Bf16(&narrow), Layout::OutIn),
    ];
    let p = Product { m, k, n, x: &x, w: &w };
    let mut peer = |run: fn(Product, &mut [f32])| flops / best_of(repeats, || run(p, &mut out)) / 1e9;
    let (gemm, mmul) = (peer(peers::gemm), peer(peers::matrixmultiply));
    let shape = format!("{m} x {k} x {n}");
    println!("{shape:>20} {:>16} {:>16} {:>16} {gemm:>10.1} {mmul:>10.1}", cells[0], cells[1], cells[2]);
}

fn attention_line(isa: Isa, rows: usize, len: usize, peak: f64) {
    let heads = Heads { n_heads: 12, n_kv_heads: 12, head_dim: 64, scale: 0.125 };
    let (tokens, width) = (rows * len, 768);
    let qkv = Rng(3).normals(tokens * 3 * width);
    let begin: Vec<u32> = (0..tokens as u32).collect();
    let end: Vec<u32> = (0..tokens).map(|t| ((t / len + 1) * len) as u32).collect();
    let column = |i: usize| Rows { data: &qkv[i * width..], stride: 3 * width };
    let mask = Mask { begin: &begin, end: &end };
    let inputs = Inputs { heads, q: column(0), k: column(1), v: column(2), mask, n_queries: tokens };
    let (mut out, mut lse) = (vec![0.0; tokens * width], vec![0.0; tokens * 12]);
    let seconds = best_of(5, || attention::forward(isa, inputs, &mut out, &mut lse));
    let pairs = (rows * len * (len + 1) / 2) as f64;
    let gflops = pairs * 12.0 * 64.0 * 4.0 / seconds / 1e9;
    println!(
        "{rows:3} rows of {len:4}: {:8.2} ms, {gflops:6.1} GFLOP/s of visible pairs ({:.0} % of peak)",
        seconds * 1e3,
        100.0 * gflops / peak
    );
}

fn layer_norm_line(isa: Isa, bandwidth: f64) {
    let (rows, width) = (16384, 768);
    let x = Rng(4).normals(rows * width);
    let (weight, bias) = (Rng(5).normals(width), Rng(6).normals(width));
    let (mut y, mut mean, mut rstd) = (vec![0.0; rows * width], vec![0.0; rows], vec![0.0; rows]);
    let affine = Affine { weight: &weight, bias: &bias, eps: 1e-5 };
    let seconds = best_of(5, || layer_norm::forward(isa, &x, affine, &mut y, &mut mean, &mut rstd));
    let gb = (2 * rows * width * 4) as f64 / seconds / 1e9;
    println!("{gb:.1} GB/s read and written ({:.0} % of reading alone)", 100.0 * gb / bandwidth);
}
