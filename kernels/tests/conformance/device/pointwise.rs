//! Activations, sums and scalings, rotations and optimizer steps of every device.

use prompt_tuning_kernels::{
    activation::{self, Activation},
    elementwise,
    optim::{self, AdamW, Sgd},
    rope,
};

#[cfg(feature = "cuda")]
use super::cuda::{read, write};
use super::{Device, unwritten};

impl Device {
    pub(crate) fn activation(self, act: Activation, x: &[f32]) -> Vec<f32> {
        let mut y = unwritten(x.len());
        match self {
            Device::Cpu(isa) => activation::forward(isa, act, x, &mut y),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => activation::cuda::forward(&host, act, read(x), write(&mut y)).unwrap(),
        }
        y
    }

    pub(crate) fn activation_backward(self, act: Activation, x: &[f32], d_y: &[f32]) -> Vec<f32> {
        let mut d_x = unwritten(x.len());
        match self {
            Device::Cpu(isa) => activation::backward(isa, act, x, d_y, &mut d_x),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                activation::cuda::backward(&host, act, read(x), read(d_y), write(&mut d_x)).unwrap();
            }
        }
        d_x
    }

    pub(crate) fn gated(self, act: Activation, gate: &[f32], up: &[f32]) -> Vec<f32> {
        let mut y = unwritten(gate.len());
        match self {
            Device::Cpu(isa) => activation::gated_forward(isa, activation::Gated { act, gate, up }, &mut y),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let inputs = activation::cuda::Gated { act, gate: read(gate), up: read(up) };
                activation::cuda::gated_forward(&host, inputs, write(&mut y)).unwrap();
            }
        }
        y
    }

    /// `[d_gate, d_up]`
    pub(crate) fn gated_backward(
        self,
        act: Activation,
        gate: &[f32],
        up: &[f32],
        d_y: &[f32],
    ) -> [Vec<f32>; 2] {
        let (mut d_gate, mut d_up) = (unwritten(gate.len()), unwritten(gate.len()));
        match self {
            Device::Cpu(isa) => {
                activation::gated_backward(
                    isa,
                    activation::Gated { act, gate, up },
                    d_y,
                    &mut d_gate,
                    &mut d_up,
                );
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let inputs = activation::cuda::Gated { act, gate: read(gate), up: read(up) };
                let gradients = [write(&mut d_gate), write(&mut d_up)];
                activation::cuda::gated_backward(&host, inputs, read(d_y), gradients).unwrap();
            }
        }
        [d_gate, d_up]
    }

    pub(crate) fn add(self, a: &[f32], b: &[f32]) -> Vec<f32> {
        let mut out = unwritten(a.len());
        match self {
            Device::Cpu(isa) => elementwise::add(isa, a, b, &mut out),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => elementwise::cuda::add(&host, read(a), read(b), write(&mut out)).unwrap(),
        }
        out
    }

    pub(crate) fn accumulate(self, x: &[f32], acc: &mut [f32]) {
        match self {
            Device::Cpu(isa) => elementwise::accumulate(isa, x, acc),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => elementwise::cuda::accumulate(&host, read(x), write(acc)).unwrap(),
        }
    }

    pub(crate) fn scale(self, factor: f32, x: &[f32]) -> Vec<f32> {
        let mut out = unwritten(x.len());
        match self {
            Device::Cpu(isa) => elementwise::scale(isa, factor, x, &mut out),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => elementwise::cuda::scale(&host, factor, read(x), write(&mut out)).unwrap(),
        }
        out
    }

    pub(crate) fn sum_of_rows(self, x: &[f32], width: usize) -> Vec<f32> {
        let mut out = unwritten(width);
        match self {
            Device::Cpu(isa) => elementwise::sum_of_rows(isa, x, &mut out),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let slabs = prompt_tuning_kernels::cuda::Slabs::of(x.len() / width.max(1));
                let mut partial = unwritten(slabs.n * width);
                elementwise::cuda::sum_of_rows(&host, read(x), write(&mut partial), write(&mut out)).unwrap();
            }
        }
        out
    }

    pub(crate) fn sum_of_squares(self, x: &[f32]) -> f64 {
        match self {
            Device::Cpu(_) => elementwise::sum_of_squares(x),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let mut sums = unwritten(elementwise::cuda::squares(x.len()));
                elementwise::cuda::sums_of_squares(&host, read(x), write(&mut sums)).unwrap();
                sums.iter().map(|&x| f64::from(x)).sum()
            }
        }
    }

    /// Rotated, or with `back` rotated back.
    pub(crate) fn rope(self, table: &rope::Table, x: &[f32], back: bool) -> Vec<f32> {
        let mut y = unwritten(x.len());
        match (self, back) {
            (Device::Cpu(isa), false) => rope::forward(isa, table, x, &mut y),
            (Device::Cpu(isa), true) => rope::backward(isa, table, x, &mut y),
            #[cfg(feature = "cuda")]
            (Device::Cuda(host), _) => {
                let (cos, sin) = (read(&table.cos), read(&table.sin));
                let table = rope::cuda::Table { cos, sin, half: table.half, pairs: table.pairs };
                let rotate = if back { rope::cuda::backward } else { rope::cuda::forward };
                rotate(&host, table, read(x), write(&mut y)).unwrap();
            }
        }
        y
    }

    pub(crate) fn adamw(self, settings: AdamW, step: u64, grad: &[f32], [p, m, v]: [&mut [f32]; 3]) {
        match self {
            Device::Cpu(isa) => optim::adamw(isa, settings, step, p, grad, m, v),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let state = [write(p), write(m), write(v)];
                optim::cuda::adamw(&host, settings, step, read(grad), state).unwrap();
            }
        }
    }

    pub(crate) fn sgd(self, settings: Sgd, grad: &[f32], p: &mut [f32], velocity: &mut [f32]) {
        match self {
            Device::Cpu(isa) => optim::sgd(isa, settings, p, grad, velocity),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                optim::cuda::sgd(&host, settings, read(grad), write(p), write(velocity)).unwrap();
            }
        }
    }
}
