//! Number by number: sums, factors, activations.

use kernels::activation::{self, Activation, Gated};
use kernels::{Isa, elementwise};

use crate::Tensor;

/// `a + b`, of one shape.
pub fn add(a: &Tensor, b: &Tensor) -> Tensor {
    on_gpu!(|gpu| &[a, b] => gpu.one(a.shape(), |y| {
        elementwise::cuda::add(gpu.launcher(), gpu.read(a)?.slice(), gpu.read(b)?.slice(), y)
    }));
    Tensor::build(a.shape(), |y| elementwise::add(Isa::best(), a.f32s(), b.f32s(), y))
}

/// `a + b`, into the memory of whichever nobody else holds. Panics when they differ in size.
pub fn sum(mut a: Tensor, mut b: Tensor) -> Tensor {
    assert_eq!(a.len(), b.len(), "gradients of one value have one size");
    on_gpu!(|gpu| &[&a, &b] => {
        if a.alone_on_gpu().is_none() {
            std::mem::swap(&mut a, &mut b);
        }
        if a.alone_on_gpu().is_none() {
            return add(&a, &b);
        }
        let shape = a.shape().to_vec();
        gpu.accumulated(Some(a), &shape, |acc, _| {
            elementwise::cuda::accumulate(gpu.launcher(), gpu.read(&b)?.slice(), acc)
        })
    });
    if let Some(acc) = a.get_mut() {
        elementwise::accumulate(Isa::best(), b.f32s(), acc);
        return a;
    }
    if let Some(acc) = b.get_mut() {
        elementwise::accumulate(Isa::best(), a.f32s(), acc);
        return b;
    }
    add(&a, &b)
}

/// `factor * x`
pub fn scale(factor: f32, x: &Tensor) -> Tensor {
    on_gpu!(|gpu| &[x] => gpu.one(x.shape(), |y| {
        elementwise::cuda::scale(gpu.launcher(), factor, gpu.read(x)?.slice(), y)
    }));
    Tensor::build(x.shape(), |y| elementwise::scale(Isa::best(), factor, x.f32s(), y))
}

/// `[T, C] -> [C]`
pub fn sum_of_rows(x: &Tensor) -> Tensor {
    on_gpu!(|gpu| &[x] => gpu.one(&[x.width()], |y| {
        let slabs = kernels::cuda::Slabs::of(x.rows());
        let mut partial = gpu.room(slabs.n * x.width())?;
        elementwise::cuda::sum_of_rows(gpu.launcher(), gpu.read(x)?.slice(), partial.slice_mut(), y)
    }));
    Tensor::build(&[x.width()], |y| elementwise::sum_of_rows(Isa::best(), x.f32s(), y))
}

/// `act(x)`
pub fn activation(act: Activation, x: &Tensor) -> Tensor {
    on_gpu!(|gpu| &[x] => gpu.one(x.shape(), |y| {
        activation::cuda::forward(gpu.launcher(), act, gpu.read(x)?.slice(), y)
    }));
    Tensor::build(x.shape(), |y| activation::forward(Isa::best(), act, x.f32s(), y))
}

/// `d_x` of [`activation()`].
pub fn activation_backward(act: Activation, x: &Tensor, d_y: &Tensor) -> Tensor {
    on_gpu!(|gpu| &[x, d_y] => gpu.one(x.shape(), |d_x| {
        activation::cuda::backward(gpu.launcher(), act, gpu.read(x)?.slice(), gpu.read(d_y)?.slice(), d_x)
    }));
    Tensor::build(x.shape(), |d_x| activation::backward(Isa::best(), act, x.f32s(), d_y.f32s(), d_x))
}

/// `act(gate) * up`
pub fn gated(act: Activation, gate: &Tensor, up: &Tensor) -> Tensor {
    on_gpu!(|gpu| &[gate, up] => gpu.one(gate.shape(), |y| {
        let (gate, up) = (gpu.read(gate)?, gpu.read(up)?);
        let inputs = activation::cuda::Gated { act, gate: gate.slice(), up: up.slice() };
        activation::cuda::gated_forward(gpu.launcher(), inputs, y)
    }));
    let inputs = Gated { act, gate: gate.f32s(), up: up.f32s() };
    Tensor::build(gate.shape(), |y| activation::gated_forward(Isa::best(), inputs, y))
}

/// `[d_gate, d_up]` of [`gated()`].
pub fn gated_backward(act: Activation, [gate, up]: [&Tensor; 2], d_y: &Tensor) -> [Tensor; 2] {
    on_gpu!(|gpu| &[gate, up, d_y] => gpu.build([gate.shape(), up.shape()], |gradients| {
        let (gate, up) = (gpu.read(gate)?, gpu.read(up)?);
        let inputs = activation::cuda::Gated { act, gate: gate.slice(), up: up.slice() };
        activation::cuda::gated_backward(gpu.launcher(), inputs, gpu.read(d_y)?.slice(), gradients)
    }));
    let inputs = Gated { act, gate: gate.f32s(), up: up.f32s() };
    let mut d_gate = Tensor::room(gate.shape());
    let d_up = Tensor::build(up.shape(), |d_up| {
        activation::gated_backward(Isa::best(), inputs, d_y.f32s(), d_gate.fresh(), d_up);
    });
    [d_gate, d_up]
}
