//! Slices that begin between the vectors of four that the GPU moves at best: other kernels, the same bits.

use prompt_tuning_kernels::{
    activation::{self, Activation, cuda::Gated},
    elementwise,
    matmul::{Layout, cuda as matmul},
    optim::{self, AdamW, Sgd},
};

use crate::{
    device::cuda::{Host, hosts, read, write},
    normals,
};

/// Numbers that begin `skipped` after a boundary of 16 bytes.
struct Shifted {
    numbers: Vec<f32>,
    skipped: usize,
}

impl Shifted {
    fn new(seed: u64, n: usize, skipped: usize) -> Shifted {
        let mut numbers = vec![f32::NAN; skipped];
        numbers.extend(normals(seed, n).iter().map(|x| x.abs()));
        assert!(numbers.as_ptr().addr().is_multiple_of(16), "as allocators give it");
        Shifted { numbers, skipped }
    }

    fn get(&self) -> &[f32] {
        &self.numbers[self.skipped..]
    }

    fn get_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[self.skipped..]
    }
}

/// Everything that goes number by number, and a product.
fn results(host: &Host, n: usize, skipped: usize) -> Vec<Vec<f32>> {
    let numbers = |seed| Shifted::new(seed, n, skipped);
    let (a, b, c) = (numbers(1), numbers(2), numbers(3));
    let mut all = Vec::new();
    let mut keep = |x: Shifted| all.push(x.get().to_vec());
    let (mut y, mut z) = (numbers(4), numbers(5));
    let act = Activation::Silu;
    activation::cuda::forward(host, act, read(a.get()), write(y.get_mut())).unwrap();
    activation::cuda::backward(host, act, read(a.get()), read(b.get()), write(z.get_mut())).unwrap();
    [y, z].into_iter().for_each(&mut keep);
    let gated = Gated { act, gate: read(a.get()), up: read(b.get()) };
    let (mut y, mut d_gate, mut d_up) = (numbers(4), numbers(5), numbers(6));
    activation::cuda::gated_forward(host, gated, write(y.get_mut())).unwrap();
    let gradients = [write(d_gate.get_mut()), write(d_up.get_mut())];
    activation::cuda::gated_backward(host, gated, read(c.get()), gradients).unwrap();
    [y, d_gate, d_up].into_iter().for_each(&mut keep);
    let (mut sum, mut acc, mut scaled) = (numbers(4), numbers(5), numbers(6));
    elementwise::cuda::add(host, read(a.get()), read(b.get()), write(sum.get_mut())).unwrap();
    elementwise::cuda::accumulate(host, read(a.get()), write(acc.get_mut())).unwrap();
    elementwise::cuda::scale(host, 0.3, read(a.get()), write(scaled.get_mut())).unwrap();
    [sum, acc, scaled].into_iter().for_each(&mut keep);
    let adamw = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 };
    let momentum = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.01 };
    let (mut p, mut m, mut v) = (numbers(4), numbers(5), numbers(6));
    let state = [write(p.get_mut()), write(m.get_mut()), write(v.get_mut())];
    optim::cuda::adamw(host, adamw, 3, read(a.get()), state).unwrap();
    [p, m, v].into_iter().for_each(&mut keep);
    let (mut p, mut velocity, mut q) = (numbers(4), numbers(5), numbers(6));
    optim::cuda::sgd(host, momentum, read(a.get()), write(p.get_mut()), write(velocity.get_mut())).unwrap();
    let plain = Sgd { momentum: 0.0, ..momentum };
    optim::cuda::sgd(host, plain, read(a.get()), write(q.get_mut()), write(&mut [])).unwrap();
    [p, velocity, q].into_iter().for_each(&mut keep);
    // [n / 8, 8] times [8, 8]
    for layout in [Layout::InOut, Layout::OutIn] {
        let (weight, mut y) = (Shifted::new(7, 64, skipped), numbers(8));
        let elements = matmul::Elements::F32(read(weight.get()));
        let w = matmul::Weight { elements, layout, n_in: 8, n_out: 8, rung: matmul::Rung::Tiled };
        matmul::forward(host, read(a.get()), w, matmul::Epilogue::default(), write(y.get_mut())).unwrap();
        keep(y);
    }
    all
}

#[test]
fn unaligned_slices_give_the_same_bits() {
    for host in hosts() {
        for n in [8, 1024, 4096] {
            let expected = results(&host, n, 0);
            for skipped in 1..4 {
                assert!(
                    results(&host, n, skipped) == expected,
                    "{host:?}: {n} numbers, {skipped} after a boundary"
                );
            }
        }
    }
}
