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
                let why = "this program was built without the feature `cuda`".into();
                Err(crate::Error::Device { why, out_of_memory: false })
            }
        }
    }
}

/// Whether all that was computed so far has worked. On a GPU a failure shows later than it happens; until somebody asks, what
/// follows it is NaN. There is one GPU and one answer for the whole process, and after a failure nothing is computed there again.
///
/// # Errors
/// What failed first.
pub fn check() -> Result<()> {
    #[cfg(feature = "cuda")]
    crate::gpu::check()?;
    Ok(())
}

/// [`check`], when all that was launched is done: nothing that was computed before can fail later.
///
/// # Errors
/// What failed first.
pub fn settled() -> Result<()> {
    #[cfg(feature = "cuda")]
    crate::gpu::settle();
    check()
}

/// Seconds that the GPU needs for what `work` launches, by its own clock.
///
/// # Errors
/// There is no GPU, or something failed on it.
pub fn seconds(work: impl FnOnce()) -> Result<f64> {
    Device::Cuda.start()?;
    #[cfg(feature = "cuda")]
    return crate::gpu::seconds(work);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = work;
        unreachable!("without the feature there is nothing to start")
    }
}

/// How many tensors this thread has read back from a GPU so far: each waits until all that was launched before is done.
pub fn read_back_here() -> usize {
    #[cfg(feature = "cuda")]
    return crate::gpu::read_back_here();
    #[cfg(not(feature = "cuda"))]
    0
}
