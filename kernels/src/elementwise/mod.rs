//! Sums and scalings of whole slices.
//!
//! ```text
//! add    out = a + b          backward: d_a = d_b = d_out, for which no kernel is needed
//! scale  out = factor x       backward: d_x = factor d_out, the same kernel
//! ```
//! and sums over rows: the gradient of what was added to every row (a bias).

#[cfg(feature = "cuda")]
pub mod cuda;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::{
    Elements, Isa,
    blocks::Widen,
    simd::{Simd, SimdOp},
    slices::{Added, RowStep, Step, TASK, map, n_rows, run_all, run_map, sum_rows},
};

/// `out = a + b`
///
/// Panics when the lengths differ.
pub fn add(isa: Isa, a: &[f32], b: &[f32], out: &mut [f32]) {
    run_map(isa, Sum, [a, b], [out]);
}

#[derive(Clone, Copy)]
struct Sum;

impl Step<2, 1> for Sum {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [a, b]: [S::V; 2], _: [S::V; 1]) -> [S::V; 1] {
        [s.add(a, b)]
    }
}

/// `acc += x`: the tape uses it to sum gradients.
///
/// Panics when the lengths differ.
pub fn accumulate(isa: Isa, x: &[f32], acc: &mut [f32]) {
    run_map(isa, Added(Scaled(1.0)), [x], [acc]);
}

/// `out = factor * x`
///
/// Panics when the lengths differ.
pub fn scale(isa: Isa, factor: f32, x: &[f32], out: &mut [f32]) {
    run_map(isa, Scaled(factor), [x], [out]);
}

#[derive(Clone, Copy)]
struct Scaled(f32);

impl Step<1, 1> for Scaled {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [x]: [S::V; 1], _: [S::V; 1]) -> [S::V; 1] {
        [s.mul(x, s.splat(self.0))]
    }
}

/// `out[C] = Σ_t x[t, C]`, in an order that does not depend on the threads.
///
/// Panics when `x` is no whole rows of `C = out.len()`.
pub fn sum_of_rows(isa: Isa, x: &[f32], out: &mut [f32]) {
    let width = out.len();
    sum_rows(isa, Rows { x, width }, n_rows(x.len(), width), [out]);
}

#[derive(Clone, Copy)]
struct Rows<'a> {
    x: &'a [f32],
    width: usize,
}

impl RowStep<1> for Rows<'_> {
    #[inline(always)]
    fn add<S: Simd>(self, s: S, row: usize, sums: [&mut [f32]; 1]) {
        map(s, Added(Scaled(1.0)), [&self.x[row * self.width..][..self.width]], sums);
    }
}

/// `out = x` widened to f32.
///
/// Panics when the lengths differ.
pub fn widen(isa: Isa, x: Elements, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "x and out");
    match x {
        Elements::F32(x) => out.copy_from_slice(x),
        Elements::Blocks(blocks) => {
            let tasks = out.chunks_mut(TASK).enumerate();
            run_all(isa, tasks.map(|(i, out)| Widen { blocks, from: i * TASK, out }))
        }
        Elements::F16(x) => {
            run_all(isa, x.chunks(TASK).zip(out.chunks_mut(TASK)).map(|(x, out)| WidenF16(x, out)))
        }
        Elements::Bf16(x) => {
            run_all(isa, x.chunks(TASK).zip(out.chunks_mut(TASK)).map(|(x, out)| WidenBf16(x, out)))
        }
    }
}

struct WidenF16<'a>(&'a [f16], &'a mut [f32]);
struct WidenBf16<'a>(&'a [bf16], &'a mut [f32]);

macro_rules! widen {
    ($op:ident, $load:ident) => {
        impl SimdOp for $op<'_> {
            type Output = ();

            #[inline(always)]
            fn eval<S: Simd>(self, s: S) {
                let $op(x, out) = self;
                let whole = x.len() - x.len() % S::LANES;
                for i in (0..whole).step_by(S::LANES) {
                    s.store(s.$load(&x[i..]), &mut out[i..]);
                }
                for (x, out) in x[whole..].iter().zip(&mut out[whole..]) {
                    *out = x.to_f32();
                }
            }
        }
    };
}
widen!(WidenF16, load_f16);
widen!(WidenBf16, load_bf16);

/// `Σ x²` in f64, in a fixed order.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let parts: Vec<f64> = match x.len() {
        0..=TASK => vec![sum_of_squares_of_chunk(x)],
        _ => x.par_chunks(TASK).map(sum_of_squares_of_chunk).collect(),
    };
    parts.iter().sum()
}

/// Eight sums side by side, so that the additions need not wait for each other.
fn sum_of_squares_of_chunk(x: &[f32]) -> f64 {
    let mut sums = [0f64; 8];
    for x in x.chunks(8) {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    sums.iter().sum()
}

/// The specification.
pub mod reference {
    use crate::real::Real;

    /// `a + b`
    pub fn add<R: Real>(a: &[R], b: &[R]) -> Vec<R> {
        a.iter().zip(b).map(|(&a, &b)| a + b).collect()
    }

    /// `factor * x`
    pub fn scale<R: Real>(factor: R, x: &[R]) -> Vec<R> {
        x.iter().map(|&x| factor * x).collect()
    }

    /// `d_x` of [`scale`].
    pub fn scale_backward<R: Real>(factor: R, d_out: &[R]) -> Vec<R> {
        // in the forward pass this was factor * x
        d_out.iter().map(|&d| factor * d).collect()
    }

    /// `Σ x²`
    pub fn sum_of_squares<R: Real>(x: &[R]) -> R {
        let mut sum = R::from_f64(0.0);
        for &x in x {
            sum += x * x;
        }
        sum
    }
}
