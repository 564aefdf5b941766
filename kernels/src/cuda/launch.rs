//! What a kernel is started with, and who starts it.
//!
//! The driver is one [`Launcher`]; the tests have another, which runs the kernels on the CPU. So the code that chooses grid,
//! block and arguments is tested without a GPU.

use std::{fmt, marker::PhantomData};

/// A kernel, by the file that holds it and its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// Name of the `.cu` file, without its ending.
    pub file: &'static str,
    /// `extern "C"` name.
    pub name: &'static str,
}

/// `len` numbers in the memory of the device, to be read.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a, T> {
    address: u64,
    len: usize,
    lifetime: PhantomData<&'a [T]>,
}

/// `len` numbers in the memory of the device, to be written.
#[derive(Debug)]
pub struct SliceMut<'a, T> {
    address: u64,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

impl<T> Slice<'_, T> {
    /// # Safety
    /// `address` is that of `len` values of `T` where the device reads, aligned for `T`, and nobody writes them during the
    /// lifetime.
    pub unsafe fn from_raw(address: u64, len: usize) -> Self {
        Slice { address, len, lifetime: PhantomData }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<'a, T> SliceMut<'a, T> {
    /// # Safety
    /// `address` is that of `len` values of `T` where the device writes, aligned for `T`, and nobody else reads or writes them
    /// during the lifetime, but for launches that come later on the same stream.
    pub unsafe fn from_raw(address: u64, len: usize) -> Self {
        SliceMut { address, len, lifetime: PhantomData }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same numbers, lent for one launch.
    pub fn lend(&mut self) -> SliceMut<'_, T> {
        SliceMut { address: self.address, len: self.len, lifetime: PhantomData }
    }

    /// The same numbers, to be read by one launch.
    pub fn read(&self) -> Slice<'_, T> {
        Slice { address: self.address, len: self.len, lifetime: PhantomData }
    }
}

/// An argument, as the eight bytes that the driver copies it from; shorter ones are in the lower bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg(pub u64);

impl<T> From<Slice<'_, T>> for Arg {
    fn from(slice: Slice<T>) -> Arg {
        Arg(slice.address)
    }
}

impl<T> From<SliceMut<'_, T>> for Arg {
    fn from(slice: SliceMut<T>) -> Arg {
        Arg(slice.address)
    }
}

impl From<f32> for Arg {
    fn from(x: f32) -> Arg {
        Arg(x.to_bits().into())
    }
}

impl From<u32> for Arg {
    fn from(x: u32) -> Arg {
        Arg(x.into())
    }
}

impl From<u64> for Arg {
    fn from(x: u64) -> Arg {
        Arg(x)
    }
}

/// One launch: blocks, threads, and what they are given.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What runs.
    pub kernel: Kernel,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x and y.
    pub block: [u32; 2],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// In the kernel's order.
    pub args: Vec<Arg>,
}

impl Launch {
    /// `blocks` blocks of `threads` threads, in one dimension.
    ///
    /// Panics when there are more blocks than a grid can have (2³¹ - 1).
    pub fn new(file: &'static str, name: &'static str, blocks: usize, threads: u32) -> Launch {
        let blocks = u32::try_from(blocks).ok().filter(|&n| n <= i32::MAX as u32);
        let blocks = blocks.unwrap_or_else(|| panic!("{name}: too many blocks for a grid"));
        Launch {
            kernel: Kernel { file, name },
            grid: [blocks, 1, 1],
            block: [threads, 1],
            shared_bytes: 0,
            args: Vec::new(),
        }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<Arg>) -> Launch {
        self.args.push(arg.into());
        self
    }

    /// A size as the kernels take it.
    ///
    /// Panics where it does not fit 32 bits: then a kernel would compute wrong indices.
    pub fn size(self, n: usize) -> Launch {
        let n = u32::try_from(n).unwrap_or_else(|_| panic!("{}: {n} is too large", self.kernel.name));
        self.arg(n)
    }

    /// Hands it to `launcher`.
    ///
    /// # Errors
    /// The launcher could not start it.
    ///
    /// # Safety
    /// The arguments are those of the kernel, in its order, and the slices have the lengths that it assumes.
    pub unsafe fn on(self, launcher: &dyn Launcher) -> Result<(), Failed> {
        // SAFETY: the caller vouches for it
        unsafe { launcher.launch(&self) }
    }
}

/// Who carries launches out.
pub trait Launcher {
    /// Queues `launch`, or carries it out at once.
    ///
    /// # Errors
    /// There is no such kernel, the device refuses it, or an earlier launch has failed.
    ///
    /// # Safety
    /// As of [`Launch::on`].
    unsafe fn launch(&self, launch: &Launch) -> Result<(), Failed>;
}

/// A call that failed: which, and the driver's code for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The kernel, or the call of the driver.
    pub what: String,
    /// What the driver said.
    pub why: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl std::error::Error for Failed {}
