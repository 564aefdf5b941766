//! What a kernel is started with, and who starts it.
//!
//! The driver is one [`Launcher`]; the tests have another, which runs the kernels on the CPU. So the code that chooses grid,
//! block and arguments is tested without a GPU.

use std::{fmt, marker::PhantomData, ops::Range};

use super::TensorMap;

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

impl<'a, T> Slice<'a, T> {
    /// Some of them. Panics when there are not so many.
    pub fn part(self, range: Range<usize>) -> Slice<'a, T> {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} numbers", self.len);
        let address = self.address + (range.start * size_of::<T>()) as u64;
        Slice { address, len: range.len(), lifetime: PhantomData }
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

    /// The first `n`, and the others. Panics when there are not so many.
    pub fn split_at(self, n: usize) -> [SliceMut<'a, T>; 2] {
        assert!(n <= self.len, "{n} of {} numbers", self.len);
        let second = self.address + (n * size_of::<T>()) as u64;
        [(self.address, n), (second, self.len - n)].map(|(address, len)| SliceMut {
            address,
            len,
            lifetime: PhantomData,
        })
    }

    /// Some of them. Panics when there are not so many.
    pub fn part(self, range: Range<usize>) -> SliceMut<'a, T> {
        let [head, _] = self.split_at(range.end);
        let [_, part] = head.split_at(range.start);
        part
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
    /// The first parameters of the kernel, which it takes as they are, in its order.
    pub maps: Vec<TensorMap>,
    /// The others.
    pub args: Vec<Arg>,
    /// Why it cannot be started, if something was too large for it.
    too_large: Option<String>,
}

impl Launch {
    /// `blocks` blocks of `threads` threads, in one dimension. More blocks than a grid can have (2³¹ - 1) make
    /// [`Launch::on`] fail.
    pub fn new(file: &'static str, name: &'static str, blocks: usize, threads: u32) -> Launch {
        let mut launch = Launch {
            kernel: Kernel { file, name },
            grid: [1; 3],
            block: [threads, 1],
            shared_bytes: 0,
            maps: Vec::new(),
            args: Vec::new(),
            too_large: None,
        };
        launch.grid[0] = launch.fitting(blocks, i32::MAX as u32, "blocks in a row");
        launch
    }

    /// With `n` rows of blocks. More than a grid can have (65 535) make [`Launch::on`] fail.
    pub fn rows(mut self, n: usize) -> Launch {
        self.grid[1] = self.fitting(n, 65_535, "rows of blocks");
        self
    }

    /// With so many bytes of dynamic shared memory.
    pub fn shared(mut self, bytes: u32) -> Launch {
        self.shared_bytes = bytes;
        self
    }

    /// One more matrix that is copied in boxes. They come before all other arguments.
    pub fn map(mut self, map: TensorMap) -> Launch {
        self.maps.push(map);
        self
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<Arg>) -> Launch {
        self.args.push(arg.into());
        self
    }

    /// A size as the kernels take it: 32 bits. A larger one, with which a kernel would compute wrong indices, makes
    /// [`Launch::on`] fail.
    pub fn size(mut self, n: usize) -> Launch {
        let n = self.fitting(n, u32::MAX, "as a size");
        self.arg(n)
    }

    /// `n`, if it is not above `most`; else what is too large is noted.
    fn fitting(&mut self, n: usize, most: u32, what: &str) -> u32 {
        let fits = u32::try_from(n).ok().filter(|&n| n <= most);
        if fits.is_none() {
            self.too_large.get_or_insert_with(|| format!("{n} {what}: at most {most} are possible"));
        }
        fits.unwrap_or(0)
    }

    /// Hands it to `launcher`.
    ///
    /// # Errors
    /// The launcher could not start it, or something is too large for it.
    ///
    /// # Safety
    /// The arguments are those of the kernel, in its order, and the slices have the lengths that it assumes.
    pub unsafe fn on(self, launcher: &dyn Launcher) -> Result<(), Failed> {
        if let Some(why) = &self.too_large {
            return Err(Failed::new(self.kernel.name, why));
        }
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
    /// As of [`Launch::on`], which is how it is called: it has seen whether the sizes fit.
    unsafe fn launch(&self, launch: &Launch) -> Result<(), Failed>;

    /// Whether kernels of `sm_90a` run there: products of warpgroups, and copies of boxes.
    fn is_hopper(&self) -> bool;
}

/// A call that failed: which, and the driver's code for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The kernel, or the call of the driver.
    pub what: String,
    /// What the driver said.
    pub why: String,
    out_of_memory: bool,
}

impl Failed {
    /// `what` failed because of `why`.
    pub fn new(what: impl fmt::Display, why: impl fmt::Display) -> Failed {
        Failed { what: what.to_string(), why: why.to_string(), out_of_memory: false }
    }

    /// The same, for want of memory.
    pub(super) fn for_memory(self) -> Failed {
        Failed { out_of_memory: true, ..self }
    }

    /// Whether the device has too little memory: less at one time may do.
    pub fn is_out_of_memory(&self) -> bool {
        self.out_of_memory
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl std::error::Error for Failed {}
