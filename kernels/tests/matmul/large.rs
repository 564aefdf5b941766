//! Products so large that the blocked path cuts them: several blocks of rows, which share a packed strip of `B`, and
//! several pieces of `A`. Some numbers of each are compared, because the reference is slow.

use half::bf16;
use kernels::matmul::{Epilogue, Precision, Weight, forward};
use kernels::testing::Rng;
use prompt_tuning_kernels::{self as kernels, Isa};

use crate::case::{Case, DTYPES, Dtype, LAYOUTS, assert_bound};

/// The sampled places of a product, and what is there.
struct Sample {
    /// Row and column.
    at: Vec<(usize, usize)>,
    expected: Vec<f64>,
    /// Sums of the magnitudes of the terms.
    scale: Vec<f64>,
}

impl Sample {
    /// About 400 places: the corners, and others that a seed chooses.
    fn new(case: &Case, precision: Precision) -> Sample {
        let (m, n) = (case.m, case.shape.n_out);
        let mut rng = Rng(m as u64);
        let mut pick = |n: usize, count| {
            let inner: Vec<usize> = (0..count).map(|_| rng.below(n)).collect();
            [vec![0, n - 1], inner].concat()
        };
        let (rows, columns) = (pick(m, 38), pick(n, 8));
        let at: Vec<_> = rows.iter().flat_map(|&r| columns.iter().map(move |&o| (r, o))).collect();
        let w = case.weight.to_f64();
        let (expected, scale) = at.iter().map(|&at| number(case, &w, precision, at)).unzip();
        Sample { at, expected, scale }
    }

    fn check(&self, what: &str, out: &[f32], case: &Case) {
        assert!(out.iter().all(|x| x.is_finite()), "{what}: something was not written");
        let n = case.shape.n_out;
        let actual: Vec<f32> = self.at.iter().map(|&(r, o)| out[r * n + o]).collect();
        assert_bound(what, &actual, &self.expected, (&self.scale, case.shape.n_in));
    }
}

/// One number of the product, and the sum of the magnitudes of its terms.
fn number(case: &Case, w: &[f64], precision: Precision, (r, o): (usize, usize)) -> (f64, f64) {
    let factor = |x: f64| match precision {
        Precision::F32 => x,
        Precision::Bf16 => bf16::from_f32(x as f32).to_f64(),
    };
    let (n_in, n_out) = (case.shape.n_in, case.shape.n_out);
    let row = &case.x[r * n_in..(r + 1) * n_in];
    let products =
        row.iter().enumerate().map(|(i, &x)| factor(f64::from(x)) * factor(w[case.shape.index(i, o)]));
    let added = [case.bias.as_ref().map(|b| b[o]), case.residual.as_ref().map(|x| x[r * n_out + o])];
    let terms = products.chain(added.into_iter().flatten().map(f64::from));
    terms.fold((0.0, 0.0), |(sum, scale), x| (sum + x, scale + x.abs()))
}

/// Every weight layout, dtype, precision and instruction set; with bias and residual, which the pieces take their part
/// of. On one thread a task has all rows, on any machine: that is when there are several blocks. On three, rows may be
/// shared out, and no bit may change.
fn check(size: (usize, usize, usize), dtypes: &[Dtype]) {
    let pools = [1, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a pool"));
    for (layout, &dtype) in LAYOUTS.into_iter().flat_map(|layout| dtypes.iter().map(move |d| (layout, d))) {
        let mut case = Case::new(size, layout, dtype, 17);
        let mut rng = Rng(19);
        case.bias = Some(rng.normals(size.2));
        case.residual = Some(rng.normals(size.0 * size.2));
        for precision in [Precision::F32, Precision::Bf16] {
            let sample = Sample::new(&case, precision);
            for isa in Isa::available() {
                let what = format!("{} {size:?} {dtype:?} {layout:?} {precision:?}", isa.name());
                let [alone, shared] =
                    pools.each_ref().map(|pool| pool.install(|| product(&case, precision, isa)));
                sample.check(&what, &alone, &case);
                assert!(alone == shared, "{what}: the number of threads changes bits");
            }
        }
    }
}

fn product(case: &Case, precision: Precision, isa: Isa) -> Vec<f32> {
    let mut out = vec![f32::NAN; case.m * case.shape.n_out];
    let epilogue = Epilogue { bias: case.bias.as_deref(), residual: case.residual.as_deref() };
    forward(isa, &case.x, Weight { precision, ..case.weight() }, epilogue, &mut out);
    out
}

#[test]
fn several_blocks_of_rows() {
    check((400, 800, 100), &DTYPES);
    check((830, 768, 70), &DTYPES);
}

#[test]
fn several_pieces_of_the_input() {
    // 6000 rows of 768 are more than 2^22 numbers
    check((6000, 768, 33), &[Dtype::F32]);
}
