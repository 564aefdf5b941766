//! Layer normalisation of whole rows.
//!
//! Operations per number, counted in the kernel: forward 1 for the mean, 3 for the variance, 4 to normalise; backward 6
//! for the two sums, 7 for the result, 1 to add it to what is there; the gradients of weight and bias 5.

use kernels::Isa;
use kernels::layer_norm::{self, Affine, reference};

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
        Norm::Forward => ("layer_norm forward", Work::f32(8 * n, n, n + 2 * rows)),
        Norm::Backward => ("layer_norm backward", Work::f32(13 * n, 2 * n + 2 * rows, n)),
        Norm::Accumulate => ("layer_norm accumulate", Work::f32(14 * n, 3 * n + 2 * rows, n)),
        Norm::Parameters => ("layer_norm parameters", Work::f32(5 * n, 2 * n + 2 * rows, 2 * WIDTH)),
    };
    Case {
        kernel,
        kind: Kind::Norm,
        shape: format!("{rows}x{WIDTH}"),
        dtype: "f32",
        tiers: true,
        work,
        make: Box::new(move || Box::new(LayerNorm::new(rows, form))),
    }
}

struct LayerNorm {
    form: Norm,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    d_y: Vec<f32>,
    mean: Vec<f32>,
    rstd: Vec<f32>,
    /// `y`, or `d_x`.
    out: Vec<f32>,
    d_affine: [Vec<f32>; 2],
}

impl LayerNorm {
    fn new(rows: usize, form: Norm) -> LayerNorm {
        let n = rows * WIDTH;
        let mut norm = LayerNorm {
            form: Norm::Forward,
            x: data::normals(4, n, 2.0),
            weight: data::normals(5, WIDTH, 1.0),
            bias: data::normals(6, WIDTH, 1.0),
            d_y: data::normals(7, n, 1.0),
            mean: vec![f32::NAN; rows],
            rstd: vec![f32::NAN; rows],
            out: vec![f32::NAN; n],
            d_affine: [(); 2].map(|()| vec![f32::NAN; WIDTH]),
        };
        // backward starts from the statistics that forward leaves
        norm.run(Isa::best());
        LayerNorm { form, ..norm }
    }

    fn check_parameters(&self) -> Result<(), String> {
        let mut sums = [vec![0.0; WIDTH], vec![0.0; WIDTH]];
        for row in 0..self.mean.len() {
            let [x, d_y] = [&self.x, &self.d_y].map(|x| data::wide(&rows_of(x, WIDTH, &[row])));
            let (mean, rstd) = (f64::from(self.mean[row]), f64::from(self.rstd[row]));
            let (d_weight, d_bias) = reference::backward_affine(&x, mean, rstd, &d_y);
            for (sums, d) in sums.iter_mut().zip([d_weight, d_bias]) {
                sums.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
            }
        }
        // thousands of numbers of size one
        compare("d_weight", &self.d_affine[0], &sums[0], 1e-3)?;
        compare("d_bias", &self.d_affine[1], &sums[1], 1e-3)
    }
}

impl Kernel for LayerNorm {
    fn run(&mut self, isa: Isa) {
        let LayerNorm { x, weight, bias, d_y, mean, rstd, out, .. } = self;
        match self.form {
            Norm::Forward => {
                layer_norm::forward(isa, x, Affine { weight, bias, eps: EPS }, out, mean, rstd);
            }
            Norm::Backward => layer_norm::backward_input(isa, x, weight, mean, rstd, d_y, out),
            Norm::Accumulate => layer_norm::accumulate_input(isa, x, weight, mean, rstd, d_y, out),
            Norm::Parameters => {
                let d_affine = self.d_affine.each_mut().map(|d| &mut d[..]);
                layer_norm::backward_affine(isa, x, mean, rstd, d_y, d_affine);
            }
        }
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        match self.form {
            Norm::Forward => vec![&mut self.out, &mut self.mean, &mut self.rstd],
            Norm::Backward => vec![&mut self.out],
            Norm::Accumulate => {
                self.out = self.form.before(self.x.len());
                Vec::new()
            }
            Norm::Parameters => self.d_affine.iter_mut().map(Vec::as_mut_slice).collect(),
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.form == Norm::Parameters {
            return self.check_parameters();
        }
        let (rows, before) = (data::sample(self.mean.len(), 40), self.form.before(self.x.len()));
        let (weight, bias) = (data::wide(&self.weight), data::wide(&self.bias));
        for &row in &rows {
            let of_row = |x: &[f32]| rows_of(x, WIDTH, &[row]);
            let x = data::wide(&of_row(&self.x));
            let (y, mean, rstd) = reference::forward(&x, &weight, &bias, f64::from(EPS));
            if self.form == Norm::Forward {
                compare("y", &of_row(&self.out), &y, 1e-5)?;
                compare("mean and rstd", &[self.mean[row], self.rstd[row]], &[mean, rstd], 1e-5)?;
            } else {
                let d_y = data::wide(&of_row(&self.d_y));
                let d_x = reference::backward_input(&x, &weight, mean, rstd, &d_y);
                compare("d_x", &of_row(&self.out), &added(&before, row, d_x), 1e-5)?;
            }
        }
        Ok(())
    }
}
