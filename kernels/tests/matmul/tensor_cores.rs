//! The GPU's products on tensor cores: those of the factors rounded to bf16, in f32, in the cases of the other rungs and
//! at the edges of their own tiles.

use std::ops::Range;

use half::bf16;
use kernels::matmul::cuda::{self as on_gpu, Rung};
use kernels::matmul::reference;
use kernels::testing::Rng;
use prompt_tuning_kernels as kernels;

use crate::case::{Case, Dtype, LAYOUTS, Stored, abs, assert_bound, to_f64};
use crate::host::{Host, on_schedules, read, write};

/// A result of the reference, and the sums of the magnitudes of its terms.
pub(crate) struct Expected {
    pub(crate) result: Vec<f64>,
    pub(crate) scale: Vec<f64>,
}

/// What the factors are rounded to.
fn rounded(x: impl IntoIterator<Item = f64>) -> Vec<f64> {
    x.into_iter().map(|x| bf16::from_f32(x as f32).to_f64()).collect()
}

impl Case {
    /// Forward and backward on tensor cores are within the bound of the CPU's kernels, of the product of the rounded factors.
    pub(crate) fn check_tensor_cores(&self) {
        let Some(elements) = elements(&self.weight) else { return };
        let (out, d_x) = (self.of_rounded_factors(), self.gradient_of_rounded_factors());
        let (n_in, n_out) = (self.shape.n_in, self.shape.n_out);
        on_schedules(self.m ^ n_in << 10 ^ n_out << 20, |host| {
            let what = |name| format!("{name} {host:?} on tensor cores m={} {:?}", self.m, self.shape);
            let weight = self.on_tensor_cores(elements);
            let (y, of_x) = (self.forward_on(&host, weight), self.backward_on(&host, weight));
            assert_bound(&what("forward"), &y, &out.result, (&out.scale, n_in));
            assert_bound(&what("backward"), &of_x, &d_x.result, (&d_x.scale, n_out));
        });
    }

    pub(crate) fn on_tensor_cores<'a>(&self, elements: on_gpu::Elements<'a>) -> on_gpu::Weight<'a> {
        let reference::Shape { layout, n_in, n_out } = self.shape;
        on_gpu::Weight { elements, layout, n_in, n_out, rung: Rung::TensorCores }
    }

    fn forward_on(&self, host: &Host, weight: on_gpu::Weight) -> Vec<f32> {
        let (bias, residual) = (self.bias.as_deref().map(read), self.residual.as_deref().map(read));
        let mut y = vec![f32::NAN; self.m * self.shape.n_out];
        let epilogue = on_gpu::Epilogue { bias, residual };
        on_gpu::forward(host, read(&self.x), weight, epilogue, write(&mut y)).unwrap();
        y
    }

    fn backward_on(&self, host: &Host, weight: on_gpu::Weight) -> Vec<f32> {
        let mut d_x = vec![f32::NAN; self.m * self.shape.n_in];
        on_gpu::backward_input(host, read(&self.d_out), weight, write(&mut d_x)).unwrap();
        d_x
    }

    pub(crate) fn of_rounded_factors(&self) -> Expected {
        let (x, w) = (rounded(to_f64(&self.x)), rounded(self.weight.to_f64()));
        let (bias, residual) = (self.bias.as_deref().map(to_f64), self.residual.as_deref().map(to_f64));
        let product = |f: fn(&[f64]) -> Vec<f64>| {
            let mut out = vec![0.0; self.m * self.shape.n_out];
            let (bias, residual) = (bias.as_deref().map(f), residual.as_deref().map(f));
            let weight = (&f(&w)[..], self.shape);
            reference::forward(&f(&x), weight, bias.as_deref(), residual.as_deref(), &mut out);
            out
        };
        Expected { result: product(<[f64]>::to_vec), scale: product(abs) }
    }

    pub(crate) fn gradient_of_rounded_factors(&self) -> Expected {
        let (d_out, w) = (rounded(to_f64(&self.d_out)), rounded(self.weight.to_f64()));
        let product = |f: fn(&[f64]) -> Vec<f64>| {
            let mut d_x = vec![0.0; self.m * self.shape.n_in];
            reference::backward_input(&f(&d_out), (&f(&w), self.shape), &mut d_x);
            d_x
        };
        Expected { result: product(<[f64]>::to_vec), scale: product(abs) }
    }
}

/// As the GPU multiplies them, or `None`.
fn elements(weight: &Stored) -> Option<on_gpu::Elements<'_>> {
    match weight {
        Stored::F32(x) => Some(on_gpu::Elements::F32(read(x))),
        Stored::Bf16(x) => Some(on_gpu::Elements::Bf16(read(x))),
        Stored::F16(_) => None,
    }
}

/// Some of them.
pub(crate) fn part(weight: &Stored, range: Range<usize>) -> on_gpu::Elements<'_> {
    match elements(weight).expect("what a GPU multiplies") {
        on_gpu::Elements::F32(x) => on_gpu::Elements::F32(x.part(range)),
        on_gpu::Elements::Bf16(x) => on_gpu::Elements::Bf16(x.part(range)),
    }
}

const DTYPES: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];

fn check_all(sizes: impl IntoIterator<Item = (usize, usize, usize)>) {
    for (size, layout) in sizes.into_iter().flat_map(|size| LAYOUTS.map(|layout| (size, layout))) {
        for dtype in DTYPES {
            Case::new(size, layout, dtype, 23).check_tensor_cores();
        }
    }
}

#[test]
fn around_the_steps() {
    let edges = [8, 16, 24, 31, 32, 33, 40, 63, 64, 65, 96];
    check_all(edges.into_iter().flat_map(|s| [(13, s, 16), (13, 24, s)]));
}

#[test]
fn around_the_parts_of_a_warp_and_the_tile() {
    let edges = [31, 32, 33, 63, 64, 65, 127, 128, 129, 136];
    check_all(edges.into_iter().flat_map(|s| [(s, 16, 24), (11, 40, s), (11, s, 40)]));
    check_all([(129, 72, 136), (130, 33, 257)]);
}

/// Products that have other kernels: strips of 16, 32 and 64 columns, and groups of steps for each warp.
#[test]
fn few_rows() {
    let edges = [1, 8, 15, 16, 17, 63, 64, 65, 127, 128, 136, 264];
    check_all(edges.into_iter().flat_map(|s| [(1, s, 40), (8, 40, s), (3, s, 24)]));
}

/// More rows of tiles than a group of blocks has, and a last group that is lower.
#[test]
fn several_groups_of_tiles() {
    check_all([(9 * 128 + 1, 8, 130)]);
}

/// `x` with NaNs before it and after it.
pub(crate) fn among<T: Copy>(x: &[T], first: usize, nan: T) -> Vec<T> {
    [&vec![nan; first], x, &[nan; 8]].concat()
}

/// Slices that begin at each place between two vectors, where rows are whole vectors all the same.
#[test]
fn slices_that_begin_anywhere() {
    for (first, layout) in (0..8).flat_map(|first| LAYOUTS.map(|layout| (first, layout))) {
        for dtype in DTYPES {
            // of few rows, and of more
            for m in [5, 13] {
                let mut case = Case::new((m, 40, 48), layout, dtype, 29);
                let mut rng = Rng(31);
                (case.bias, case.residual) = (Some(rng.normals(48)), Some(rng.normals(m * 48)));
                check_slices(&case, first);
            }
        }
    }
}

fn check_slices(case: &Case, first: usize) {
    let (expected, n) = (case.of_rounded_factors(), case.weight.elements().len());
    let weight = match &case.weight {
        Stored::F32(x) => Stored::F32(among(x, first, f32::NAN)),
        Stored::F16(_) => unreachable!("not on a GPU"),
        Stored::Bf16(x) => Stored::Bf16(among(x, first, bf16::NAN)),
    };
    let elements = part(&weight, first..first + n);
    let inner = |x: &Option<Vec<f32>>| x.as_deref().map(|x| (among(x, first, f32::NAN), x.len()));
    let (bias, residual) = (inner(&case.bias), inner(&case.residual));
    let x = among(&case.x, first, f32::NAN);
    on_schedules(first, |host| {
        let [bias, residual] =
            [&bias, &residual].map(|x| x.as_ref().map(|(x, n)| read(&x[first..first + n])));
        let mut y = vec![f32::NAN; first + expected.result.len() + 8];
        let out = write(&mut y[first..first + expected.result.len()]);
        let (x, epilogue) = (read(&x[first..first + case.x.len()]), on_gpu::Epilogue { bias, residual });
        on_gpu::forward(&host, x, case.on_tensor_cores(elements), epilogue, out).unwrap();
        let (before, rest) = y.split_at(first);
        let (y, after) = rest.split_at(expected.result.len());
        let what = format!("{host:?} {:?} from {first}", case.shape);
        assert_bound(&what, y, &expected.result, (&expected.scale, case.shape.n_in));
        assert!(before.iter().chain(after).all(|x| x.is_nan()), "{what}: written outside");
    });
}
