//! NVIDIA's driver: memory, copies and launches on one GPU, in the order of one stream.
//!
//! Calls come from any thread; the driver's own context is made the thread's before each. An error that leaves the context
//! unusable (a kernel that wrote outside, say) is kept, and every later call returns it: so a run ends with the first cause, and
//! what it has saved is whole.
//!
//! `PROMPT_TUNING_GPU_SYNC=1` waits for every launch, so that an error names the kernel that made it.

use std::{
    collections::HashMap,
    ffi::{CString, c_void},
    fmt,
    marker::PhantomData,
    sync::{Arc, Mutex, OnceLock},
};

use cudarc::driver::{
    DriverError,
    result::{self, stream::StreamKind},
    sys,
};
use half::bf16;

use super::{Failed, Gpu, Kernel, Launch, Launcher, Slice, SliceMut, images, probe};

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

/// The first GPU, ready to compute.
pub struct Driver {
    gpu: Gpu,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// Loaded when they are first asked for.
    modules: Mutex<HashMap<&'static str, Loaded<sys::CUmodule>>>,
    functions: Mutex<HashMap<Kernel, Loaded<sys::CUfunction>>>,
    /// Whether to wait for every launch.
    waits: bool,
    /// The error after which nothing works.
    broken: OnceLock<Failed>,
}

/// A handle of the driver.
#[derive(Clone, Copy)]
struct Loaded<T>(T);

// SAFETY: the driver's handles may be used by any thread that has made the context its own, as every call here does
unsafe impl<T> Send for Loaded<T> {}
// SAFETY: as above; context and stream are never changed
unsafe impl Send for Driver {}
// SAFETY: as above
unsafe impl Sync for Driver {}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Driver").field("gpu", &self.gpu).finish_non_exhaustive()
    }
}

impl Driver {
    /// The first GPU.
    ///
    /// # Errors
    /// There is none that can be used ([`probe()`] says why), or it cannot be started.
    pub fn new() -> Result<Arc<Driver>, Failed> {
        let gpu = probe().map_err(|none| Failed { what: "no GPU".to_string(), why: none.to_string() })?;
        let device = result::device::get(0).map_err(|e| failed("cuDeviceGet", e))?;
        // SAFETY: a device that the driver has just named
        let context = unsafe { result::primary_ctx::retain(device) };
        let context = context.map_err(|e| failed("cuDevicePrimaryCtxRetain", e))?;
        // SAFETY: the context that was just retained
        unsafe { result::ctx::set_current(context) }.map_err(|e| failed("cuCtxSetCurrent", e))?;
        let stream =
            result::stream::create(StreamKind::NonBlocking).map_err(|e| failed("cuStreamCreate", e))?;
        Ok(Arc::new(Driver {
            gpu,
            context,
            stream,
            modules: Mutex::default(),
            functions: Mutex::default(),
            waits: std::env::var("PROMPT_TUNING_GPU_SYNC").is_ok_and(|value| value == "1"),
            broken: OnceLock::new(),
        }))
    }

    /// What was found.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Memory for `n` numbers, which hold whatever was there.
    ///
    /// # Errors
    /// There is not so much left.
    pub fn allocate<T: Number>(self: &Arc<Self>, n: usize) -> Result<Buffer<T>, Failed> {
        let bytes = n.saturating_mul(size_of::<T>());
        if bytes == 0 {
            return Ok(Buffer { driver: self.clone(), address: 0, len: n, numbers: PhantomData });
        }
        // SAFETY: the stream is ours; the memory is used on it only
        let address = self.call(|| unsafe { result::malloc_async(self.stream, bytes) });
        let address = address.map_err(|e| self.no_memory(bytes, e))?;
        Ok(Buffer { driver: self.clone(), address, len: n, numbers: PhantomData })
    }

    /// A copy of `x` on the device.
    ///
    /// # Errors
    /// There is not so much memory left, or the copy fails.
    pub fn upload<T: Number>(self: &Arc<Self>, x: &[T]) -> Result<Buffer<T>, Failed> {
        let mut buffer = self.allocate(x.len())?;
        buffer.fill_from(x)?;
        Ok(buffer)
    }

    /// Waits until all that was launched is done.
    ///
    /// # Errors
    /// Something that was launched has failed.
    pub fn wait(&self) -> Result<(), Failed> {
        // SAFETY: the stream is ours
        self.call(|| unsafe { result::stream::synchronize(self.stream) }).map_err(|e| self.note("waiting", e))
    }

    /// Milliseconds that the device needs for what `work` launches.
    ///
    /// # Errors
    /// Those of `work`, or of the measurement.
    pub fn timed(&self, work: impl FnOnce() -> Result<(), Failed>) -> Result<f32, Failed> {
        let (start, end) = (Event::new(self)?, Event::new(self)?);
        start.record()?;
        work()?;
        end.record()?;
        self.wait()?;
        // SAFETY: both were recorded, and all is done
        self.call(|| unsafe { result::event::elapsed(start.event, end.event) })
            .map_err(|e| self.note("timing", e))
    }

    /// Bytes that are free, and all bytes.
    ///
    /// # Errors
    /// The driver does not say.
    pub fn memory(&self) -> Result<(u64, u64), Failed> {
        let (free, all) = self.call(result::mem_get_info).map_err(|e| self.note("cuMemGetInfo", e))?;
        Ok((free as u64, all as u64))
    }

    /// One call of the driver in its context, unless all is broken.
    fn call<R>(&self, f: impl FnOnce() -> Result<R, DriverError>) -> Result<R, DriverError> {
        // SAFETY: the context is retained as long as the process lives
        unsafe { result::ctx::set_current(self.context) }?;
        f()
    }

    /// The error with its name. One after which nothing works is kept.
    fn note(&self, what: impl fmt::Display, error: DriverError) -> Failed {
        if let Some(first) = self.broken.get() {
            return first.clone();
        }
        let failed = failed(what, error);
        if is_final(error) {
            return self.broken.get_or_init(|| failed).clone();
        }
        failed
    }

    fn no_memory(&self, bytes: usize, error: DriverError) -> Failed {
        let failed = self.note(format_args!("{} of GPU memory", megabytes(bytes as u64)), error);
        match (error.0, self.memory()) {
            (sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY, Ok((free, all))) => Failed {
                why: format!(
                    "{} of {} are free; a smaller --batch or --recompute needs less",
                    megabytes(free),
                    megabytes(all)
                ),
                ..failed
            },
            _ => failed,
        }
    }

    fn function(&self, kernel: Kernel) -> Result<sys::CUfunction, Failed> {
        let mut functions = self.functions.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(Loaded(function)) = functions.get(&kernel) {
            return Ok(*function);
        }
        let module = self.module(kernel.file)?;
        let name = CString::new(kernel.name).expect("names have no zeros");
        // SAFETY: the module stays loaded
        let function = self.call(|| unsafe { result::module::get_function(module, name) });
        let function = function.map_err(|e| self.note(kernel.name, e))?;
        functions.insert(kernel, Loaded(function));
        Ok(function)
    }

    fn module(&self, file: &'static str) -> Result<sys::CUmodule, Failed> {
        let mut modules = self.modules.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(Loaded(module)) = modules.get(file) {
            return Ok(*module);
        }
        let missing = || Failed { what: file.to_string(), why: "there is no image of this name".to_string() };
        let image = images::image(file).ok_or_else(missing)?;
        // SAFETY: a fat binary, which says itself how long it is
        let module = self.call(|| unsafe { result::module::load_data(image.as_ptr().cast()) });
        let module = module.map_err(|e| self.note(format_args!("the kernels of {file}"), e))?;
        modules.insert(file, Loaded(module));
        Ok(module)
    }
}

impl Launcher for Driver {
    unsafe fn launch(&self, launch: &Launch) -> Result<(), Failed> {
        if let Some(first) = self.broken.get() {
            return Err(first.clone());
        }
        let function = self.function(launch.kernel)?;
        let Launch { kernel, grid: [x, y, z], block, shared_bytes, .. } = *launch;
        let mut args: Vec<*mut c_void> =
            launch.args.iter().map(|arg| (&raw const arg.0).cast_mut().cast()).collect();
        let started = self.call(|| {
            // SAFETY: the caller vouches for the arguments, which the driver copies before it returns
            unsafe {
                result::launch_kernel(
                    function,
                    (x, y, z),
                    (block[0], block[1], 1),
                    shared_bytes,
                    self.stream,
                    &mut args,
                )
            }
        });
        started.map_err(|e| self.note(kernel.name, e))?;
        if self.waits {
            // SAFETY: the stream is ours
            let done = self.call(|| unsafe { result::stream::synchronize(self.stream) });
            done.map_err(|e| self.note(kernel.name, e))?;
        }
        Ok(())
    }
}

/// Numbers in the memory of the device; freed when dropped, after what was launched before.
pub struct Buffer<T: Number> {
    driver: Arc<Driver>,
    address: sys::CUdeviceptr,
    len: usize,
    numbers: PhantomData<T>,
}

impl<T: Number> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} numbers at {:#x}", self.len, self.address)
    }
}

impl<T: Number> Buffer<T> {
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

    /// Copies `x` here.
    ///
    /// # Errors
    /// The copy fails. Panics when the lengths differ.
    pub fn fill_from(&mut self, x: &[T]) -> Result<(), Failed> {
        assert_eq!(x.len(), self.len, "as many numbers as the buffer has");
        if x.is_empty() {
            return Ok(());
        }
        let driver = &self.driver;
        // SAFETY: `x` is as long as the buffer, and stays until the copy is done, for which we wait
        let copied = driver.call(|| unsafe { result::memcpy_htod_async(self.address, x, driver.stream) });
        copied.map_err(|e| driver.note("copying to the GPU", e))?;
        driver.wait()
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
        let driver = &self.driver;
        // SAFETY: `x` is as long as the buffer, and is not looked at until the copy is done, for which we wait
        let copied = driver.call(|| unsafe { result::memcpy_dtoh_async(x, self.address, driver.stream) });
        copied.map_err(|e| driver.note("copying from the GPU", e))?;
        driver.wait()
    }
}

impl<T: Number> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.address != 0 {
            let driver = &self.driver;
            // SAFETY: memory of this stream, whose launches so far come before
            let freed = driver.call(|| unsafe { result::free_async(self.address, driver.stream) });
            // an error here is one of an earlier launch: the next call returns it
            let _ = freed.map_err(|e| driver.note("freeing GPU memory", e));
        }
    }
}

/// A point in the stream, with its time.
struct Event<'a> {
    driver: &'a Driver,
    event: sys::CUevent,
}

impl Event<'_> {
    fn new(driver: &Driver) -> Result<Event<'_>, Failed> {
        let event = driver.call(|| result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT));
        Ok(Event { driver, event: event.map_err(|e| driver.note("cuEventCreate", e))? })
    }

    fn record(&self) -> Result<(), Failed> {
        let Event { driver, event } = self;
        // SAFETY: both are ours
        driver
            .call(|| unsafe { result::event::record(*event, driver.stream) })
            .map_err(|e| driver.note("timing", e))
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again
        let _ = self.driver.call(|| unsafe { result::event::destroy(self.event) });
    }
}

/// The error by its name and number.
fn failed(what: impl fmt::Display, error: DriverError) -> Failed {
    let name = error.error_name().map_or("an error without a name".into(), |name| name.to_string_lossy());
    Failed { what: what.to_string(), why: format!("{name} ({})", error.0 as u32) }
}

/// Errors after which the context cannot be used again.
fn is_final(error: DriverError) -> bool {
    use sys::CUresult as Code;
    matches!(
        error.0,
        Code::CUDA_ERROR_ILLEGAL_ADDRESS
            | Code::CUDA_ERROR_LAUNCH_FAILED
            | Code::CUDA_ERROR_LAUNCH_TIMEOUT
            | Code::CUDA_ERROR_MISALIGNED_ADDRESS
            | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | Code::CUDA_ERROR_INVALID_PC
            | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
            | Code::CUDA_ERROR_ECC_UNCORRECTABLE
            | Code::CUDA_ERROR_ASSERT
            | Code::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | Code::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | Code::CUDA_ERROR_EXTERNAL_DEVICE
    )
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
