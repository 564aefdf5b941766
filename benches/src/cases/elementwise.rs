//! Sums of whole slices: the kernels that do nothing but move memory.

use kernels::Isa;
use kernels::elementwise::{self, reference};

use super::{ROWS, WIDTH, compare};
use crate::case::{Case, Kernel, Kind, Work};
use crate::data;

pub(super) fn cases() -> Vec<Case> {
    ROWS.into_iter().map(|rows| case(rows * WIDTH)).collect()
}

fn case(n: usize) -> Case {
    Case {
        kernel: "add",
        kind: Kind::Elementwise,
        shape: format!("{}x{WIDTH}", n / WIDTH),
        dtype: "f32",
        tiers: true,
        work: Work::f32(n, 2 * n, n),
        make: Box::new(move || {
            let [a, b] = [1, 2].map(|seed| data::normals(seed, n, 1.0));
            Box::new(Add { a, b, out: vec![f32::NAN; n] })
        }),
    }
}

struct Add {
    a: Vec<f32>,
    b: Vec<f32>,
    out: Vec<f32>,
}

impl Kernel for Add {
    fn run(&mut self, isa: Isa) {
        elementwise::add(isa, &self.a, &self.b, &mut self.out);
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        vec![&mut self.out]
    }

    fn check(&self) -> Result<(), String> {
        compare("sum", &self.out, &reference::add(&data::wide(&self.a), &data::wide(&self.b)), 1e-6)
    }
}
