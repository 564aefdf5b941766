//! Gradients of weights: the products of full fine-tuning.
//!
//! Operations: `2 rows n_in n_out`. Bytes: activations and upstream gradient read once, the gradient written once.

use kernels::Isa;
use kernels::matmul::{self, Layout, reference};

use super::{compare, matmul::STEP};
use crate::case::{Case, Kernel, Kind, Work};
use crate::data;

pub(super) fn cases() -> Vec<Case> {
    // the first is small enough for a test
    [(64, 192, 256)]
        .into_iter()
        .chain(STEP)
        .flat_map(|size| [Layout::OutIn, Layout::InOut].map(|layout| case(size, layout)))
        .collect()
}

fn case((rows, n_in, n_out): (usize, usize, usize), layout: Layout) -> Case {
    Case {
        kernel: match layout {
            Layout::OutIn => "weight gradient [out,in]",
            Layout::InOut => "weight gradient [in,out]",
        },
        kind: Kind::Matmul,
        shape: format!("{rows}x{n_in}x{n_out}"),
        dtype: "f32",
        tiers: true,
        work: Work::f32(2 * rows * n_in * n_out, rows * (n_in + n_out), n_in * n_out),
        make: Box::new(move || {
            // the result has numbers of about one, whatever the number of rows
            let scale = (rows as f32).sqrt().recip();
            Box::new(WeightGradient {
                shape: reference::Shape { layout, n_in, n_out },
                x: data::normals(1, rows * n_in, 1.0),
                d_out: data::normals(2, rows * n_out, scale),
                d_w: vec![f32::NAN; n_in * n_out],
            })
        }),
    }
}

struct WeightGradient {
    shape: reference::Shape,
    x: Vec<f32>,
    d_out: Vec<f32>,
    d_w: Vec<f32>,
}

impl Kernel for WeightGradient {
    fn run(&mut self, isa: Isa) {
        matmul::backward_weight(isa, (&self.x, &self.d_out), self.shape, None, &mut self.d_w);
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        vec![&mut self.d_w]
    }

    fn check(&self) -> Result<(), String> {
        let (inputs, outputs) = (data::sample(self.shape.n_in, 20), data::sample(self.shape.n_out, 20));
        let columns = |x: &[f32], width: usize, at: &[usize]| -> Vec<f64> {
            x.chunks_exact(width).flat_map(|row| at.iter().map(move |&i| f64::from(row[i]))).collect()
        };
        let x = columns(&self.x, self.shape.n_in, &inputs);
        let d_out = columns(&self.d_out, self.shape.n_out, &outputs);
        let part = reference::Shape { n_in: inputs.len(), n_out: outputs.len(), ..self.shape };
        let (mut expected, mut actual) =
            (vec![0.0; part.n_in * part.n_out], vec![0.0; part.n_in * part.n_out]);
        reference::backward_weight(&x, &d_out, part, &mut expected);
        for (i, &from_i) in inputs.iter().enumerate() {
            for (o, &from_o) in outputs.iter().enumerate() {
                actual[part.index(i, o)] = self.d_w[self.shape.index(from_i, from_o)];
            }
        }
        if self.d_w.iter().any(|x| x.is_nan()) {
            return Err("the gradient has a NaN".into());
        }
        compare("gradient", &actual, &expected, 1e-4)
    }
}
