//! A tensor: shape, dtype and shared storage. Cloning one clones a pointer.

use std::sync::Arc;

use kernels::{Blocks, Elements, Isa, elementwise};

use crate::{Buffer, DType, Device, Mapped, Result};

/// Who owns the numbers.
#[derive(Clone, Debug)]
pub enum Storage {
    /// f32, made by a kernel or by us.
    Owned(Arc<Buffer>),
    /// A range of a checkpoint, where it lies.
    Mapped(Mapped),
    /// A copy of a tensor that lies unaligned in its file (real files have such), as aligned words. Counted by
    /// [`crate::Checkpoint::copied_bytes`].
    Copied(Arc<[u64]>),
    /// In the memory of a GPU.
    #[cfg(feature = "cuda")]
    Cuda(Arc<crate::gpu::OnGpu>),
}

/// Numbers with a shape, row-major. The first dimension counts rows; a row may be anything.
#[derive(Clone, Debug)]
pub struct Tensor {
    shape: Vec<usize>,
    dtype: DType,
    storage: Storage,
}

impl Tensor {
    /// Makes an f32 tensor whose numbers `fill` writes, all of them.
    pub fn build(shape: &[usize], fill: impl FnOnce(&mut [f32])) -> Tensor {
        let mut buffer = Buffer::uninit(shape.iter().product());
        fill(buffer.as_mut_slice());
        Tensor { shape: shape.to_vec(), dtype: DType::F32, storage: Storage::Owned(Arc::new(buffer)) }
    }

    /// An f32 tensor of `data`. Panics when the shape has another number of elements.
    pub fn from_vec(shape: &[usize], data: Vec<f32>) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "shape {shape:?} does not fit the data");
        Tensor { shape: shape.to_vec(), dtype: DType::F32, storage: Storage::Owned(Arc::new(data.into())) }
    }

    /// A tensor over storage of a file. Panics when the storage is too short.
    pub(crate) fn of_file(shape: Vec<usize>, dtype: DType, storage: Storage) -> Tensor {
        let tensor = Tensor { shape, dtype, storage };
        assert!(tensor.bytes().len() == dtype.bytes(tensor.len()), "storage does not fit the shape");
        tensor
    }

    /// A tensor whose numbers are on the GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn of_gpu(shape: &[usize], dtype: DType, there: crate::gpu::OnGpu) -> Tensor {
        Tensor { shape: shape.to_vec(), dtype, storage: Storage::Cuda(Arc::new(there)) }
    }

    /// An f32 tensor whose numbers must all be written before they are read.
    pub fn room(shape: &[usize]) -> Tensor {
        Tensor::build(shape, |_| ())
    }

    /// Zeros of this shape where `self` is.
    pub fn zeros_beside(&self, shape: &[usize]) -> Tensor {
        Tensor::build(shape, |out| out.fill(0.0)).beside(self)
    }

    /// [`Tensor::room`] of this shape where `self` is.
    pub fn room_beside(&self, shape: &[usize]) -> Tensor {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = crate::gpu::Gpu::of(&[self]) {
            return gpu.one(shape, |_| Ok(()));
        }
        Tensor::room(shape)
    }

    /// The same numbers on a device; itself where they are there already.
    ///
    /// # Errors
    /// There is no such device. That its memory is full shows in [`crate::device::check`].
    pub fn on(&self, device: Device) -> Result<Tensor> {
        device.start()?;
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda => Ok(crate::gpu::Gpu::get()?.tensor(self)),
            _ => Ok(self.here()),
        }
    }

    /// The same numbers in the CPU's memory.
    pub(crate) fn here(&self) -> Tensor {
        Tensor { storage: self.host().clone(), ..self.clone() }
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        match self.storage {
            #[cfg(feature = "cuda")]
            Storage::Cuda(_) => Device::Cuda,
            _ => Device::Cpu,
        }
    }

    /// The numbers in the CPU's memory: read back the first time, where they are on a GPU.
    fn host(&self) -> &Storage {
        match &self.storage {
            #[cfg(feature = "cuda")]
            Storage::Cuda(there) => there.host(self.len()),
            here => here,
        }
    }

    /// The numbers on the GPU, to be written, where nobody else holds them.
    #[cfg(feature = "cuda")]
    pub(crate) fn alone_on_gpu(&mut self) -> Option<kernels::cuda::SliceMut<'_, f32>> {
        match &mut self.storage {
            Storage::Cuda(there) => Arc::get_mut(there)?.write(),
            _ => None,
        }
    }

    /// Whether the numbers are those of a file, which nobody writes.
    pub fn is_of_a_file(&self) -> bool {
        match &self.storage {
            Storage::Owned(_) => false,
            #[cfg(feature = "cuda")]
            Storage::Cuda(there) => there.is_of_a_file(),
            Storage::Mapped(_) | Storage::Copied(_) => true,
        }
    }

    /// Whether nobody else holds the numbers, and they may be written.
    pub fn is_alone(&mut self) -> bool {
        match &mut self.storage {
            Storage::Owned(buffer) => Arc::get_mut(buffer).is_some(),
            #[cfg(feature = "cuda")]
            Storage::Cuda(there) => Arc::get_mut(there).is_some_and(|there| there.is_writable()),
            Storage::Mapped(_) | Storage::Copied(_) => false,
        }
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number format.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Who owns the numbers.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// How many numbers.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first dimension (1 for a scalar).
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Numbers in one row.
    pub fn width(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// The numbers in their dtype.
    pub fn elements(&self) -> Elements<'_> {
        match self.dtype {
            DType::F32 => Elements::F32(self.f32s()),
            DType::F16 => Elements::F16(bytemuck::cast_slice(self.bytes())),
            DType::Bf16 => Elements::Bf16(bytemuck::cast_slice(self.bytes())),
            DType::Blocks(format) => Elements::Blocks(Blocks::new(format, self.bytes())),
        }
    }

    /// The numbers of an f32 tensor. Panics for another dtype.
    pub fn f32s(&self) -> &[f32] {
        assert_eq!(self.dtype, DType::F32, "an f32 tensor is needed");
        match self.host() {
            Storage::Owned(buffer) => buffer.as_slice(),
            _ => bytemuck::cast_slice(self.bytes()),
        }
    }

    /// The numbers of an owned tensor that nobody else holds, to be written; `None` for a shared one, a file's or a GPU's.
    pub fn get_mut(&mut self) -> Option<&mut [f32]> {
        match &mut self.storage {
            Storage::Owned(buffer) => Arc::get_mut(buffer).map(Buffer::as_mut_slice),
            _ => None,
        }
    }

    /// The numbers of a tensor that was just made here. Panics where others hold it.
    pub(crate) fn fresh(&mut self) -> &mut [f32] {
        self.get_mut().expect("nobody else has it")
    }

    /// The numbers of an f32 tensor, to be written; a copy of them where others hold this tensor too.
    pub fn make_mut(&mut self) -> &mut [f32] {
        if self.get_mut().is_none() {
            *self = Tensor::build(&self.shape, |out| out.copy_from_slice(self.f32s()));
        }
        self.get_mut().expect("nobody else has it")
    }

    /// Makes the numbers of an f32 tensor its own, where they are: a copy if others hold them too.
    pub fn make_own(&mut self) {
        #[cfg(feature = "cuda")]
        if self.device() == Device::Cuda {
            if !self.is_alone() {
                *self = crate::ops::pointwise::scale(1.0, self);
            }
            return;
        }
        self.make_mut();
    }

    /// Overwrites the numbers of an f32 tensor, where they are. Panics when there are not as many.
    pub fn set(&mut self, numbers: &[f32]) {
        assert_eq!(numbers.len(), self.len(), "as many numbers");
        let new = Tensor::build(&self.shape, |out| out.copy_from_slice(numbers));
        *self = new.beside(self);
    }

    /// The same numbers where `other` is, if that is a GPU.
    fn beside(&self, other: &Tensor) -> Tensor {
        match &other.storage {
            #[cfg(feature = "cuda")]
            Storage::Cuda(there) => there.gpu().tensor(self),
            _ => self.clone(),
        }
    }

    /// The same numbers as f32, where they are: itself, or a widened copy.
    pub fn widened(&self) -> Tensor {
        if self.dtype == DType::F32 {
            return self.clone();
        }
        let wide = Tensor::build(&self.shape, |out| elementwise::widen(Isa::best(), self.elements(), out));
        wide.beside(self)
    }

    /// The numbers of an f32 tensor rounded to bf16, in the CPU's memory, as a file would have them.
    pub fn rounded(&self) -> Tensor {
        let mut words = vec![0u64; self.len().div_ceil(4)];
        let rounded: &mut [half::bf16] = bytemuck::cast_slice_mut(&mut words);
        rounded.iter_mut().zip(self.f32s()).for_each(|(to, &x)| *to = half::bf16::from_f32(x));
        Tensor::of_file(self.shape.clone(), DType::Bf16, Storage::Copied(words.into()))
    }

    /// The same numbers in another shape of the same size.
    pub fn reshaped(&self, shape: &[usize]) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), self.len(), "{:?} as {shape:?}", self.shape);
        Tensor { shape: shape.to_vec(), ..self.clone() }
    }

    /// Some rows of an f32 tensor, `[rows.len(), width]`; a row may be named more than once.
    pub fn take_rows(&self, rows: &[u32]) -> Tensor {
        assert_eq!(self.dtype, DType::F32, "an f32 tensor is needed");
        crate::ops::rows::gather(self, None, rows)
    }

    /// The bytes of the tensor.
    pub fn bytes(&self) -> &[u8] {
        match self.host() {
            Storage::Owned(buffer) => bytemuck::cast_slice(buffer.as_slice()),
            Storage::Mapped(mapped) => mapped.bytes(),
            Storage::Copied(words) => &bytemuck::cast_slice(words)[..self.dtype.bytes(self.len())],
            #[cfg(feature = "cuda")]
            Storage::Cuda(_) => unreachable!("the CPU's copy is in its memory"),
        }
    }
}

/// A weight of a checkpoint. It can enter an op; it can never become a leaf of the tape, so no gradient of it exists.
#[derive(Clone, Debug)]
pub struct Frozen(Tensor);

impl Frozen {
    /// Declares a tensor frozen.
    pub fn new(tensor: Tensor) -> Frozen {
        Frozen(tensor)
    }

    /// The tensor, to be read.
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// [`Tensor::on`]
    ///
    /// # Errors
    /// As there.
    pub fn on(&self, device: Device) -> Result<Frozen> {
        self.0.on(device).map(Frozen)
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    /// The number format.
    pub fn dtype(&self) -> DType {
        self.0.dtype()
    }

    /// Who owns the numbers.
    pub fn storage(&self) -> &Storage {
        self.0.storage()
    }

    /// The numbers in their dtype.
    pub fn elements(&self) -> Elements<'_> {
        self.0.elements()
    }

    /// The numbers of an f32 weight. Panics for another dtype; see [`Frozen::widened`].
    pub fn f32s(&self) -> &[f32] {
        self.0.f32s()
    }

    /// A frozen f32 version: itself, or a widened copy. For the small vectors (norms, biases) only.
    pub fn widened(&self) -> Frozen {
        Frozen(self.0.widened())
    }

    /// The first dimension.
    pub fn rows(&self) -> usize {
        self.0.rows()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_tensor_cannot_be_written() {
        let mut a = Tensor::from_vec(&[2], vec![1.0, 2.0]);
        assert!(a.get_mut().is_some());
        let b = a.clone();
        assert!(a.get_mut().is_none());
        drop(b);
        a.get_mut().expect("alone again")[0] = 5.0;
        assert_eq!(a.f32s(), [5.0, 2.0]);
    }

    #[test]
    fn rounded_numbers_widen_to_themselves() {
        let t = Tensor::from_vec(&[3], vec![1.0, -0.375, 1.0 + 1.0 / 512.0]).rounded();
        assert_eq!((t.dtype(), t.is_of_a_file()), (DType::Bf16, true));
        assert_eq!(t.widened().f32s(), [1.0, -0.375, 1.0]);
    }

    #[test]
    fn shapes_have_rows_and_width() {
        let t = Tensor::from_vec(&[2, 3], vec![0.0; 6]);
        assert_eq!((t.rows(), t.width(), t.len()), (2, 3, 6));
        assert_eq!(t.reshaped(&[6]).shape(), [6]);
    }
}
