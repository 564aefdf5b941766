//! The number formats tensors are stored in.

use std::fmt;

use kernels::BlockFormat;

/// A number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// IEEE 16-bit float.
    F16,
    /// bfloat16.
    Bf16,
    /// Quantised, in blocks.
    Blocks(BlockFormat),
}

impl DType {
    /// Numbers that are stored together: a row is a multiple of it.
    pub fn per_block(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::Bf16 => 1,
            DType::Blocks(format) => format.numbers(),
        }
    }

    /// Bytes of `numbers`, which are whole blocks.
    pub fn bytes(self, numbers: usize) -> usize {
        match self {
            DType::F32 => 4 * numbers,
            DType::F16 | DType::Bf16 => 2 * numbers,
            DType::Blocks(format) => numbers / format.numbers() * format.bytes(),
        }
    }

    /// At multiples of how many bytes it can be read.
    pub fn alignment(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
            DType::Blocks(_) => 1,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::Bf16 => "BF16",
            DType::Blocks(format) => format.name(),
        })
    }
}
