//! Rows of a table of embeddings, widened to f32; and of a whole array, which trains weights that are stored as f16 or bf16.
//!
//! One operation per number. A row of the table is as far away as the table is large.

use kernels::{Isa, elementwise, embedding};

use super::{ROWS, VOCAB, WIDTH};
use crate::case::{Case, Kernel, Kind, Work};
use crate::ceilings::Arithmetic;
use crate::data::{self, Dtype, Numbers};

pub(super) fn cases() -> Vec<Case> {
    let looked_up = Dtype::ALL.map(|dtype| case("embedding", ROWS[0], dtype));
    let widened = ROWS.into_iter().flat_map(|rows| Dtype::ALL.map(|dtype| case("widen", rows, dtype)));
    looked_up.into_iter().chain(widened).collect()
}

fn case(kernel: &'static str, rows: usize, dtype: Dtype) -> Case {
    let (n, whole) = (rows * WIDTH, kernel == "widen");
    Case {
        kernel,
        kind: Kind::Elementwise,
        shape: format!("{rows}x{WIDTH}"),
        dtype: dtype.name(),
        tiers: whole,
        work: Work { arithmetic: Arithmetic::F32, flops: n as f64, read: dtype.size() * n, written: 4 * n },
        make: Box::new(move || {
            let n_table = if whole { n } else { VOCAB * WIDTH };
            // far apart, in no order
            let row = |i: usize| i * 7919 % VOCAB;
            Box::new(Widened {
                table: Numbers::round(data::normals(1, n_table, 1.0), dtype),
                rows: if whole { Vec::new() } else { (0..rows).map(row).collect() },
                out: vec![f32::NAN; n],
            })
        }),
    }
}

struct Widened {
    table: Numbers,
    /// The rows that are looked up; all of it, if there are none.
    rows: Vec<usize>,
    out: Vec<f32>,
}

impl Kernel for Widened {
    fn run(&mut self, isa: Isa) {
        if self.rows.is_empty() {
            elementwise::widen(isa, self.table.elements(), &mut self.out);
        }
        for (&row, out) in self.rows.iter().zip(self.out.chunks_exact_mut(WIDTH)) {
            embedding::row(self.table.elements(), row, out);
        }
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        vec![&mut self.out]
    }

    fn check(&self) -> Result<(), String> {
        let from = |i: usize| self.rows.get(i / WIDTH).map_or(i, |row| row * WIDTH + i % WIDTH);
        let wrong = |&i: &usize| f64::from(self.out[i]) != self.table.wide(from(i));
        match (0..self.out.len()).find(wrong) {
            Some(i) => Err(format!("[{i}] {}, expected {}", self.out[i], self.table.wide(from(i)))),
            None => Ok(()),
        }
    }
}
