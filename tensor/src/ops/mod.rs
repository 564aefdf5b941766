//! What is computed with tensors: which kernel runs, on which device, and into whose memory.
//!
//! An operation runs on the GPU if one of its inputs lies there; inputs that do not are sent. Every other operation, and those
//! that have no kernel there, runs on the CPU, and inputs that lie on the GPU are read back.
//!
//! Gradients are known by `_backward` in their names. Nothing is remembered here: that is the tape's business.

/// The result of `$then` if one of `$tensors` lies on the GPU, which is `$gpu` there, or `_` where nobody needs it.
macro_rules! on_gpu {
    (|$gpu:pat_param| $tensors:expr => $then:expr) => {
        #[cfg(feature = "cuda")]
        if let Some($gpu) = crate::gpu::Gpu::of($tensors) {
            return $then;
        }
    };
}

pub mod attention;
pub mod norm;
pub mod optim;
pub mod pointwise;
pub mod product;
pub mod rope;
pub mod rows;
pub mod score;

pub use pointwise::sum;

use crate::Tensor;

/// A gradient of this shape: `write(d, true)` adds to `before` where nobody else holds that; else `write(d, false)` makes a new
/// one, to which `before` is added.
pub(crate) fn accumulated(
    before: Option<Tensor>,
    shape: &[usize],
    write: impl FnOnce(&mut [f32], bool),
) -> Tensor {
    let Some(mut before) = before else {
        return Tensor::build(shape, |d| write(d, false));
    };
    if let Some(d) = before.get_mut() {
        write(d, true);
        return before;
    }
    sum(before, Tensor::build(shape, |d| write(d, false)))
}
