//! Root-mean-square normalisation of whole rows.
//!
//! Operations per number, counted in the kernel: forward 2 for the squares, 2 to normalise; backward 5 for the sum, 5
//! for the result.

use kernels::Isa;
use kernels::rms_norm::{self, reference};

use super::{ROWS, WIDTH, compare, rows_of};
use crate::case::{Case, Kernel, Kind, Work};
use crate::data;

const EPS: f32 = 1e-5;

pub(super) fn cases() -> Vec<Case> {
    ROWS.into_iter().flat_map(|rows| [case(rows, false), case(rows, true)]).collect()
}

fn case(rows: usize, backward: bool) -> Case {
    let n = rows * WIDTH;
    Case {
        kernel: if backward { "rms_norm backward" } else { "rms_norm forward" },
        kind: Kind::Norm,
        shape: format!("{rows}x{WIDTH}"),
        dtype: "f32",
        tiers: true,
        work: match backward {
            false => Work::f32(4 * n, n, n + rows),
            true => Work::f32(10 * n, 2 * n + rows, n),
        },
        make: Box::new(move || Box::new(RmsNorm::new(rows, backward))),
    }
}

struct RmsNorm {
    backward: bool,
    x: Vec<f32>,
    weight: Vec<f32>,
    d_y: Vec<f32>,
    rstd: Vec<f32>,
    /// `y`, or `d_x`.
    out: Vec<f32>,
}

impl RmsNorm {
    fn new(rows: usize, backward: bool) -> RmsNorm {
        let n = rows * WIDTH;
        let mut norm = RmsNorm {
            backward: false,
            x: data::normals(4, n, 2.0),
            weight: data::normals(5, WIDTH, 1.0),
            d_y: data::normals(7, n, 1.0),
            rstd: vec![f32::NAN; rows],
            out: vec![f32::NAN; n],
        };
        // backward starts from the statistics that forward leaves
        norm.run(Isa::best());
        RmsNorm { backward, ..norm }
    }
}

impl Kernel for RmsNorm {
    fn run(&mut self, isa: Isa) {
        let RmsNorm { x, weight, d_y, rstd, out, .. } = self;
        match self.backward {
            false => rms_norm::forward(isa, x, weight, EPS, out, rstd),
            true => rms_norm::backward_input(isa, x, weight, rstd, d_y, out),
        }
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        match self.backward {
            false => vec![&mut self.out, &mut self.rstd],
            true => vec![&mut self.out],
        }
    }

    fn check(&self) -> Result<(), String> {
        let weight = data::wide(&self.weight);
        for row in data::sample(self.rstd.len(), 40) {
            let of_row = |x: &[f32]| rows_of(x, WIDTH, &[row]);
            let x = data::wide(&of_row(&self.x));
            let (y, rstd) = reference::forward(&x, &weight, f64::from(EPS));
            if self.backward {
                let d_x = reference::backward_input(&x, &weight, rstd, &data::wide(&of_row(&self.d_y)));
                compare("d_x", &of_row(&self.out), &d_x, 1e-5)?;
            } else {
                compare("y", &of_row(&self.out), &y, 1e-5)?;
                compare("rstd", &[self.rstd[row]], &[rstd], 1e-5)?;
            }
        }
        Ok(())
    }
}
