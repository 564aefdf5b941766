//! Memory of the device.

use std::{fmt, marker::PhantomData, ptr, slice};

use half::bf16;

use super::{Driver, Failed, Slice, SliceMut};

/// What memory of the device holds: numbers for which all bits mean something.
pub trait Number: Copy + Send + Sync + sealed::Sealed + 'static {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u32 {}
    impl Sealed for half::bf16 {}
}

impl Number for f32 {}
impl Number for u32 {}
impl Number for bf16 {}

/// Numbers in the memory of the device; freed when dropped, after what was launched before.
pub struct Buffer<T: Number> {
    driver: &'static Driver,
    /// 0 where there are no numbers.
    address: u64,
    len: usize,
    numbers: PhantomData<T>,
}

// any thread may have it, and lend it to launches
const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Buffer<f32>>();
};

impl<T: Number> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} numbers at {:#x}", self.len, self.address)
    }
}

impl Driver {
    /// Memory for `n` numbers, which hold whatever was there.
    ///
    /// # Errors
    /// There is not so much left ([`Failed::is_out_of_memory`]).
    pub fn allocate<T: Number>(&'static self, n: usize) -> Result<Buffer<T>, Failed> {
        let bytes = n.saturating_mul(size_of::<T>());
        let mut address = 0;
        if bytes > 0 {
            // SAFETY: the stream is the driver's; the memory is used on it only
            let allocated = self
                .call(format_args!("{} of GPU memory", megabytes(bytes as u64)), |api| unsafe {
                    (api.allocate)(&mut address, bytes, self.stream())
                });
            allocated.map_err(|failed| self.with_sizes(failed))?;
        }
        Ok(Buffer { driver: self, address, len: n, numbers: PhantomData })
    }

    /// A copy of `x` on the device.
    ///
    /// # Errors
    /// There is not so much memory left, or the copy fails.
    pub fn upload<T: Number>(&'static self, x: &[T]) -> Result<Buffer<T>, Failed> {
        let mut buffer = self.allocate(x.len())?;
        buffer.fill_from(x)?;
        Ok(buffer)
    }

    /// Where memory was wanting: how much there is.
    fn with_sizes(&self, mut failed: Failed) -> Failed {
        if let (true, Ok((free, all))) = (failed.is_out_of_memory(), self.memory()) {
            failed.why = format!("{} of {} are free", megabytes(free), megabytes(all));
        }
        failed
    }
}

impl<T: Number> Buffer<T> {
    /// Whose memory it is.
    pub fn driver(&self) -> &'static Driver {
        self.driver
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// To be read by launches.
    pub fn slice(&self) -> Slice<'_, T> {
        // SAFETY: memory of this buffer, which is freed on the stream, after launches that were given it
        unsafe { Slice::from_raw(self.address, self.len) }
    }

    /// To be written by launches.
    pub fn slice_mut(&mut self) -> SliceMut<'_, T> {
        // SAFETY: as of `slice`, and nobody else has it
        unsafe { SliceMut::from_raw(self.address, self.len) }
    }

    /// Queues a copy of `x`, which may change as soon as this returns.
    ///
    /// # Errors
    /// The copy is refused. Panics when the lengths differ.
    pub fn fill_from(&mut self, x: &[T]) -> Result<(), Failed> {
        assert_eq!(x.len(), self.len, "as many numbers as the buffer has");
        let (bytes, from) = (size_of_val(x), ptr::from_ref(x).cast());
        // SAFETY: numbers without padding, seen as the bytes that they are
        let bytes = unsafe { slice::from_raw_parts(from, bytes) };
        // SAFETY: `x` is as long as the buffer, which is freed on the stream, after the copy
        unsafe { self.driver.send(self.address, bytes) }
    }

    /// Queues a copy of `other`, by the driver.
    ///
    /// # Errors
    /// The copy is refused. Panics when the lengths differ.
    pub fn copy_from(&mut self, other: &Buffer<T>) -> Result<(), Failed> {
        assert_eq!(other.len, self.len, "as many numbers as the buffer has");
        if self.len == 0 {
            return Ok(());
        }
        let (driver, bytes) = (self.driver, self.len * size_of::<T>());
        // SAFETY: two buffers of this length, which are freed on the stream, after the copy
        driver.call("copying on the GPU", |api| unsafe {
            (api.copy_on_device)(self.address, other.address, bytes, driver.stream())
        })
    }

    /// Copies what is here to `x`, when all that was launched is done.
    ///
    /// # Errors
    /// The copy, or something that was launched before, fails. Panics when the lengths differ.
    pub fn copy_to(&self, x: &mut [T]) -> Result<(), Failed> {
        assert_eq!(x.len(), self.len, "as many numbers as the buffer has");
        if x.is_empty() {
            return Ok(());
        }
        let (driver, bytes, to) = (self.driver, size_of_val(x), ptr::from_mut(x).cast());
        // SAFETY: `x` is as long as the buffer, and is not looked at until the copy is done, for which we wait
        driver.call("copying from the GPU", |api| unsafe {
            (api.copy_to_host)(to, self.address, bytes, driver.stream())
        })?;
        driver.wait_whatever_happened()
    }
}

impl<T: Number> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.address != 0 {
            let driver = self.driver;
            // an error here is one of an earlier launch: the next call returns it
            // SAFETY: memory of this stream, whose launches so far come before
            let _ = driver.call_whatever_happened("freeing GPU memory", |api| unsafe {
                (api.free)(self.address, driver.stream())
            });
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
