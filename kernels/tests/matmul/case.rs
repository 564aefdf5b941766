//! One product with its data, and the bound it is held to.

use half::{bf16, f16};
use kernels::matmul::reference::{self, Shape};
use kernels::matmul::{
    Elements, Epilogue, Layout, Precision, Weight, backward_input, backward_weight, forward,
};
use kernels::testing::{self, Rng};
use prompt_tuning_kernels::{self as kernels, Isa};

#[cfg(feature = "cuda")]
use crate::host::{on_schedules, read, write};
#[cfg(feature = "cuda")]
use kernels::matmul::cuda as on_gpu;

pub(crate) const LAYOUTS: [Layout; 2] = [Layout::OutIn, Layout::InOut];

#[derive(Clone, Copy, Debug)]
pub(crate) enum Dtype {
    F32,
    F16,
    Bf16,
}

pub(crate) const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

/// Numbers stored as one dtype.
pub(crate) enum Stored {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Stored {
    pub(crate) fn new(dtype: Dtype, x: &[f32]) -> Stored {
        match dtype {
            Dtype::F32 => Stored::F32(x.to_vec()),
            Dtype::F16 => Stored::F16(x.iter().map(|&x| f16::from_f32(x)).collect()),
            Dtype::Bf16 => Stored::Bf16(x.iter().map(|&x| bf16::from_f32(x)).collect()),
        }
    }

    pub(crate) fn elements(&self) -> Elements<'_> {
        match self {
            Stored::F32(x) => Elements::F32(x),
            Stored::F16(x) => Elements::F16(x),
            Stored::Bf16(x) => Elements::Bf16(x),
        }
    }

    pub(crate) fn to_f64(&self) -> Vec<f64> {
        match self {
            Stored::F32(x) => to_f64(x),
            Stored::F16(x) => x.iter().map(|x| x.to_f64()).collect(),
            Stored::Bf16(x) => x.iter().map(|x| x.to_f64()).collect(),
        }
    }
}

pub(crate) fn to_f64(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

pub(crate) fn abs(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x.abs()).collect()
}

/// One problem with its data.
pub(crate) struct Case {
    pub(crate) m: usize,
    pub(crate) shape: Shape,
    pub(crate) weight: Stored,
    pub(crate) x: Vec<f32>,
    pub(crate) d_out: Vec<f32>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) residual: Option<Vec<f32>>,
}

impl Case {
    pub(crate) fn new(
        (m, n_in, n_out): (usize, usize, usize),
        layout: Layout,
        dtype: Dtype,
        seed: u64,
    ) -> Case {
        let mut rng = Rng(seed ^ ((m * 1009 + n_in) * 1013 + n_out) as u64);
        let weight = Stored::new(dtype, &rng.normals(n_in * n_out));
        let (x, d_out) = (rng.normals(m * n_in), rng.normals(m * n_out));
        let bias = (rng.below(2) == 0).then(|| rng.normals(n_out));
        let residual = (rng.below(2) == 0).then(|| rng.normals(m * n_out));
        Case { m, shape: Shape { layout, n_in, n_out }, weight, x, d_out, bias, residual }
    }

    pub(crate) fn weight(&self) -> Weight<'_> {
        let Shape { layout, n_in, n_out } = self.shape;
        Weight { elements: self.weight.elements(), layout, n_in, n_out, precision: Precision::F32 }
    }

    pub(crate) fn forward(&self, isa: Isa) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.m * self.shape.n_out];
        let epilogue = Epilogue { bias: self.bias.as_deref(), residual: self.residual.as_deref() };
        forward(isa, &self.x, self.weight(), epilogue, &mut out);
        out
    }

    pub(crate) fn backward(&self, isa: Isa) -> Vec<f32> {
        let mut d_x = vec![f32::NAN; self.m * self.shape.n_in];
        backward_input(isa, &self.d_out, self.weight(), &mut d_x);
        d_x
    }

    /// Forward and backward of every instruction set are within `(k + 3) eps Σ|a||b|` of the f64 reference: the bound
    /// of a sum of `k` products and two more terms in any order.
    pub(crate) fn check(&self) {
        let (w, shape) = (self.weight.to_f64(), self.shape);
        let (bias, residual) = (self.bias.as_deref().map(to_f64), self.residual.as_deref().map(to_f64));
        let ref_forward = |f: fn(&[f64]) -> Vec<f64>| {
            let mut out = vec![0.0; self.m * shape.n_out];
            let (bias, residual) = (bias.as_deref().map(f), residual.as_deref().map(f));
            reference::forward(
                &f(&to_f64(&self.x)),
                (&f(&w), shape),
                bias.as_deref(),
                residual.as_deref(),
                &mut out,
            );
            out
        };
        let ref_backward = |f: fn(&[f64]) -> Vec<f64>| {
            let mut d_x = vec![0.0; self.m * shape.n_in];
            reference::backward_input(&f(&to_f64(&self.d_out)), (&f(&w), shape), &mut d_x);
            d_x
        };
        let ref_weight = |f: fn(&[f64]) -> Vec<f64>| {
            let mut d_w = vec![0.0; shape.n_in * shape.n_out];
            reference::backward_weight(&f(&to_f64(&self.x)), &f(&to_f64(&self.d_out)), shape, &mut d_w);
            d_w
        };
        let (out, out_scale) = (ref_forward(<[f64]>::to_vec), ref_forward(abs));
        let (d_w, d_w_scale) = (ref_weight(<[f64]>::to_vec), ref_weight(abs));
        let (d_x, d_x_scale) = (ref_backward(<[f64]>::to_vec), ref_backward(abs));
        #[cfg(feature = "cuda")]
        {
            self.check_on_the_gpu((&out, &out_scale), (&d_x, &d_x_scale), (&d_w, &d_w_scale));
            self.check_tensor_cores();
        }
        for isa in Isa::available() {
            let what = |name| format!("{name} {} m={} {shape:?}", isa.name(), self.m);
            assert_bound(&what("forward"), &self.forward(isa), &out, (&out_scale, shape.n_in));
            assert_bound(&what("backward"), &self.backward(isa), &d_x, (&d_x_scale, shape.n_out));
            let mut of_weight = vec![f32::NAN; d_w.len()];
            backward_weight(isa, (&self.x, &self.d_out), shape, None, &mut of_weight);
            assert_bound(&what("of the weight"), &of_weight, &d_w, (&d_w_scale, self.m));
            let mut twice = vec![f32::NAN; d_w.len()];
            backward_weight(isa, (&self.x, &self.d_out), shape, Some(&of_weight), &mut twice);
            let [sum, scale] = [&d_w, &d_w_scale].map(|d| d.iter().map(|d| 2.0 * d).collect::<Vec<_>>());
            assert_bound(&what("of the weight, added"), &twice, &sum, (&scale, self.m));
        }
    }
}

#[cfg(feature = "cuda")]
impl Case {
    /// Forward and backward of the GPU's kernels are within the bound of the CPU's: they are sums of the same products.
    fn check_on_the_gpu(
        &self,
        out: (&[f64], &[f64]),
        d_x: (&[f64], &[f64]),
        (d_w, d_w_scale): (&[f64], &[f64]),
    ) {
        let Shape { layout, n_in, n_out } = self.shape;
        let elements = match &self.weight {
            Stored::F32(x) => on_gpu::Elements::F32(read(x)),
            Stored::Bf16(x) => on_gpu::Elements::Bf16(read(x)),
            // what the GPU multiplies is widened when it is brought there
            Stored::F16(_) => return,
        };
        // another random schedule for another case
        let case = self.m ^ n_in << 10 ^ n_out << 20;
        let twice = [d_w, d_w_scale].map(|d| d.iter().map(|d| 2.0 * d).collect::<Vec<_>>());
        on_schedules(case, |host| {
            let what = |name| format!("{name} {host:?} m={} {:?}", self.m, self.shape);
            let of_weight = |before: Option<&[f32]>| {
                let factor = if layout == Layout::OutIn { &self.d_out } else { &self.x };
                let (mut turned, mut d_w) = (vec![f32::NAN; factor.len()], vec![f32::NAN; n_in * n_out]);
                let (both, into) =
                    ([&self.x, &self.d_out].map(|x| read(x)), (before.map(read), write(&mut d_w)));
                on_gpu::backward_weight(&host, both, self.shape, write(&mut turned), into).unwrap();
                d_w
            };
            let once = of_weight(None);
            assert_bound(&what("of the weight"), &once, d_w, (d_w_scale, self.m));
            assert_bound(
                &what("of the weight, added"),
                &of_weight(Some(&once)),
                &twice[0],
                (&twice[1], self.m),
            );
            for rung in RUNGS {
                let what = |name| format!("{name} {host:?} {rung:?} m={} {:?}", self.m, self.shape);
                let w = on_gpu::Weight { elements, layout, n_in, n_out, rung };
                let (bias, residual) = (self.bias.as_deref().map(read), self.residual.as_deref().map(read));
                let mut y = vec![f32::NAN; self.m * n_out];
                on_gpu::forward(&host, read(&self.x), w, on_gpu::Epilogue { bias, residual }, write(&mut y))
                    .unwrap();
                assert_bound(&what("forward"), &y, out.0, (out.1, n_in));
                let mut of_x = vec![f32::NAN; self.m * n_in];
                on_gpu::backward_input(&host, read(&self.d_out), w, write(&mut of_x)).unwrap();
                assert_bound(&what("backward"), &of_x, d_x.0, (d_x.1, n_out));
            }
        });
    }
}

#[cfg(feature = "cuda")]
const RUNGS: [on_gpu::Rung; 2] = [on_gpu::Rung::Naive, on_gpu::Rung::Tiled];

/// `|actual - expected| <= (k + 3) eps scale`, through [`testing::close`] in units of the bound.
pub(crate) fn assert_bound(what: &str, actual: &[f32], expected: &[f64], (scale, k): (&[f64], usize)) {
    let unit = |i: usize| (k + 3) as f64 * f64::from(f32::EPSILON) * scale[i] + f64::MIN_POSITIVE;
    assert_eq!(actual.len(), expected.len(), "{what}");
    if k == 0 && expected.iter().all(|&e| e == 0.0) {
        assert!(actual.iter().all(|&a| a == 0.0), "{what}: an empty sum is zero");
        return;
    }
    let in_units = |x: f64, i: usize| x / unit(i);
    let actual: Vec<f64> = actual.iter().enumerate().map(|(i, &a)| in_units(f64::from(a), i)).collect();
    let expected: Vec<f64> = expected.iter().enumerate().map(|(i, &e)| in_units(e, i)).collect();
    testing::close(&actual, &expected, testing::Tolerance { absolute: 1.0, relative: 0.0 })
        .unwrap_or_else(|e| panic!("{what}: {e} (in units of the error bound)"));
}
