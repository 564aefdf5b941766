//! Rotary positions: 12 heads of 64. Six operations for two numbers.

use kernels::Isa;
use kernels::rope::{self, Pairs, Table, reference};

use super::{ROWS, WIDTH, compare, rows_of};
use crate::case::{Case, Kernel, Kind, Work};
use crate::data;

const HALF: usize = 32;

pub(super) fn cases() -> Vec<Case> {
    ROWS.into_iter().flat_map(|rows| [case(rows, false), case(rows, true)]).collect()
}

fn case(rows: usize, backward: bool) -> Case {
    let n = rows * WIDTH;
    Case {
        kernel: if backward { "rope backward" } else { "rope forward" },
        kind: Kind::Elementwise,
        shape: format!("{rows}x{WIDTH}"),
        dtype: "f32",
        tiers: true,
        work: Work::f32(3 * n, n + 2 * rows * HALF, n),
        make: Box::new(move || Box::new(Rope::new(rows, backward))),
    }
}

fn frequency(i: usize) -> f32 {
    10_000f32.powf(-(i as f32) / HALF as f32)
}

struct Rope {
    backward: bool,
    table: Table,
    x: Vec<f32>,
    y: Vec<f32>,
}

impl Rope {
    fn new(rows: usize, backward: bool) -> Rope {
        let positions: Vec<u32> = (0..rows as u32).collect();
        let frequencies: Vec<f32> = (0..HALF).map(frequency).collect();
        let table = Table::new(&positions, &frequencies, Pairs::Halves);
        Rope { backward, table, x: data::normals(1, rows * WIDTH, 1.0), y: vec![f32::NAN; rows * WIDTH] }
    }
}

impl Kernel for Rope {
    fn run(&mut self, isa: Isa) {
        match self.backward {
            false => rope::forward(isa, &self.table, &self.x, &mut self.y),
            true => rope::backward(isa, &self.table, &self.x, &mut self.y),
        }
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        vec![&mut self.y]
    }

    fn check(&self) -> Result<(), String> {
        let rotate = if self.backward { reference::backward::<f64> } else { reference::forward::<f64> };
        for row in data::sample(self.x.len() / WIDTH, 40) {
            // the angle is rounded to f32, as in the kernel: see `Table::new`
            let angles: Vec<f64> = (0..HALF).map(|i| f64::from(row as f32 * frequency(i))).collect();
            let x = data::wide(&rows_of(&self.x, WIDTH, &[row]));
            let expected: Vec<f64> =
                x.chunks_exact(2 * HALF).flat_map(|head| rotate(&angles, head)).collect();
            compare("rotated", &rows_of(&self.y, WIDTH, &[row]), &expected, 1e-6)?;
        }
        Ok(())
    }
}
