//! Activations of the MLP, plain and gated.
//!
//! Operations per number, counted in the kernel: an exponential is 25, the logistic function 31 with it, the error
//! function 68. The derivative is computed beside the function.

use kernels::Isa;
use kernels::activation::{self, Activation, Gated, reference};

use super::{ROWS, WIDTH, compare};
use crate::case::{Case, Kernel, Kind, Work};
use crate::data;

/// What is computed: a function of one number, or of two.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Forward,
    Backward,
    GatedForward,
    GatedBackward,
}
use Form::{Backward, Forward, GatedBackward, GatedForward};

/// Kernel, form, function, and operations per number.
const KERNELS: [(&str, Form, Activation, usize); 8] = [
    ("gelu_tanh forward", Forward, Activation::GeluTanh, 37),
    ("gelu_tanh backward", Backward, Activation::GeluTanh, 44),
    ("gelu_erf forward", Forward, Activation::GeluErf, 72),
    ("gelu_erf backward", Backward, Activation::GeluErf, 102),
    ("silu forward", Forward, Activation::Silu, 32),
    ("silu backward", Backward, Activation::Silu, 36),
    ("silu gated forward", GatedForward, Activation::Silu, 33),
    ("silu gated backward", GatedBackward, Activation::Silu, 38),
];

pub(super) fn cases() -> Vec<Case> {
    let of_rows = |rows: usize| KERNELS.into_iter().map(move |kernel| case(kernel, rows * 4 * WIDTH));
    // the inner width is four times as large, so a quarter of the rows is as far out of the caches
    [ROWS[0], ROWS[1] / 4].into_iter().flat_map(of_rows).collect()
}

fn case((kernel, form, act, operations): (&'static str, Form, Activation, usize), n: usize) -> Case {
    let (read, written) = match form {
        Forward => (1, 1),
        Backward | GatedForward => (2, 1),
        GatedBackward => (3, 2),
    };
    Case {
        kernel,
        kind: Kind::Activation,
        shape: format!("{}x{}", n / (4 * WIDTH), 4 * WIDTH),
        dtype: "f32",
        tiers: true,
        work: Work::f32(operations * n, read * n, written * n),
        make: Box::new(move || Box::new(Activate::new(form, act, n))),
    }
}

struct Activate {
    form: Form,
    act: Activation,
    x: Vec<f32>,
    up: Vec<f32>,
    d_y: Vec<f32>,
    /// `y`, or `d_x` and `d_up`.
    out: [Vec<f32>; 2],
}

impl Activate {
    fn new(form: Form, act: Activation, n: usize) -> Activate {
        let numbers = |wanted: bool| if wanted { n } else { 0 };
        Activate {
            form,
            act,
            x: data::normals(1, n, 2.0),
            up: data::normals(2, numbers(matches!(form, GatedForward | GatedBackward)), 1.0),
            d_y: data::normals(3, numbers(matches!(form, Backward | GatedBackward)), 1.0),
            out: [n, numbers(form == GatedBackward)].map(|n| vec![f32::NAN; n]),
        }
    }

    /// What must be in both outputs at `i`.
    fn expected(&self, i: usize) -> [f64; 2] {
        let at = |x: &[f32]| x.get(i).map_or(f64::NAN, |&x| f64::from(x));
        let (x, up, d_y) = (at(&self.x), at(&self.up), at(&self.d_y));
        match self.form {
            Forward => [reference::forward(self.act, x), 0.0],
            Backward => [reference::backward(self.act, x, d_y), 0.0],
            GatedForward => [reference::forward(self.act, x) * up, 0.0],
            GatedBackward => reference::gated_backward(self.act, x, up, d_y).into(),
        }
    }
}

impl Kernel for Activate {
    fn run(&mut self, isa: Isa) {
        let Activate { form, act, x, up, d_y, out: [out, d_up] } = self;
        let gated = Gated { act: *act, gate: x, up };
        match form {
            Forward => activation::forward(isa, *act, x, out),
            Backward => activation::backward(isa, *act, x, d_y, out),
            GatedForward => activation::gated_forward(isa, gated, out),
            GatedBackward => activation::gated_backward(isa, gated, d_y, out, d_up),
        }
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        self.out.iter_mut().map(Vec::as_mut_slice).collect()
    }

    fn check(&self) -> Result<(), String> {
        let places = data::sample(self.x.len(), 4000);
        let outputs = self.out.iter().enumerate().filter(|(_, out)| !out.is_empty());
        for (o, out) in outputs {
            let actual: Vec<f32> = places.iter().map(|&i| out[i]).collect();
            let expected: Vec<f64> = places.iter().map(|&i| self.expected(i)[o]).collect();
            compare(["first output", "second output"][o], &actual, &expected, 2e-6)?;
        }
        Ok(())
    }
}
