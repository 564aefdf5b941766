//! Random numbers to compute with. Never zeros: denormals, branches and even the power a multiplier draws depend on them.

use half::{bf16, f16};
use kernels::Elements;
use kernels::testing::Rng;
use rayon::prelude::*;

/// Numbers that one task makes.
const PART: usize = 1 << 16;

/// `n` numbers of mean 0 and variance `scale²`, the same for the same seed.
pub fn normals(seed: u64, n: usize, scale: f32) -> Vec<f32> {
    let mut out = vec![0.0; n];
    out.par_chunks_mut(PART).enumerate().for_each(|(i, part)| {
        let mut rng = Rng(seed << 32 | i as u64);
        part.iter_mut().for_each(|x| *x = scale * rng.normal() as f32);
    });
    out
}

/// The numbers of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// Half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

    /// As tables write it.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        if self == Dtype::F32 { 4 } else { 2 }
    }
}

/// Numbers of one dtype.
#[derive(Clone, Debug)]
pub enum Numbers {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// Half precision.
    F16(Vec<f16>),
    /// bfloat16.
    Bf16(Vec<bf16>),
}

impl Numbers {
    /// `x` rounded to `dtype`.
    pub fn round(x: Vec<f32>, dtype: Dtype) -> Numbers {
        match dtype {
            Dtype::F32 => Numbers::F32(x),
            Dtype::F16 => Numbers::F16(x.par_iter().map(|&x| f16::from_f32(x)).collect()),
            Dtype::Bf16 => Numbers::Bf16(x.par_iter().map(|&x| bf16::from_f32(x)).collect()),
        }
    }

    /// As kernels take them.
    pub fn elements(&self) -> Elements<'_> {
        match self {
            Numbers::F32(x) => Elements::F32(x),
            Numbers::F16(x) => Elements::F16(x),
            Numbers::Bf16(x) => Elements::Bf16(x),
        }
    }

    /// Number `i`, exactly.
    pub fn wide(&self, i: usize) -> f64 {
        match self {
            Numbers::F32(x) => x[i].into(),
            Numbers::F16(x) => x[i].into(),
            Numbers::Bf16(x) => x[i].into(),
        }
    }
}

/// `x` as f64.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Up to `n` different indices below `len`, ascending: the first, the last, and some between.
pub fn sample(len: usize, n: usize) -> Vec<usize> {
    let last = len.saturating_sub(1);
    let n = n.clamp(2, len.max(2)) - 1;
    let mut at: Vec<usize> = (0..=n).map(|i| last * i / n).collect();
    at.dedup();
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_hold_both_ends() {
        assert_eq!(sample(1, 8), [0]);
        assert_eq!(sample(3, 8), [0, 1, 2]);
        let s = sample(820, 8);
        assert_eq!((s.len(), s[0], s[7]), (8, 0, 819));
    }

    #[test]
    fn numbers_do_not_depend_on_how_many_are_made() {
        let (few, many) = (normals(3, 100, 1.0), normals(3, 200_000, 1.0));
        assert_eq!(few, many[..100]);
        assert_ne!(many[..PART], many[PART..2 * PART]);
    }

    #[test]
    fn rounding_is_that_of_the_dtype() {
        for dtype in Dtype::ALL {
            let third = Numbers::round(vec![1.0 / 3.0], dtype).wide(0);
            let bits = [23, 10, 7][dtype as usize];
            let error = (third * 3.0 - 1.0).abs();
            assert!(
                error < 2f64.powi(-bits) && (dtype == Dtype::F32 || error > 2f64.powi(-bits - 5)),
                "{dtype:?}"
            );
        }
    }
}
