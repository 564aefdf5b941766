//! Numbers in the memory of a GPU, and what becomes of errors there.
//!
//! Operations return tensors, not `Result`s, on every device; a GPU fails later than it is asked anyway. So the first failure
//! (memory is short, a kernel wrote outside) is kept, and from then on nothing is computed: new tensors have no numbers, and
//! whoever reads one gets NaNs. Whoever takes a result home asks [`crate::device::check`] before believing it.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use half::bf16;
use kernels::cuda::{Buffer, Driver, Failed, Launcher, Slice, SliceMut};
use kernels::{cuda, matmul};

use crate::{Buffer as HostBuffer, Error, Result, Storage, Tensor, ops};

/// The first GPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gpu(&'static Driver);

/// The GPU, once somebody has asked for it.
static STARTED: OnceLock<Gpu> = OnceLock::new();

/// What failed first.
static FAILED: OnceLock<Failed> = OnceLock::new();

thread_local! {
    /// Tensors that this thread has read back.
    static READ_BACK: Cell<usize> = const { Cell::new(0) };
}

/// How many tensors this thread has read back so far.
pub(crate) fn read_back_here() -> usize {
    READ_BACK.get()
}

/// Waits, if something was started.
pub(crate) fn settle() {
    if let Some(Gpu(driver)) = STARTED.get() {
        attempt(|| driver.wait());
    }
}

/// The first failure, if there was one.
pub(crate) fn check() -> Result<()> {
    FAILED.get().map_or(Ok(()), |failed| Err(Error::of_gpu(failed)))
}

/// Seconds that the GPU needs for what `work` launches.
pub(crate) fn seconds(work: impl FnOnce()) -> Result<f64> {
    let Gpu(driver) = Gpu::get()?;
    let milliseconds = driver.timed(|| {
        work();
        Ok(())
    });
    check()?;
    Ok(f64::from(milliseconds.map_err(|failed| Error::of_gpu(&failed))?) / 1e3)
}

/// The memory of a tensor there.
#[derive(Debug)]
pub struct OnGpu {
    gpu: Gpu,
    /// `None` after a failure.
    numbers: Option<Numbers>,
    /// The same numbers in the CPU's memory, if they were there first or were read back.
    host: OnceLock<Storage>,
}

/// In their number format.
#[derive(Debug)]
enum Numbers {
    F32(Buffer<f32>),
    Bf16(Buffer<bf16>),
}

impl OnGpu {
    /// The same `len` numbers in the CPU's memory. NaNs after a failure.
    pub(crate) fn host(&self, len: usize) -> &Storage {
        self.host.get_or_init(|| {
            READ_BACK.set(READ_BACK.get() + 1);
            let mut home = HostBuffer::uninit(len);
            let read = attempt(|| match &self.numbers {
                Some(Numbers::F32(numbers)) => numbers.copy_to(home.as_mut_slice()),
                Some(Numbers::Bf16(_)) => unreachable!("numbers that are no f32 came from the CPU"),
                None => Err(nothing_there()),
            });
            if read.is_none() {
                home.as_mut_slice().fill(f32::NAN);
            }
            Storage::Owned(Arc::new(home))
        })
    }

    /// Whose memory it is.
    pub(crate) fn gpu(&self) -> Gpu {
        self.gpu
    }

    /// Whether it is the copy of a weight.
    pub(crate) fn is_of_a_file(&self) -> bool {
        matches!(self.host.get(), Some(Storage::Mapped(_) | Storage::Copied(_)))
    }

    /// Whether it holds f32 numbers that are no weight's.
    pub(crate) fn is_writable(&self) -> bool {
        matches!(self.numbers, Some(Numbers::F32(_))) && !self.is_of_a_file()
    }

    /// To be written by a launch: what the CPU has of it is forgotten.
    pub(crate) fn write(&mut self) -> Option<SliceMut<'_, f32>> {
        if !self.is_writable() {
            return None;
        }
        self.host.take();
        match &mut self.numbers {
            Some(Numbers::F32(numbers)) => Some(numbers.slice_mut()),
            _ => None,
        }
    }
}

/// Numbers on the GPU for one launch: they are there, or were sent for it.
pub(crate) enum Lent<'a, T: cuda::Number> {
    There(&'a Buffer<T>),
    Sent(Buffer<T>),
}

impl<T: cuda::Number> Lent<'_, T> {
    pub(crate) fn slice(&self) -> Slice<'_, T> {
        match self {
            Lent::There(buffer) => buffer.slice(),
            Lent::Sent(buffer) => buffer.slice(),
        }
    }
}

/// As [`Lent`], in any format.
pub(crate) enum LentElements<'a> {
    F32(Lent<'a, f32>),
    Bf16(Lent<'a, bf16>),
}

impl LentElements<'_> {
    pub(crate) fn slice(&self) -> matmul::cuda::Elements<'_> {
        match self {
            LentElements::F32(x) => matmul::cuda::Elements::F32(x.slice()),
            LentElements::Bf16(x) => matmul::cuda::Elements::Bf16(x.slice()),
        }
    }
}

/// Does `work` unless something has failed, and keeps what fails.
fn attempt<R>(work: impl FnOnce() -> Result<R, Failed>) -> Option<R> {
    if FAILED.get().is_some() {
        return None;
    }
    let keep = |failed: Failed| {
        tracing::error!("the GPU: {failed}");
        let _ = FAILED.set(failed);
    };
    work().map_err(keep).ok()
}

/// The failure because of which a tensor has no numbers.
fn nothing_there() -> Failed {
    FAILED.get().expect("only a failure leaves a tensor empty").clone()
}

impl Gpu {
    /// Starts it, the first time.
    pub(crate) fn get() -> Result<Gpu> {
        let gpu = Driver::get().map(Gpu).map_err(|failed| Error::of_gpu(&failed))?;
        Ok(*STARTED.get_or_init(|| gpu))
    }

    /// The GPU, if one of `tensors` lies there: then the operation runs there.
    pub(crate) fn of(tensors: &[&Tensor]) -> Option<Gpu> {
        tensors.iter().find_map(|tensor| match tensor.storage() {
            Storage::Cuda(there) => Some(there.gpu),
            _ => None,
        })
    }

    /// Who carries launches out.
    pub(crate) fn launcher(self) -> &'static dyn Launcher {
        self.0
    }

    /// Tensors of these shapes, whose numbers `fill` writes, all of them.
    pub(crate) fn build<const N: usize>(
        self,
        shapes: [&[usize]; N],
        fill: impl FnOnce([SliceMut<f32>; N]) -> Result<(), Failed>,
    ) -> [Tensor; N] {
        let made = attempt(|| {
            let rooms = shapes.map(|shape| self.room(shape.iter().product()));
            let mut made = Vec::with_capacity(N);
            for room in rooms {
                made.push(room?);
            }
            let mut made: [Buffer<f32>; N] = made.try_into().expect("one of each shape");
            fill(made.each_mut().map(Buffer::slice_mut))?;
            Ok(made.map(Some))
        });
        let mut made = made.unwrap_or_else(|| shapes.map(|_| None)).into_iter();
        shapes.map(|shape| {
            let numbers = made.next().flatten().map(Numbers::F32);
            Tensor::of_gpu(shape, crate::DType::F32, OnGpu { gpu: self, numbers, host: OnceLock::new() })
        })
    }

    /// [`Gpu::build`] of one tensor.
    pub(crate) fn one(
        self,
        shape: &[usize],
        fill: impl FnOnce(SliceMut<f32>) -> Result<(), Failed>,
    ) -> Tensor {
        let [tensor] = self.build([shape], |[out]| fill(out));
        tensor
    }

    /// Has a launch write a part of a tensor. Panics where others hold it.
    pub(crate) fn write(self, tensor: &mut Tensor, launch: impl FnOnce(SliceMut<f32>) -> Result<(), Failed>) {
        attempt(|| launch(tensor.alone_on_gpu().expect("nobody else has it")));
    }

    /// Has a launch change tensors, which are nobody else's then.
    pub(crate) fn change<const N: usize>(
        self,
        tensors: [&mut Tensor; N],
        launch: impl FnOnce([SliceMut<f32>; N]) -> Result<(), Failed>,
    ) {
        let tensors = tensors.map(|tensor| {
            tensor.make_own();
            tensor
        });
        attempt(|| launch(tensors.map(|tensor| tensor.alone_on_gpu().expect("its own, and here"))));
    }

    /// As [`ops::accumulated`]: `write(d, true)` adds to what is there.
    pub(crate) fn accumulated(
        self,
        before: Option<Tensor>,
        shape: &[usize],
        write: impl FnOnce(SliceMut<f32>, bool) -> Result<(), Failed>,
    ) -> Tensor {
        let Some(mut before) = before else {
            return self.one(shape, |d| write(d, false));
        };
        if before.is_alone() && matches!(before.storage(), Storage::Cuda(_)) {
            self.write(&mut before, |d| write(d, true));
            return before;
        }
        ops::sum(before, self.one(shape, |d| write(d, false)))
    }

    /// Memory for `n` numbers.
    pub(crate) fn room<T: cuda::Number>(self, n: usize) -> Result<Buffer<T>, Failed> {
        self.0.allocate(n)
    }

    /// The numbers of an f32 tensor, for one launch.
    pub(crate) fn read(self, tensor: &Tensor) -> Result<Lent<'_, f32>, Failed> {
        match self.elements(tensor)? {
            LentElements::F32(numbers) => Ok(numbers),
            LentElements::Bf16(_) => panic!("an f32 tensor is needed"),
        }
    }

    /// The numbers of a tensor, for one launch: f32 or bf16, whatever they were in the file.
    pub(crate) fn elements(self, tensor: &Tensor) -> Result<LentElements<'_>, Failed> {
        let Storage::Cuda(there) = tensor.storage() else {
            return Ok(match self.numbers(tensor)? {
                Numbers::F32(numbers) => LentElements::F32(Lent::Sent(numbers)),
                Numbers::Bf16(numbers) => LentElements::Bf16(Lent::Sent(numbers)),
            });
        };
        match &there.numbers {
            Some(Numbers::F32(numbers)) => Ok(LentElements::F32(Lent::There(numbers))),
            Some(Numbers::Bf16(numbers)) => Ok(LentElements::Bf16(Lent::There(numbers))),
            None => Err(nothing_there()),
        }
    }

    /// Numbers that no tensor holds, for one launch.
    pub(crate) fn send<T: cuda::Number>(self, numbers: &[T]) -> Result<Lent<'static, T>, Failed> {
        self.0.upload(numbers).map(Lent::Sent)
    }

    /// A copy that stays.
    pub(crate) fn upload<T: cuda::Number>(self, numbers: &[T]) -> Result<Buffer<T>, Failed> {
        self.0.upload(numbers)
    }

    /// The tensor with its numbers on the GPU; the CPU keeps what lies in a file.
    pub(crate) fn tensor(self, tensor: &Tensor) -> Tensor {
        if matches!(tensor.storage(), Storage::Cuda(_)) {
            return tensor.clone();
        }
        let numbers = attempt(|| self.numbers(tensor));
        let host = match tensor.is_of_a_file() {
            true => OnceLock::from(tensor.storage().clone()),
            false => OnceLock::new(),
        };
        Tensor::of_gpu(tensor.shape(), tensor.dtype(), OnGpu { gpu: self, numbers, host })
    }

    /// f32 and bf16 as they are, other formats as f32: there are no kernels for them.
    fn numbers(self, tensor: &Tensor) -> Result<Numbers, Failed> {
        match tensor.elements() {
            kernels::Elements::F32(x) => self.0.upload(x).map(Numbers::F32),
            kernels::Elements::Bf16(x) => self.0.upload(x).map(Numbers::Bf16),
            _ => self.0.upload(tensor.widened().f32s()).map(Numbers::F32),
        }
    }
}
