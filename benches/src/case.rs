//! One kernel on one problem.

use kernels::Isa;
use serde::{Deserialize, Serialize};

use crate::ceilings::Arithmetic;
use crate::peers::Product;

/// What sort of kernel: points of one kind share a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Products with many rows.
    Matmul,
    /// Products with at most 32 rows.
    FewRows,
    /// Attention.
    Attention,
    /// Layer norm and RMS norm.
    Norm,
    /// Plain and gated activations.
    Activation,
    /// The loss.
    CrossEntropy,
    /// Rotary positions, sums, and widening of other dtypes.
    Elementwise,
    /// Optimizer steps.
    Optimizer,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 8] = [
        Kind::Matmul,
        Kind::FewRows,
        Kind::Attention,
        Kind::Norm,
        Kind::Activation,
        Kind::CrossEntropy,
        Kind::Elementwise,
        Kind::Optimizer,
    ];

    /// As legends write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Matmul => "matrix product",
            Kind::FewRows => "product, 1 to 32 rows",
            Kind::Attention => "attention",
            Kind::Norm => "norms",
            Kind::Activation => "activations",
            Kind::CrossEntropy => "cross-entropy",
            Kind::Elementwise => "rotary positions, sums, widening",
            Kind::Optimizer => "optimizers",
        }
    }
}

/// What a kernel must do, whoever does it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// The instruction that does it best.
    pub arithmetic: Arithmetic,
    /// Operations: a multiply-add is two, everything else one.
    pub flops: f64,
    /// Bytes of the inputs, each counted once.
    pub read: usize,
    /// Bytes of the outputs.
    pub written: usize,
}

impl Work {
    /// `flops` of f32 on so many f32 read and written.
    pub fn f32(flops: usize, read: usize, written: usize) -> Work {
        Work { arithmetic: Arithmetic::F32, flops: flops as f64, read: 4 * read, written: 4 * written }
    }

    /// Bytes touched.
    pub fn bytes(self) -> usize {
        self.read + self.written
    }
}

/// A kernel with its inputs and outputs in memory.
pub trait Kernel {
    /// Computes the outputs.
    fn run(&mut self, isa: Isa);
    /// What `run` writes, all of it. Where it reads that too, there is nothing to spoil: then nothing, set back to what it
    /// was at first.
    fn outputs(&mut self) -> Vec<&mut [f32]>;
    /// Compares the outputs with the reference, where computing all of it takes too long at sampled places.
    ///
    /// # Errors
    /// Says where they differ.
    fn check(&self) -> Result<(), String>;
    /// The same as a plain f32 product, where it is one, and where its result goes.
    fn product(&mut self) -> Option<(Product<'_>, &mut [f32])> {
        None
    }
}

/// A kernel on a problem: its name, its work, and how to set it up.
pub struct Case {
    /// Which kernel.
    pub kernel: &'static str,
    /// What sort of kernel.
    pub kind: Kind,
    /// Sizes of the problem.
    pub shape: String,
    /// Of the weights, or of everything.
    pub dtype: &'static str,
    /// Whether it is compiled for each instruction set, or once.
    pub tiers: bool,
    /// What it must do.
    pub work: Work,
    /// Makes inputs and outputs. They can be large: only one case at a time has them.
    pub make: Box<dyn Fn() -> Box<dyn Kernel>>,
}

impl Case {
    /// `kernel shape dtype`.
    pub fn name(&self) -> String {
        format!("{} {} {}", self.kernel, self.shape, self.dtype)
    }
}

/// Makes the outputs worthless, computes them with `run`, and compares them with the reference.
///
/// # Errors
/// Says where they differ.
pub fn verify(kernel: &mut dyn Kernel, run: impl FnOnce(&mut dyn Kernel)) -> Result<(), String> {
    kernel.outputs().into_iter().for_each(|out| out.fill(f32::NAN));
    run(kernel);
    kernel.check()
}
