//! Root-mean-square normalisation of whole rows.
//!
//! Operations per number, counted in the kernel: forward 2 for the squares, 2 to normalise; backward 5 for the sum, 5
//! for the result, 1 to add it to what is there; the gradient of the weight 3.

use kernels::Isa;
use kernels::rms_norm::{self, reference};

use super::{Norm, ROWS, WIDTH, added, compare, rows_of};
use crate::case::{Case, Kernel, Kind, Work};
use crate::data;

const EPS: f32 = 1e-5;

pub(super) fn cases() -> Vec<Case> {
    ROWS.into_iter().flat_map(|rows| Norm::ALL.map(|form| case(rows, form))).collect()
}

fn case(rows: usize, form: Norm) -> Case {
    let n = rows * WIDTH;
    let (kernel, work) = match form {
        Norm::Forward => ("rms_norm forward", Work::f32(4 * n, n, n + rows)),
        Norm::Backward => ("rms_norm backward", Work::f32(10 * n, 2 * n + rows, n)),
        Norm::Accumulate => ("rms_norm accumulate", Work::f32(11 * n, 3 * n + rows, n)),
        Norm::Parameters => ("rms_norm parameters", Work::f32(3 * n, 2 * n + rows, WIDTH)),
    };
    Case {
        kernel,
        kind: Kind::Norm,
        shape: format!("{rows}x{WIDTH}"),
        dtype: "f32",
        tiers: true,
        work,
        make: Box::new(move || Box::new(RmsNorm::new(rows, form))),
    }
}

struct RmsNorm {
    form: Norm,
    x: Vec<f32>,
    weight: Vec<f32>,
    d_y: Vec<f32>,
    rstd: Vec<f32>,
    /// `y`, or `d_x`.
    out: Vec<f32>,
    d_weight: Vec<f32>,
}

impl RmsNorm {
    fn new(rows: usize, form: Norm) -> RmsNorm {
        let n = rows * WIDTH;
        let mut norm = RmsNorm {
            form: Norm::Forward,
            x: data::normals(4, n, 2.0),
            weight: data::normals(5, WIDTH, 1.0),
            d_y: data::normals(7, n, 1.0),
            rstd: vec![f32::NAN; rows],
            out: vec![f32::NAN; n],
            d_weight: vec![f32::NAN; WIDTH],
        };
        // backward starts from the statistics that forward leaves
        norm.run(Isa::best());
        RmsNorm { form, ..norm }
    }

    fn check_parameters(&self) -> Result<(), String> {
        let mut sums = vec![0.0; WIDTH];
        for row in 0..self.rstd.len() {
            let [x, d_y] = [&self.x, &self.d_y].map(|x| data::wide(&rows_of(x, WIDTH, &[row])));
            let d = reference::backward_weight(&x, f64::from(self.rstd[row]), &d_y);
            sums.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
        }
        // thousands of numbers of size one
        compare("d_weight", &self.d_weight, &sums, 1e-3)
    }
}

impl Kernel for RmsNorm {
    fn run(&mut self, isa: Isa) {
        let RmsNorm { x, weight, d_y, rstd, out, d_weight, .. } = self;
        match self.form {
            Norm::Forward => rms_norm::forward(isa, x, weight, EPS, out, rstd),
            Norm::Backward => rms_norm::backward_input(isa, x, weight, rstd, d_y, out),
            Norm::Accumulate => rms_norm::accumulate_input(isa, x, weight, rstd, d_y, out),
            Norm::Parameters => rms_norm::backward_weight(isa, x, rstd, d_y, d_weight),
        }
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        match self.form {
            Norm::Forward => vec![&mut self.out, &mut self.rstd],
            Norm::Backward => vec![&mut self.out],
            Norm::Accumulate => {
                self.out = self.form.before(self.x.len());
                Vec::new()
            }
            Norm::Parameters => vec![&mut self.d_weight],
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.form == Norm::Parameters {
            return self.check_parameters();
        }
        let (weight, before) = (data::wide(&self.weight), self.form.before(self.x.len()));
        for row in data::sample(self.rstd.len(), 40) {
            let of_row = |x: &[f32]| rows_of(x, WIDTH, &[row]);
            let x = data::wide(&of_row(&self.x));
            let (y, rstd) = reference::forward(&x, &weight, f64::from(EPS));
            if self.form == Norm::Forward {
                compare("y", &of_row(&self.out), &y, 1e-5)?;
                compare("rstd", &[self.rstd[row]], &[rstd], 1e-5)?;
            } else {
                let d_x = reference::backward_input(&x, &weight, rstd, &data::wide(&of_row(&self.d_y)));
                compare("d_x", &of_row(&self.out), &added(&before, row, d_x), 1e-5)?;
            }
        }
        Ok(())
    }
}
