//! Where numbers lie and are computed with.
//!
//! A tensor is on the device that it was made on: weights where [`Checkpoint::on`](crate::Checkpoint::on) puts them, and the
//! result of an operation on the GPU if one of its inputs lies there ([`crate::ops`]). So a model whose weights are on the GPU
//! computes there, and nothing above this crate asks where.

use crate::Result;

/// A place to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// Here.
    #[default]
    Cpu,
    /// The first GPU of NVIDIA's.
    Cuda,
}

impl Device {
    /// Starts it.
    ///
    /// # Errors
    /// There is no such device that can be used, or this program was built without support for it.
    pub fn start(self) -> Result<()> {
        match self {
            Device::Cpu => Ok(()),
            #[cfg(feature = "cuda")]
            Device::Cuda => crate::gpu::Gpu::get().map(|_| ()),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda => {
                Err(crate::Error::Device { why: "this program was built without the feature `cuda`".into() })
            }
        }
    }
}

/// Whether all that was computed so far has worked. On a GPU a failure shows later than it happens; until somebody asks, what
/// follows it is NaN.
///
/// # Errors
/// What failed first.
pub fn check() -> Result<()> {
    #[cfg(feature = "cuda")]
    crate::gpu::check()?;
    Ok(())
}

/// How many tensors this thread has read back from a GPU so far: each waits until all that was launched before is done.
pub fn read_back_here() -> usize {
    #[cfg(feature = "cuda")]
    return crate::gpu::read_back_here();
    #[cfg(not(feature = "cuda"))]
    0
}
