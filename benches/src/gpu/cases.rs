//! Every operation that has a kernel on the GPU, with problems of the size that training meets.

mod attention;

use std::cell::RefCell;

use kernels::activation::Activation;
use kernels::cross_entropy::Target;
use kernels::matmul::{Layout, Precision};
use kernels::optim::{AdamW, Sgd};
use kernels::rope::{Pairs, Table};
use tensor::ops::product::{self, Matrix};
use tensor::ops::rope::Angles;
use tensor::ops::{norm, optim, pointwise, rope, rows, score};
use tensor::{Device, Tensor};

use crate::data;

/// An operation on one problem.
pub struct Case {
    /// The operation.
    pub name: &'static str,
    /// Its sizes.
    pub problem: String,
    /// Operations that it needs.
    pub flops: f64,
    /// Bytes that must be read and written.
    pub bytes: f64,
    /// The largest difference from the CPU that is allowed, as a share of the largest number.
    pub tolerance: f64,
    /// Whether it is compared: the largest would take the CPU minutes.
    pub is_compared: bool,
    /// Makes the inputs on a device, and what computes with them.
    pub make: Box<dyn Fn(Device) -> Result<Work, String>>,
}

/// What is compared and timed.
pub type Work = Box<dyn Fn() -> Vec<Tensor>>;

/// How large the problems are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As training meets them.
    Full,
    /// To see that everything works.
    Small,
}

/// A tensor of random numbers on a device.
fn random(seed: u64, shape: &[usize], device: Device) -> Result<Tensor, String> {
    let numbers = data::normals(seed, shape.iter().product(), 1.0);
    Tensor::from_vec(shape, numbers).on(device).map_err(|e| e.to_string())
}

/// All cases.
pub fn all(size: Size) -> Vec<Case> {
    // tokens of a step of 32 examples, and a large one
    let tokens: &[usize] = if size == Size::Full { &[820, 8192] } else { &[9] };
    let width = if size == Size::Full { 2048 } else { 20 };
    let mut all = Vec::new();
    for &t in tokens {
        all.extend(pointwise_cases(t, width));
        all.extend(norm_cases(t, width));
        all.extend(row_cases(t, width));
    }
    all.extend(product_cases(size));
    all.extend(attention::cases(size));
    all.extend(optimizer_cases(if size == Size::Full { 1 << 26 } else { 1000 }));
    all
}

/// A case whose inputs are random tensors of these shapes, which reads and writes all of its numbers once.
fn of_tensors<const N: usize>(
    name: &'static str,
    shapes: [&[usize]; N],
    written: usize,
    compute: impl Fn(&[Tensor; N]) -> Vec<Tensor> + Copy + 'static,
) -> Case {
    let shapes = shapes.map(<[usize]>::to_vec);
    let numbers: usize = shapes.iter().map(|shape| shape.iter().product::<usize>()).sum();
    let make = {
        let shapes = shapes.clone();
        move |device| -> Result<Work, String> {
            let mut made = Vec::new();
            for (seed, shape) in (1..).zip(&shapes) {
                made.push(random(seed, shape, device)?);
            }
            let made: [Tensor; N] = made.try_into().expect("one of each shape");
            Ok(Box::new(move || compute(&made)))
        }
    };
    Case {
        name,
        problem: shapes[0].iter().map(usize::to_string).collect::<Vec<_>>().join(" x "),
        flops: 0.0,
        bytes: 4.0 * (numbers + written) as f64,
        tolerance: 1e-5,
        is_compared: true,
        make: Box::new(make),
    }
}

fn pointwise_cases(t: usize, c: usize) -> Vec<Case> {
    let (shape, n) = ([t, c], t * c);
    let gelu = Activation::GeluTanh;
    vec![
        of_tensors("add", [&shape, &shape], n, |[a, b]| vec![pointwise::add(a, b)]),
        of_tensors("scale", [&shape], n, |[x]| vec![pointwise::scale(1.5, x)]),
        of_tensors("sum of rows", [&shape], c, |[x]| vec![pointwise::sum_of_rows(x)]),
        of_tensors("GELU", [&shape], n, move |[x]| vec![pointwise::activation(gelu, x)]),
        of_tensors("GELU, backward", [&shape, &shape], n, move |[x, d]| {
            vec![pointwise::activation_backward(gelu, x, d)]
        }),
        of_tensors("gated SiLU", [&shape, &shape], n, |[gate, up]| {
            vec![pointwise::gated(Activation::Silu, gate, up)]
        }),
        of_tensors("gated SiLU, backward", [&shape, &shape, &shape], 2 * n, |[gate, up, d]| {
            pointwise::gated_backward(Activation::Silu, [gate, up], d).into()
        }),
    ]
}

/// What a norm starts from on its way back. Any numbers will do as statistics of the rows.
fn from<'a>(
    x: &'a Tensor,
    mean: Option<&'a Tensor>,
    rstd: &'a Tensor,
    d_y: &'a Tensor,
) -> norm::Backward<'a> {
    norm::Backward { x, mean, rstd, d_y }
}

fn norm_cases(t: usize, c: usize) -> Vec<Case> {
    let (shape, row, n) = ([t, c], [c], t * c);
    vec![
        of_tensors("LayerNorm", [&shape, &row, &row], n, |[x, w, b]| {
            vec![norm::layer_norm(x, [w, b], 1e-5).0]
        }),
        of_tensors(
            "LayerNorm, backward",
            [&shape, &shape, &row, &[t], &[t]],
            n,
            move |[x, d, w, mean, rstd]| vec![norm::backward_input(from(x, Some(mean), rstd, d), w, None)],
        ),
        of_tensors(
            "LayerNorm, of weights",
            [&shape, &shape, &[t], &[t]],
            2 * c,
            move |[x, d, mean, rstd]| norm::layer_norm_backward_affine(from(x, Some(mean), rstd, d)).into(),
        ),
        of_tensors("RMSNorm", [&shape, &row], n, |[x, w]| vec![norm::rms_norm(x, w, 1e-5).0]),
        of_tensors("RMSNorm, backward", [&shape, &shape, &row, &[t]], n, move |[x, d, w, rstd]| {
            vec![norm::backward_input(from(x, None, rstd, d), w, None)]
        }),
        of_tensors("RMSNorm, of weights", [&shape, &shape, &[t]], c, move |[x, d, rstd]| {
            vec![norm::rms_norm_backward_weight(from(x, None, rstd, d))]
        }),
    ]
}

fn row_cases(t: usize, c: usize) -> Vec<Case> {
    let (shape, n) = ([t, c], t * c);
    // every row once, in no order
    let order = move || (0..t as u32).map(|i| (i * 7 + 3) % t as u32).collect::<Vec<u32>>();
    let rotate = move |device| -> Result<Work, String> {
        let x = random(1, &[t, c], device)?;
        let positions: Vec<u32> = (0..t as u32).collect();
        let frequencies: Vec<f32> =
            (0..c / 4).map(|i| 10_000f32.powf(-(i as f32) / (c / 4) as f32)).collect();
        let angles = Angles::from(Table::new(&positions, &frequencies, Pairs::Halves));
        Ok(Box::new(move || vec![rope::rope(&x, &angles)]))
    };
    vec![
        of_tensors("rows of a table", [&shape], n, move |[x]| vec![rows::gather(x, None, &order())]),
        of_tensors("rows of a table, backward", [&shape], n, move |[d]| {
            vec![rows::scatter(d, &order(), &[t, c], None)]
        }),
        Case { make: Box::new(rotate), ..of_tensors("rotary positions", [&shape], n, |all| all.to_vec()) },
    ]
}

fn stored_as((layout, n_in, n_out): (Layout, usize, usize), tensor: &Tensor) -> Matrix<'_> {
    Matrix { tensor, layout, n_in, n_out, precision: Precision::F32 }
}

fn product_cases(size: Size) -> Vec<Case> {
    let sizes: &[[usize; 3]] = match size {
        Size::Full => &[
            [820, 768, 2304],
            [820, 768, 3072],
            [820, 3072, 768],
            [6400, 2048, 8192],
            [4096, 4096, 4096],
            [8192, 8192, 8192],
        ],
        Size::Small => &[[9, 20, 33]],
    };
    let mut all = Vec::new();
    for &[m, k, n] in sizes {
        for (layout, names) in [
            (
                Layout::InOut,
                ["product [in, out]", "product [in, out], backward", "product [in, out], of the weight"],
            ),
            (
                Layout::OutIn,
                ["product [out, in]", "product [out, in], backward", "product [out, in], of the weight"],
            ),
        ] {
            let stored = if layout == Layout::InOut { [k, n] } else { [n, k] };
            let matrix = (layout, k, n);
            let flops = 2.0 * (m * k * n) as f64;
            let product = |case: Case| Case {
                problem: format!("{m} x {k} x {n}"),
                flops,
                is_compared: m * k * n <= 1 << 36,
                ..case
            };
            all.push(product(of_tensors(names[0], [&[m, k], &stored], m * n, move |[x, w]| {
                vec![product::product(x, stored_as(matrix, w), None, None)]
            })));
            all.push(product(of_tensors(names[1], [&[m, n], &stored], m * k, move |[d, w]| {
                vec![product::backward_input(d, stored_as(matrix, w))]
            })));
            all.push(product(of_tensors(names[2], [&[m, k], &[m, n], &stored], 0, move |[x, d, w]| {
                vec![product::backward_weight([x, d], stored_as(matrix, w), None)]
            })));
        }
    }
    let in_bf16: &[[usize; 3]] = match size {
        Size::Full => &[
            [1, 4096, 4096],
            [8, 4096, 4096],
            [820, 768, 3072],
            [6400, 2048, 8192],
            [4096, 4096, 4096],
            [8192, 8192, 8192],
        ],
        Size::Small => &[[3, 24, 40], [9, 24, 40]],
    };
    for &size in in_bf16 {
        all.extend([Layout::InOut, Layout::OutIn].map(|layout| product_in_bf16(size, layout)));
    }
    all.push(loss_case(size));
    all
}

/// With a weight in bf16, on tensor cores where there are as many rows as that takes.
fn product_in_bf16([m, k, n]: [usize; 3], layout: Layout) -> Case {
    let (name, stored) = match layout {
        Layout::InOut => ("product [in, out] in bf16", [k, n]),
        Layout::OutIn => ("product [out, in] in bf16", [n, k]),
    };
    let make = move |device| -> Result<Work, String> {
        let x = random(1, &[m, k], device)?;
        let w = random(2, &stored, Device::Cpu)?.rounded().on(device).map_err(|e| e.to_string())?;
        let precision = if device == Device::Cuda { Precision::Bf16 } else { Precision::F32 };
        Ok(Box::new(move || {
            let w = Matrix { precision, ..stored_as((layout, k, n), &w) };
            vec![product::product(&x, w, None, None)]
        }))
    };
    Case {
        name,
        problem: format!("{m} x {k} x {n}"),
        flops: 2.0 * (m * k * n) as f64,
        bytes: (4 * (m * k + m * n) + 2 * k * n) as f64,
        // the CPU does not round the activations: 2^-8 of a number at most, and of a sum of many far less
        tolerance: 4e-3,
        is_compared: m * k * n <= 1 << 36,
        make: Box::new(make),
    }
}

/// Log-probabilities of a token for each row, and the gradient of the logits.
fn loss_case(size: Size) -> Case {
    let [t, c, v] = if size == Size::Full { [640, 768, 50257] } else { [9, 20, 33] };
    let target = move |row: u32| Target { row, token: (row * 7919) % v as u32, weight: 1.0 / t as f32 };
    let case = of_tensors("head and loss", [&[t, c], &[v, c]], t * v, move |[h, w]| {
        let targets: Vec<Target> = (0..t as u32).map(target).collect();
        let head = stored_as((Layout::OutIn, c, v), w);
        let scores = score::score((h, 0..t), (head, None), &targets, true);
        let log_probs = Tensor::from_vec(&[t], scores.log_probs);
        [Some(log_probs), scores.d_logits].into_iter().flatten().collect()
    });
    // logits of random numbers are large, and one rounding of them is a large part of a probability
    let tolerance = 1e-3;
    Case { problem: format!("{t} x {c} x {v}"), flops: 2.0 * (t * c * v) as f64, tolerance, ..case }
}

fn optimizer_cases(n: usize) -> Vec<Case> {
    let shape = [n];
    let decay = 0.01;
    let adamw = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: decay };
    let adam = move |device| -> Result<Work, String> {
        let (g, p, m) = (random(1, &shape, device)?, random(2, &shape, device)?, random(3, &shape, device)?);
        let state = RefCell::new([p, m, g.zeros_beside(&shape)]);
        // they are changed where they lie: what is returned is dropped before the next step
        Ok(Box::new(move || {
            let [p, m, v] = &mut *state.borrow_mut();
            optim::adamw(adamw, 3, &g, [p, m, v]);
            vec![p.clone(), m.clone(), v.clone()]
        }))
    };
    let descent = move |device| -> Result<Work, String> {
        let (g, p) = (random(1, &shape, device)?, random(2, &shape, device)?);
        let state = RefCell::new([p, g.zeros_beside(&[0])]);
        Ok(Box::new(move || {
            let [p, velocity] = &mut *state.borrow_mut();
            optim::sgd(Sgd { lr: 1e-3, momentum: 0.0, weight_decay: decay }, &g, [p, velocity]);
            vec![p.clone()]
        }))
    };
    let same = |all: &[Tensor; 1]| all.to_vec();
    vec![
        Case { make: Box::new(adam), ..of_tensors("AdamW", [&shape], 6 * n, same) },
        Case { make: Box::new(descent), ..of_tensors("SGD", [&shape], 2 * n, same) },
        of_tensors("sum of squares", [&shape], 0, |x| {
            vec![Tensor::from_vec(&[1], vec![optim::sum_of_squares(x) as f32])]
        }),
    ]
}
