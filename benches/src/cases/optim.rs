//! One step of each optimizer: on a soft prompt of 20 tokens, and on a matrix that leaves the caches.
//!
//! Operations per number: AdamW 15, Adafactor 10, SGD with momentum 6. The parameter and what the optimizer keeps are
//! read and written in place.

use kernels::Isa;
use kernels::optim::{self, FactoredMoments};

use super::{WIDTH, compare};
use crate::case::{Case, Kernel, Kind, Work};
use crate::data;

const ROWS: [usize; 2] = [20, 16384];
/// The first step whose moments are not zero.
const STEP: u64 = 2;
const ADAMW: optim::AdamW =
    optim::AdamW { lr: 0.003, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
const ADAFACTOR: optim::Adafactor =
    optim::Adafactor { lr: 0.003, decay: 0.8, clip_threshold: 1.0, eps: 1e-30, weight_decay: 0.01 };
const SGD: optim::Sgd = optim::Sgd { lr: 0.003, momentum: 0.9, weight_decay: 0.01 };

#[derive(Clone, Copy)]
enum Which {
    AdamW,
    Adafactor,
    Sgd,
}

pub(super) fn cases() -> Vec<Case> {
    ROWS.into_iter()
        .flat_map(|rows| [Which::AdamW, Which::Adafactor, Which::Sgd].map(|w| case(w, rows)))
        .collect()
}

fn case(which: Which, rows: usize) -> Case {
    let n = rows * WIDTH;
    let (kernel, work) = match which {
        Which::AdamW => ("adamw", Work::f32(15 * n, 4 * n, 3 * n)),
        Which::Adafactor => ("adafactor", Work::f32(10 * n, 2 * n, n)),
        Which::Sgd => ("sgd", Work::f32(6 * n, 3 * n, 2 * n)),
    };
    Case {
        kernel,
        kind: Kind::Optimizer,
        shape: format!("{rows}x{WIDTH}"),
        dtype: "f32",
        tiers: true,
        work,
        make: Box::new(move || Box::new(Optimizer::new(which, rows))),
    }
}

/// What a step reads and writes in place: the parameter, and what the optimizer keeps.
#[derive(Clone)]
struct State {
    param: Vec<f32>,
    moments: [Vec<f32>; 2],
}

/// A parameter and what one step needs.
struct Optimizer {
    which: Which,
    grad: Vec<f32>,
    /// Before the step that is checked.
    before: State,
    state: State,
}

impl Optimizer {
    fn new(which: Which, rows: usize) -> Optimizer {
        let n = rows * WIDTH;
        let sizes = match which {
            Which::AdamW => [n, n],
            Which::Adafactor => [rows, WIDTH],
            Which::Sgd => [n, 0],
        };
        // second moments are positive; the first may be
        let moment = |n: usize| data::normals(5, n, 0.1).iter().map(|x| x.abs() + 0.01).collect();
        let state = State { param: data::normals(1, n, 1.0), moments: sizes.map(moment) };
        Optimizer { which, grad: data::normals(2, n, 0.1), before: state.clone(), state }
    }

    /// The parameter after one step, by the formulas of [`kernels::optim`].
    fn expected(&self) -> Vec<f64> {
        let State { param, moments: [a, b] } = &self.before;
        let [p, g, a, b] = [param, &self.grad, a, b].map(|x| data::wide(x));
        match self.which {
            Which::AdamW => {
                let [lr, beta1, beta2, wd] =
                    [ADAMW.lr, ADAMW.beta1, ADAMW.beta2, ADAMW.weight_decay].map(f64::from);
                let update = |i: usize| {
                    let m = (a[i] + (g[i] - a[i]) * (1.0 - beta1)) / (1.0 - beta1.powi(STEP as i32));
                    let v = (beta2 * b[i] + (1.0 - beta2) * g[i] * g[i]) / (1.0 - beta2.powi(STEP as i32));
                    p[i] * (1.0 - lr * wd) - lr * m / (v.sqrt() + f64::from(ADAMW.eps))
                };
                (0..p.len()).map(update).collect()
            }
            Which::Adafactor => adafactor(&p, &g, &a, &b),
            Which::Sgd => {
                let [lr, momentum, wd] = [SGD.lr, SGD.momentum, SGD.weight_decay].map(f64::from);
                (0..p.len()).map(|i| p[i] - lr * (momentum * a[i] + g[i] + wd * p[i])).collect()
            }
        }
    }
}

fn adafactor(p: &[f64], g: &[f64], row: &[f64], col: &[f64]) -> Vec<f64> {
    let [lr, decay, clip, wd] =
        [ADAFACTOR.lr, ADAFACTOR.decay, ADAFACTOR.clip_threshold, ADAFACTOR.weight_decay].map(f64::from);
    let (rows, cols) = (row.len(), col.len());
    let rho = 1.0 - (STEP as f64).powf(-decay);
    let mean = |squares: &mut dyn Iterator<Item = usize>, n: usize| {
        squares.map(|i| g[i] * g[i]).sum::<f64>() / n as f64
    };
    let row: Vec<f64> = (0..rows)
        .map(|i| rho * row[i] + (1.0 - rho) * mean(&mut (0..cols).map(|j| i * cols + j), cols))
        .collect();
    let col: Vec<f64> = (0..cols)
        .map(|j| rho * col[j] + (1.0 - rho) * mean(&mut (0..rows).map(|i| i * cols + j), rows))
        .collect();
    let mean_row = row.iter().sum::<f64>() / rows as f64;
    let u: Vec<f64> =
        (0..p.len()).map(|i| g[i] / (row[i / cols] * col[i % cols] / mean_row).sqrt()).collect();
    let rms = (u.iter().map(|u| u * u).sum::<f64>() / p.len() as f64).sqrt();
    (0..p.len()).map(|i| p[i] * (1.0 - lr * wd) - lr * u[i] / (rms / clip).max(1.0)).collect()
}

impl Kernel for Optimizer {
    fn run(&mut self, isa: Isa) {
        let State { param, moments: [a, b] } = &mut self.state;
        match self.which {
            Which::AdamW => optim::adamw(isa, ADAMW, STEP, param, &self.grad, a, b),
            Which::Adafactor => {
                optim::adafactor(isa, ADAFACTOR, STEP, param, &self.grad, FactoredMoments { row: a, col: b })
            }
            Which::Sgd => optim::sgd(isa, SGD, param, &self.grad, a),
        }
    }

    /// It computes in place: what it writes is also what it reads. So it starts again from the same state.
    fn outputs(&mut self) -> Vec<&mut [f32]> {
        self.state.clone_from(&self.before);
        Vec::new()
    }

    fn check(&self) -> Result<(), String> {
        compare("parameter", &self.state.param, &self.expected(), 1e-6)
    }
}
