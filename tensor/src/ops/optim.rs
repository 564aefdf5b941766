//! Steps of the optimizers, on parameters where they lie, and what is asked of gradients before.

use kernels::optim::{self as kernel, Adafactor, AdamW, FactoredMoments, Sgd};
use kernels::{Isa, elementwise};

use crate::Tensor;

/// One step of AdamW; `step` counts from 1, and `m` and `v` are the moments.
pub fn adamw(settings: AdamW, step: u64, grad: &Tensor, [param, m, v]: [&mut Tensor; 3]) {
    on_gpu!(|gpu| &[&*param] => gpu.change([param, m, v], |all| {
        kernel::cuda::adamw(gpu.launcher(), settings, step, gpu.read(grad)?.slice(), all)
    }));
    let (param, m, v) = (param.make_mut(), m.make_mut(), v.make_mut());
    kernel::adamw(Isa::best(), settings, step, param, grad.f32s(), m, v);
}

/// One step of gradient descent.
pub fn sgd(settings: Sgd, grad: &Tensor, [param, velocity]: [&mut Tensor; 2]) {
    on_gpu!(|gpu| &[&*param] => gpu.change([param, velocity], |[param, velocity]| {
        kernel::cuda::sgd(gpu.launcher(), settings, gpu.read(grad)?.slice(), param, velocity)
    }));
    kernel::sgd(Isa::best(), settings, param.make_mut(), grad.f32s(), velocity.make_mut());
}

/// One step of Adafactor; `step` counts from 1, and `row` and `col` are the moments. Those on a GPU are read back, and sent again:
/// there is no kernel.
pub fn adafactor(settings: Adafactor, step: u64, grad: &Tensor, [param, row, col]: [&mut Tensor; 3]) {
    on_gpu!(|_| &[&*param] => {
        let all = [param, row, col];
        let [mut param, mut row, mut col] = all.each_ref().map(|tensor| tensor.here());
        adafactor(settings, step, grad, [&mut param, &mut row, &mut col]);
        all.into_iter().zip([param, row, col]).for_each(|(there, here)| there.set(here.f32s()));
    });
    let (param, row, col) = (param.make_mut(), row.make_mut(), col.make_mut());
    kernel::adafactor(Isa::best(), settings, step, param, grad.f32s(), FactoredMoments { row, col });
}

/// The sum of the squares of all numbers of all tensors. They are on one device; from a GPU something is read back once.
pub fn sum_of_squares(all: &[Tensor]) -> f64 {
    on_gpu!(|gpu| &all.iter().collect::<Vec<_>>() => {
        let parts = |x: &Tensor| elementwise::cuda::squares(x.len());
        let sums = gpu.one(&[all.iter().map(parts).sum()], |mut sums| {
            let mut from = 0;
            for x in all {
                let to = from + parts(x);
                elementwise::cuda::sums_of_squares(gpu.launcher(), gpu.read(x)?.slice(), sums.lend().part(from..to))?;
                from = to;
            }
            Ok(())
        });
        sums.f32s().iter().map(|&x| f64::from(x)).sum()
    });
    all.iter().map(|x| elementwise::sum_of_squares(x.f32s())).sum()
}

/// Multiplies all numbers by `factor`.
pub fn shorten(x: &mut Tensor, factor: f32) {
    on_gpu!(|_| &[&*x] => *x = super::pointwise::scale(factor, x));
    x.make_mut().iter_mut().for_each(|x| *x *= factor);
}
