//! Sums and scalings of whole slices: the kernels that do nothing but move memory.

use kernels::Isa;
use kernels::elementwise::{self, reference};

use super::{ROWS, WIDTH, compare};
use crate::case::{Case, Kernel, Kind, Work};
use crate::data;

const FACTOR: f32 = 0.7;

#[derive(Clone, Copy, PartialEq)]
enum Which {
    Add,
    Accumulate,
    Scale,
    SumOfRows,
}
use Which::{Accumulate, Add, Scale, SumOfRows};

/// Kernel, and how many arrays it reads.
const KERNELS: [(&str, Which, usize); 4] =
    [("add", Add, 2), ("accumulate", Accumulate, 2), ("scale", Scale, 1), ("sum of rows", SumOfRows, 1)];

pub(super) fn cases() -> Vec<Case> {
    ROWS.into_iter().flat_map(|rows| KERNELS.map(|kernel| case(kernel, rows * WIDTH))).collect()
}

fn case((kernel, which, arrays): (&'static str, Which, usize), n: usize) -> Case {
    let written = if which == SumOfRows { WIDTH } else { n };
    Case {
        kernel,
        kind: Kind::Elementwise,
        shape: format!("{}x{WIDTH}", n / WIDTH),
        dtype: "f32",
        tiers: true,
        work: Work::f32(n, arrays * n, written),
        make: Box::new(move || {
            let a = data::normals(1, n, 1.0);
            let b = data::normals(2, if arrays == 2 { n } else { 0 }, 1.0);
            Box::new(Elementwise { which, a, b, out: vec![f32::NAN; written] })
        }),
    }
}

struct Elementwise {
    which: Which,
    a: Vec<f32>,
    /// The second summand; of an accumulation what is there before.
    b: Vec<f32>,
    out: Vec<f32>,
}

impl Kernel for Elementwise {
    fn run(&mut self, isa: Isa) {
        let Elementwise { which, a, b, out } = self;
        match which {
            Add => elementwise::add(isa, a, b, out),
            Accumulate => elementwise::accumulate(isa, a, out),
            Scale => elementwise::scale(isa, FACTOR, a, out),
            SumOfRows => elementwise::sum_of_rows(isa, a, out),
        }
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        if self.which == Accumulate {
            self.out.clone_from(&self.b);
            return Vec::new();
        }
        vec![&mut self.out]
    }

    fn check(&self) -> Result<(), String> {
        let a = data::wide(&self.a);
        let (expected, tolerance) = match self.which {
            Add | Accumulate => (reference::add(&a, &data::wide(&self.b)), 1e-6),
            Scale => (reference::scale(f64::from(FACTOR), &a), 1e-6),
            // thousands of numbers of size one
            SumOfRows => (sum_of_rows(&a), 1e-3),
        };
        compare("result", &self.out, &expected, tolerance)
    }
}

fn sum_of_rows(x: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; WIDTH];
    for row in x.chunks_exact(WIDTH) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    sums
}
