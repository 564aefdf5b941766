//! Matrix products: forward and backward, both layouts, every dtype of weight.
//!
//! Operations: `2 m k n`. Bytes: activations and weight read once, the product written once.

use kernels::matmul::{self, Epilogue, Layout, Weight, reference};
use kernels::{Elements, Isa};

use super::{VOCAB, WIDTH, compare, rows_of};
use crate::case::{Case, Kernel, Kind, Work};
use crate::ceilings::Arithmetic;
use crate::data::{self, Dtype, Numbers};
use crate::peers::Product;

/// `(rows, n_in, n_out)` of the linear layers of a GPT-2 training step of about 820 tokens, and two squares.
const STEP: [(usize, usize, usize); 6] = [
    (820, 768, 2304),
    (820, 768, 768),
    (820, 768, 3072),
    (820, 3072, 768),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
];
/// Rows of decoding, and of the head at the scored tokens of a batch.
const FEW_ROWS: [usize; 6] = [1, 2, 4, 8, 16, 32];

#[derive(Clone, Copy)]
struct Problem {
    kind: Kind,
    rows: usize,
    n_in: usize,
    n_out: usize,
    layout: Layout,
    dtype: Dtype,
    direction: Direction,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Forward,
    BackwardInput,
}

pub(super) fn cases() -> Vec<Case> {
    let few = FEW_ROWS.iter().flat_map(|&m| [(m, WIDTH, 4 * WIDTH), (m, WIDTH, VOCAB)]);
    let sizes = STEP.iter().map(|&size| (Kind::Matmul, size)).chain(few.map(|size| (Kind::FewRows, size)));
    let mut cases = Vec::new();
    for (kind, (rows, n_in, n_out)) in sizes {
        for direction in [Direction::Forward, Direction::BackwardInput] {
            for layout in [Layout::OutIn, Layout::InOut] {
                let problem = |dtype| Problem { kind, rows, n_in, n_out, layout, dtype, direction };
                let problems = Dtype::ALL.into_iter().map(problem).filter(Problem::occurs);
                cases.extend(problems.map(case));
            }
        }
    }
    cases
}

fn case(p: Problem) -> Case {
    let Problem { rows, n_in, n_out, .. } = p;
    Case {
        kernel: match (p.direction, p.layout) {
            (Direction::Forward, Layout::OutIn) => "matmul forward [out,in]",
            (Direction::Forward, Layout::InOut) => "matmul forward [in,out]",
            (Direction::BackwardInput, Layout::OutIn) => "matmul backward [out,in]",
            (Direction::BackwardInput, Layout::InOut) => "matmul backward [in,out]",
        },
        kind: p.kind,
        shape: format!("{rows}x{n_in}x{n_out}"),
        dtype: p.dtype.name(),
        tiers: true,
        work: Work {
            arithmetic: Arithmetic::F32,
            flops: (2 * rows * n_in * n_out) as f64,
            read: 4 * rows * p.width_a() + p.dtype.size() * n_in * n_out,
            written: 4 * rows * p.width_c(),
        },
        make: Box::new(move || Box::new(Matmul::new(p))),
    }
}

impl Problem {
    /// Decoding never goes backward, and backward reads f16 as it reads bf16.
    fn occurs(&self) -> bool {
        self.direction == Direction::Forward || (self.rows >= 32 && self.dtype != Dtype::F16)
    }

    /// Columns of the activations that are multiplied.
    fn width_a(&self) -> usize {
        if self.direction == Direction::Forward { self.n_in } else { self.n_out }
    }

    /// Columns of the result.
    fn width_c(&self) -> usize {
        if self.direction == Direction::Forward { self.n_out } else { self.n_in }
    }
}

struct Matmul {
    p: Problem,
    a: Vec<f32>,
    weight: Numbers,
    c: Vec<f32>,
}

impl Matmul {
    fn new(p: Problem) -> Matmul {
        // the result has numbers of about one, whatever the inner size
        let scale = (p.width_a() as f32).sqrt().recip();
        Matmul {
            p,
            a: data::normals(1, p.rows * p.width_a(), 1.0),
            weight: Numbers::round(data::normals(2, p.n_in * p.n_out, scale), p.dtype),
            c: vec![f32::NAN; p.rows * p.width_c()],
        }
    }

    /// The part of the weight that makes the columns `columns` of the result, and its shape.
    fn part(&self, columns: &[usize]) -> (Vec<f64>, reference::Shape) {
        let Problem { n_in, n_out, layout, direction, .. } = self.p;
        let all = reference::Shape { layout, n_in, n_out };
        let part = match direction {
            Direction::Forward => reference::Shape { n_out: columns.len(), ..all },
            Direction::BackwardInput => reference::Shape { n_in: columns.len(), ..all },
        };
        let mut w = vec![0.0; part.n_in * part.n_out];
        for i in 0..part.n_in {
            for o in 0..part.n_out {
                let from = match direction {
                    Direction::Forward => all.index(i, columns[o]),
                    Direction::BackwardInput => all.index(columns[i], o),
                };
                w[part.index(i, o)] = self.weight.wide(from);
            }
        }
        (w, part)
    }
}

impl Kernel for Matmul {
    fn run(&mut self, isa: Isa) {
        let Problem { n_in, n_out, layout, .. } = self.p;
        let weight = Weight { elements: self.weight.elements(), layout, n_in, n_out };
        match self.p.direction {
            Direction::Forward => matmul::forward(isa, &self.a, weight, Epilogue::default(), &mut self.c),
            Direction::BackwardInput => matmul::backward_input(isa, &self.a, weight, &mut self.c),
        }
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        vec![&mut self.c]
    }

    fn check(&self) -> Result<(), String> {
        let (rows, columns) = (data::sample(self.p.rows, 12), data::sample(self.p.width_c(), 40));
        let a = data::wide(&rows_of(&self.a, self.p.width_a(), &rows));
        let (w, shape) = self.part(&columns);
        let mut expected = vec![0.0; rows.len() * columns.len()];
        match self.p.direction {
            Direction::Forward => reference::forward(&a, (&w, shape), None, None, &mut expected),
            Direction::BackwardInput => reference::backward_input(&a, (&w, shape), &mut expected),
        }
        let at = |&row: &usize| columns.iter().map(move |&column| row * self.p.width_c() + column);
        let actual: Vec<f32> = rows.iter().flat_map(at).map(|i| self.c[i]).collect();
        if self.c.iter().any(|x| x.is_nan()) {
            return Err("the product has a NaN".into());
        }
        compare("product", &actual, &expected, 1e-4)
    }

    fn product(&mut self) -> Option<(Product<'_>, &mut [f32])> {
        let Elements::F32(b) = self.weight.elements() else { return None };
        let (k, n) = (self.p.width_a(), self.p.width_c());
        let transposed = (self.p.direction == Direction::Forward) == (self.p.layout == Layout::OutIn);
        Some((Product { m: self.p.rows, k, n, a: &self.a, b, transposed }, &mut self.c))
    }
}
