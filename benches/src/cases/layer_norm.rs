//! Layer normalisation of whole rows.
//!
//! Operations per number, counted in the kernel: forward 1 for the mean, 3 for the variance, 4 to normalise; backward 6
//! for the two sums, 7 for the result.

use kernels::Isa;
use kernels::layer_norm::{self, Affine, reference};

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
        kernel: if backward { "layer_norm backward" } else { "layer_norm forward" },
        kind: Kind::Norm,
        shape: format!("{rows}x{WIDTH}"),
        dtype: "f32",
        tiers: true,
        work: match backward {
            false => Work::f32(8 * n, n, n + 2 * rows),
            true => Work::f32(13 * n, 2 * n + 2 * rows, n),
        },
        make: Box::new(move || Box::new(LayerNorm::new(rows, backward))),
    }
}

struct LayerNorm {
    backward: bool,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    d_y: Vec<f32>,
    mean: Vec<f32>,
    rstd: Vec<f32>,
    /// `y`, or `d_x`.
    out: Vec<f32>,
}

impl LayerNorm {
    fn new(rows: usize, backward: bool) -> LayerNorm {
        let n = rows * WIDTH;
        let mut norm = LayerNorm {
            backward: false,
            x: data::normals(4, n, 2.0),
            weight: data::normals(5, WIDTH, 1.0),
            bias: data::normals(6, WIDTH, 1.0),
            d_y: data::normals(7, n, 1.0),
            mean: vec![f32::NAN; rows],
            rstd: vec![f32::NAN; rows],
            out: vec![f32::NAN; n],
        };
        // backward starts from the statistics that forward leaves
        norm.run(Isa::best());
        LayerNorm { backward, ..norm }
    }
}

impl Kernel for LayerNorm {
    fn run(&mut self, isa: Isa) {
        let LayerNorm { x, weight, bias, d_y, mean, rstd, out, .. } = self;
        match self.backward {
            false => layer_norm::forward(isa, x, Affine { weight, bias, eps: EPS }, out, mean, rstd),
            true => layer_norm::backward_input(isa, x, weight, mean, rstd, d_y, out),
        }
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        match self.backward {
            false => vec![&mut self.out, &mut self.mean, &mut self.rstd],
            true => vec![&mut self.out],
        }
    }

    fn check(&self) -> Result<(), String> {
        let rows = data::sample(self.mean.len(), 40);
        let (weight, bias) = (data::wide(&self.weight), data::wide(&self.bias));
        for &row in &rows {
            let of_row = |x: &[f32]| rows_of(x, WIDTH, &[row]);
            let x = data::wide(&of_row(&self.x));
            let (y, mean, rstd) = reference::forward(&x, &weight, &bias, f64::from(EPS));
            if self.backward {
                let d_y = data::wide(&of_row(&self.d_y));
                let d_x = reference::backward_input(&x, &weight, mean, rstd, &d_y);
                compare("d_x", &of_row(&self.out), &d_x, 1e-5)?;
            } else {
                compare("y", &of_row(&self.out), &y, 1e-5)?;
                compare("mean and rstd", &[self.mean[row], self.rstd[row]], &[mean, rstd], 1e-5)?;
            }
        }
        Ok(())
    }
}
