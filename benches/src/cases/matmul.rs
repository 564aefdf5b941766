//! Matrix products: forward and backward, both layouts, every dtype of weight.
//!
//! Operations: `2 m k n`. Bytes: activations and weight read once, the product written once.

use half::bf16;
use kernels::matmul::{self, Epilogue, Layout, Precision, Weight, reference};
use kernels::testing::Rng;
use kernels::{BlockFormat, Blocks, Elements, Isa};

use super::{VOCAB, WIDTH, compare, rows_of};
use crate::case::{Case, Kernel, Kind, Work};
use crate::ceilings::Arithmetic;
use crate::data::{self, Dtype, Numbers};
use crate::peers::Product;

/// `(rows, n_in, n_out)` of the linear layers of a GPT-2 training step of about 820 tokens, and two squares.
pub(super) const STEP: [(usize, usize, usize); 6] = [
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
    stored: Stored,
    precision: Precision,
    direction: Direction,
}

/// How the numbers of a weight are stored.
#[derive(Clone, Copy, PartialEq)]
enum Stored {
    Numbers(Dtype),
    Blocks(BlockFormat),
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
                let numbers = Dtype::ALL.map(|dtype| (Stored::Numbers(dtype), Precision::F32));
                let blocks = BlockFormat::ALL.map(|format| (Stored::Blocks(format), Precision::F32));
                let rounded = (Stored::Numbers(Dtype::Bf16), Precision::Bf16);
                let problem = |(stored, precision)| Problem {
                    kind,
                    rows,
                    n_in,
                    n_out,
                    layout,
                    stored,
                    precision,
                    direction,
                };
                let problems = numbers.into_iter().chain(blocks).chain([rounded]).map(problem);
                cases.extend(problems.filter(Problem::occurs).map(case));
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
        dtype: if p.precision == Precision::Bf16 { "bf16xbf16" } else { p.stored.name() },
        tiers: true,
        work: Work {
            arithmetic: if p.precision == Precision::Bf16 { Arithmetic::Bf16 } else { Arithmetic::F32 },
            flops: (2 * rows * n_in * n_out) as f64,
            read: 4 * rows * p.width_a() + p.stored.bytes(n_in * n_out),
            written: 4 * rows * p.width_c(),
        },
        make: Box::new(move || Box::new(Matmul::new(p))),
    }
}

impl Stored {
    /// As tables write it.
    fn name(self) -> &'static str {
        match self {
            Stored::Numbers(dtype) => dtype.name(),
            Stored::Blocks(format) => format.name(),
        }
    }

    /// Bytes of `n` numbers.
    fn bytes(self, n: usize) -> usize {
        match self {
            Stored::Numbers(dtype) => dtype.size() * n,
            Stored::Blocks(format) => format.bytes() * (n / format.numbers()),
        }
    }
}

impl Problem {
    /// Decoding never goes backward, and backward reads f16 as it reads bf16.
    fn occurs(&self) -> bool {
        let rounds = self.precision == Precision::Bf16;
        let goes_back = self.rows >= 32 && self.stored != Stored::Numbers(Dtype::F16);
        if let Stored::Blocks(_) = self.stored {
            // files have them this way round; of the many rows one shape shows the cost of widening
            let shown = self.kind == Kind::FewRows || (self.rows, self.n_out) == (820, 3072);
            return self.layout == Layout::OutIn
                && shown
                && (self.direction == Direction::Forward || goes_back);
        }
        (self.direction == Direction::Forward || goes_back) && (!rounds || self.kind == Kind::Matmul)
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
    weight: Weights,
    c: Vec<f32>,
}

/// The numbers of a weight.
enum Weights {
    Numbers(Numbers),
    Blocks(BlockFormat, Vec<u8>),
}

impl Weights {
    fn new(stored: Stored, n: usize, scale: f32) -> Weights {
        match stored {
            Stored::Numbers(dtype) => Weights::Numbers(Numbers::round(data::normals(2, n, scale), dtype)),
            Stored::Blocks(format) => Weights::Blocks(format, random_blocks(format, n, scale)),
        }
    }

    fn elements(&self) -> Elements<'_> {
        match self {
            Weights::Numbers(numbers) => numbers.elements(),
            Weights::Blocks(format, bytes) => Elements::Blocks(Blocks::new(*format, bytes)),
        }
    }

    /// Number `i`, exactly.
    fn wide(&self, i: usize) -> f64 {
        match self {
            Weights::Numbers(numbers) => numbers.wide(i),
            Weights::Blocks(format, bytes) => {
                let mut block = [0.0; 256];
                let block = &mut block[..format.numbers()];
                Blocks::new(*format, bytes).widen(i / block.len() * block.len(), block);
                block[i % block.len()].into()
            }
        }
    }
}

/// Blocks of random bits whose f16 scales make numbers of about `scale`.
fn random_blocks(format: BlockFormat, n: usize, scale: f32) -> Vec<u8> {
    let (places, step): (&[usize], f32) = match format {
        BlockFormat::Q8_0 => (&[0], 0.01),
        BlockFormat::Q4_0 => (&[0], 0.2),
        BlockFormat::Q5_0 => (&[0], 0.1),
        BlockFormat::Q4_1 => (&[0, 2], 0.2),
        BlockFormat::Q5_1 => (&[0, 2], 0.1),
        BlockFormat::Q4_K | BlockFormat::Q5_K => (&[0, 2], 0.002),
        BlockFormat::Q6_K => (&[208], 0.0005),
    };
    let mut rng = Rng(7);
    let mut bytes: Vec<u8> = (0..n / format.numbers() * format.bytes() / 2)
        .flat_map(|_| (rng.next_u64() as u16).to_le_bytes())
        .collect();
    for block in bytes.chunks_exact_mut(format.bytes()) {
        for &at in places {
            let half = half::f16::from_f32(step * scale * (1.0 + rng.uniform() as f32));
            block[at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
    }
    bytes
}

impl Matmul {
    fn new(p: Problem) -> Matmul {
        // the result has numbers of about one, whatever the inner size
        let scale = (p.width_a() as f32).sqrt().recip();
        let mut a = data::normals(1, p.rows * p.width_a(), 1.0);
        if p.precision == Precision::Bf16 {
            // rounded already, so that the reference need not round
            a.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
        }
        Matmul {
            p,
            a,
            weight: Weights::new(p.stored, p.n_in * p.n_out, scale),
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
        let Problem { n_in, n_out, layout, precision, .. } = self.p;
        let weight = Weight { elements: self.weight.elements(), layout, n_in, n_out, precision };
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
