//! Numbers that are no tensor, such as row numbers and angles, with a copy on the GPU if one was wanted there.

use std::ops::Deref;
#[cfg(feature = "cuda")]
use std::sync::OnceLock;

#[cfg(feature = "cuda")]
use kernels::cuda::{Buffer, Failed, Number, Slice};

/// The copy of numbers that stand beside it and never change.
pub(crate) struct Mirror<T: Mirrored> {
    #[cfg(feature = "cuda")]
    copy: OnceLock<Buffer<T>>,
    #[cfg(not(feature = "cuda"))]
    copy: std::marker::PhantomData<T>,
}

/// Numbers that a GPU can hold.
#[cfg(feature = "cuda")]
pub(crate) trait Mirrored: Number {}
#[cfg(feature = "cuda")]
impl<T: Number> Mirrored for T {}
/// Numbers that a GPU can hold.
#[cfg(not(feature = "cuda"))]
pub(crate) trait Mirrored {}
#[cfg(not(feature = "cuda"))]
impl<T> Mirrored for T {}

impl<T: Mirrored> Default for Mirror<T> {
    fn default() -> Self {
        Mirror { copy: Default::default() }
    }
}

#[cfg(feature = "cuda")]
impl<T: Mirrored> Mirror<T> {
    /// The copy of `numbers`, which are the same each time.
    pub(crate) fn of(&self, gpu: crate::gpu::Gpu, numbers: &[T]) -> Result<Slice<'_, T>, Failed> {
        if self.copy.get().is_none() {
            // two at one time would be a copy too many, and no mistake
            let _ = self.copy.set(gpu.upload(numbers)?);
        }
        Ok(self.copy.get().expect("it was just put there").slice())
    }
}

/// Numbers of rows, queries or positions.
#[derive(Default)]
pub struct Indices {
    numbers: Vec<u32>,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    mirror: Mirror<u32>,
}

impl Indices {
    /// To be changed. What a GPU has of them is forgotten.
    pub fn numbers_mut(&mut self) -> &mut Vec<u32> {
        self.mirror = Mirror::default();
        &mut self.numbers
    }

    /// On the GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn on(&self, gpu: crate::gpu::Gpu) -> Result<Slice<'_, u32>, Failed> {
        self.mirror.of(gpu, &self.numbers)
    }
}

impl Deref for Indices {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.numbers
    }
}

impl From<Vec<u32>> for Indices {
    fn from(numbers: Vec<u32>) -> Indices {
        Indices { numbers, mirror: Mirror::default() }
    }
}

impl FromIterator<u32> for Indices {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Indices {
        numbers.into_iter().collect::<Vec<u32>>().into()
    }
}

impl Clone for Indices {
    fn clone(&self) -> Indices {
        self.numbers.clone().into()
    }
}

impl PartialEq for Indices {
    fn eq(&self, other: &Indices) -> bool {
        self.numbers == other.numbers
    }
}

impl Eq for Indices {}

impl std::fmt::Debug for Indices {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.numbers.fmt(f)
    }
}
