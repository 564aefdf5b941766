//! How fast are the matrix products here? Prints, in one run, the multiply-add peak of this machine and GFLOP/s of
//! every instruction set, dtype and layout at the shapes of GPT-2.
//!
//! `cargo run --release -p prompt-tuning-kernels --example gemm_speed [part of an instruction set's name] [m,k,n]`

use std::time::Instant;

use half::{bf16, f16};
use kernels::Isa;
use kernels::matmul::{Elements, Epilogue, Layout, Weight, forward};
use kernels::simd::{Simd, SimdOp};
use kernels::testing::Rng;
use prompt_tuning_kernels as kernels;
use rayon::prelude::*;

const SHAPES: [(usize, usize, usize); 8] = [
    (820, 768, 2304),
    (820, 768, 768),
    (820, 768, 3072),
    (820, 3072, 768),
    (32, 768, 50257),
    (8, 768, 3072),
    (1, 768, 3072),
    (1, 768, 50257),
];

/// Twelve independent chains of multiply-adds that stay in registers. Short, to fit between other programs.
struct Peak;

const CHAINS: usize = 12;
const STEPS: usize = 100_000;

impl SimdOp for Peak {
    type Output = f32;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> f32 {
        let x = s.splat(std::hint::black_box(0.999));
        let mut sums = [x; CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = s.mul_add(*sum, x, x);
            }
        }
        let mut total = 0.0;
        for sum in sums {
            total += s.sum(sum);
        }
        std::hint::black_box(total)
    }
}

fn lanes(isa: Isa) -> usize {
    struct Lanes;
    impl SimdOp for Lanes {
        type Output = usize;
        #[inline(always)]
        fn eval<S: Simd>(self, _: S) -> usize {
            S::LANES
        }
    }
    isa.run(Lanes)
}

fn best_seconds(repeats: usize, mut work: impl FnMut()) -> f64 {
    let time = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..repeats).map(|_| time(&mut work)).fold(f64::INFINITY, f64::min)
}

fn peak(isa: Isa) -> f64 {
    let threads = rayon::current_num_threads();
    let seconds = best_seconds(200, || {
        (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
            isa.run(Peak);
        })
    });
    (2 * CHAINS * STEPS * lanes(isa) * threads) as f64 / seconds / 1e9
}

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let shapes = std::env::args().nth(2).map_or(SHAPES.to_vec(), |shape| vec![parse(&shape)]);
    println!("{} threads", rayon::current_num_threads());
    for isa in Isa::available().into_iter().filter(|isa| isa.name().contains(&filter)) {
        let peak = peak(isa);
        println!("{}: peak {peak:.0} GFLOP/s", isa.name());
        for &shape in &shapes {
            report(isa, shape, peak);
        }
    }
}

fn parse(shape: &str) -> (usize, usize, usize) {
    let sizes: Vec<usize> = shape.split(',').filter_map(|x| x.parse().ok()).collect();
    let [m, k, n] = sizes[..] else { panic!("a shape is m,k,n, not {shape}") };
    (m, k, n)
}

fn report(isa: Isa, (m, k, n): (usize, usize, usize), peak: f64) {
    let mut rng = Rng(1);
    let (x, w) = (rng.normals(m * k), rng.normals(k * n));
    let w_bf16: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
    let w_f16: Vec<f16> = w.iter().map(|&w| f16::from_f32(w)).collect();
    let mut out = vec![0.0; m * n];
    let flops = (2 * m * k * n) as f64;
    let repeats = (6e10 / flops).clamp(5.0, 500.0) as usize;
    print!("  {m:4} x {k:4} x {n:5} ");
    for (dtype, elements, bytes) in [
        ("f32", Elements::F32(&w), 4),
        ("bf16", Elements::Bf16(&w_bf16), 2),
        ("f16", Elements::F16(&w_f16), 2),
    ] {
        for layout in [Layout::OutIn, Layout::InOut] {
            let weight = Weight { elements, layout, n_in: k, n_out: n };
            let seconds = best_seconds(repeats, || forward(isa, &x, weight, Epilogue::default(), &mut out));
            let gflops = flops / seconds / 1e9;
            if m <= 8 {
                print!(" | {dtype} {layout:?} {:5.1} GB/s", (k * n * bytes) as f64 / seconds / 1e9);
            } else {
                print!(" | {dtype} {layout:?} {gflops:5.1} {:3.0}%", 100.0 * gflops / peak);
            }
        }
    }
    println!();
}
