//! A long short-term memory, one direction, over one sequence.
//!
//! ```text
//! [i f g o] = σ σ tanh σ (x_t + W h_{t-1} + b)          x_t holds the input's part of the four gates
//! c_t = f c_{t-1} + i g          h_t = o tanh(c_t)
//! backward, from the last step to the first:
//! d_h = d_y_t + Wᵀ d_gates_{t+1}            d_c = d_h o (1 - tanh² c_t) + f_{t+1} d_c_{t+1}
//! d_i = d_c g i(1-i)   d_f = d_c c_{t-1} f(1-f)   d_g = d_c i (1-g²)   d_o = d_h tanh(c_t) o(1-o)
//! d_x_t = d_gates_t    d_W = Σ_t d_gates_t h_{t-1}ᵀ    d_b = Σ_t d_gates_t
//! ```
//! The order of the gates is torch's. Remembers the gates, `c` and `h`. It serves prompt encoders of some tens of steps.
//! Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.

use kernels::Isa;
use kernels::matmul::{self, Elements, Epilogue, Layout, Precision, Weight, reference::Shape};
use tensor::Tensor;

use crate::{Gradients, NodeId, Op, Tape, Value};

/// In which order the steps are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first row to the last.
    Forward,
    /// From the last row to the first.
    Backward,
}

/// `x` is `[T, 4H]`, `weight` `[4H, H]`, `bias` `[4H]`; the result is `[T, H]`. It begins with `h = c = 0`.
pub fn lstm(tape: &Tape, x: &Value, weight: &Value, bias: &Value, direction: Direction) -> Value {
    let (steps, width) = (x.tensor().rows(), x.tensor().width() / 4);
    let mut gates = x.tensor().f32s().to_vec();
    let mut cells = vec![0.0; steps * width];
    let w = weight.tensor().clone();
    let y = Tensor::build(&[steps, width], |y| {
        let mut before = None;
        for t in order(steps, direction) {
            let gates = &mut gates[t * 4 * width..][..4 * width];
            let (h, c) = split(before, y, &cells, width);
            recur(&w, &h, bias.tensor().f32s(), gates);
            step(gates, &c, &mut cells[t * width..][..width], &mut y[t * width..][..width]);
            before = Some(t);
        }
    });
    tape.record(y.clone(), &[x, weight, bias], || Lstm {
        nodes: [x, weight, bias].map(Value::node),
        direction,
        w,
        gates,
        cells,
        h: y,
    })
}

fn order(steps: usize, direction: Direction) -> Box<dyn DoubleEndedIterator<Item = usize>> {
    match direction {
        Direction::Forward => Box::new(0..steps),
        Direction::Backward => Box::new((0..steps).rev()),
    }
}

/// `h` and `c` of the step before, zeros at first.
fn split(before: Option<usize>, h: &[f32], c: &[f32], width: usize) -> (Vec<f32>, Vec<f32>) {
    let of = |x: &[f32]| before.map_or(vec![0.0; width], |t| x[t * width..][..width].to_vec());
    (of(h), of(c))
}

fn weight(w: &Tensor) -> Weight<'_> {
    let &[n_out, n_in] = w.shape() else { panic!("the weight of an LSTM is a matrix") };
    let elements = Elements::F32(w.f32s());
    Weight { elements, layout: Layout::OutIn, n_in, n_out, precision: Precision::F32 }
}

/// `gates += W h + b`
fn recur(w: &Tensor, h: &[f32], bias: &[f32], gates: &mut [f32]) {
    let x = gates.to_vec();
    matmul::forward(Isa::best(), h, weight(w), Epilogue { bias: Some(bias), residual: Some(&x) }, gates);
}

/// Activates the gates of one step, and computes `c` and `h`.
fn step(gates: &mut [f32], c_before: &[f32], c: &mut [f32], h: &mut [f32]) {
    let width = c.len();
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    for (k, gate) in gates.chunks_exact_mut(width).enumerate() {
        gate.iter_mut().for_each(|x| *x = if k == 2 { x.tanh() } else { sigmoid(*x) });
    }
    for j in 0..width {
        let [i, f, g, o] = at(gates, j);
        c[j] = f * c_before[j] + i * g;
        h[j] = o * c[j].tanh();
    }
}

fn at(gates: &[f32], j: usize) -> [f32; 4] {
    let width = gates.len() / 4;
    [0, 1, 2, 3].map(|k| gates[k * width + j])
}

struct Lstm {
    /// `x`, weight, bias.
    nodes: [Option<NodeId>; 3],
    direction: Direction,
    w: Tensor,
    gates: Vec<f32>,
    cells: Vec<f32>,
    h: Tensor,
}

impl Op for Lstm {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let (steps, width) = (self.h.rows(), self.h.width());
        let mut h_before = vec![0.0; steps * width];
        let d_gates = Tensor::build(&[steps, 4 * width], |d_gates| {
            let mut d_h = vec![0.0; width];
            let mut d_c = vec![0.0; width];
            let times: Vec<usize> = order(steps, self.direction).collect();
            for (n, &t) in times.iter().enumerate().rev() {
                let before = n.checked_sub(1).map(|n| times[n]);
                let (h, c) = split(before, self.h.f32s(), &self.cells, width);
                h_before[t * width..][..width].copy_from_slice(&h);
                d_h.iter_mut().zip(&d_y.f32s()[t * width..][..width]).for_each(|(sum, d)| *sum += d);
                let d_gates = &mut d_gates[t * 4 * width..][..4 * width];
                self.step_back(t, &c, &d_h, &mut d_c, d_gates);
                matmul::backward_input(Isa::best(), d_gates, weight(&self.w), &mut d_h);
            }
        });
        let [x, w, b] = self.nodes;
        grads.add(w, || {
            Tensor::build(self.w.shape(), |d_w| {
                let shape = Shape { layout: Layout::OutIn, n_in: width, n_out: 4 * width };
                matmul::backward_weight(Isa::best(), (&h_before, d_gates.f32s()), shape, None, d_w);
            })
        });
        grads.add(b, || {
            Tensor::build(&[4 * width], |d_b| {
                d_b.fill(0.0);
                for d in d_gates.f32s().chunks_exact(4 * width) {
                    d_b.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
                }
            })
        });
        grads.add(x, || d_gates);
    }
}

impl Lstm {
    /// The gradient of the gates of step `t`; `d_c` becomes that of the cell before.
    fn step_back(&self, t: usize, c_before: &[f32], d_h: &[f32], d_c: &mut [f32], d_gates: &mut [f32]) {
        let width = d_h.len();
        let gates = &self.gates[t * 4 * width..][..4 * width];
        for j in 0..width {
            let ([i, f, g, o], tanh_c) = (at(gates, j), self.cells[t * width + j].tanh());
            let d = d_c[j] + d_h[j] * o * (1.0 - tanh_c * tanh_c);
            d_gates[j] = d * g * i * (1.0 - i);
            d_gates[width + j] = d * c_before[j] * f * (1.0 - f);
            d_gates[2 * width + j] = d * i * (1.0 - g * g);
            d_gates[3 * width + j] = d_h[j] * tanh_c * o * (1.0 - o);
            d_c[j] = d * f;
        }
    }
}
