//! NVIDIA's driver: launches on one GPU, in the order of one stream. Its memory is in [`super::buffer`].
//!
//! Calls come from any thread; the driver's own context is made the thread's before each. An error that leaves the
//! context unusable (a kernel that wrote outside, say) is kept, and every later call returns it: so a run ends with the
//! first cause, and what it has saved is whole.
//!
//! `PROMPT_TUNING_GPU_SYNC=1` waits for every launch, so that an error names the kernel that made it.

use std::{
    borrow::Cow,
    collections::HashMap,
    ffi::{CString, c_void},
    fmt, ptr,
    sync::{Mutex, MutexGuard, OnceLock},
};

use cudarc::driver::sys;

use super::{
    Failed, Gpu, Kernel, Launch, Launcher, TensorMap,
    api::{Api, is_final},
    images, nvrtc, probe,
    staging::Staging,
    tensor_map::Element,
};

/// The first GPU, ready to compute.
pub struct Driver {
    gpu: Gpu,
    api: Api,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// Where memory comes from, and goes to.
    pool: sys::CUmemoryPool,
    /// Loaded when they are first asked for.
    modules: Mutex<HashMap<&'static str, Loaded<sys::CUmodule>>>,
    functions: Mutex<HashMap<Kernel, Loaded<sys::CUfunction>>>,
    /// What copies to the device pass through, from the first one on.
    staging: Mutex<Option<Staging>>,
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
// SAFETY: as above; context, stream and pool are never changed
unsafe impl Send for Driver {}
// SAFETY: as above
unsafe impl Sync for Driver {}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Driver").field("gpu", &self.gpu).finish_non_exhaustive()
    }
}

impl Driver {
    /// The first GPU: one driver for all of the process, started when it is first asked for.
    ///
    /// # Errors
    /// There is none that can be used ([`probe()`](fn@super::probe) says why), or it cannot be started: the same answer
    /// every time.
    pub fn get() -> Result<&'static Driver, Failed> {
        static DRIVER: OnceLock<Result<Driver, Failed>> = OnceLock::new();
        DRIVER.get_or_init(Driver::start).as_ref().map_err(Failed::clone)
    }

    fn start() -> Result<Driver, Failed> {
        let (gpu, library) = probe::open().map_err(|none| Failed::new("no GPU", none))?;
        let api = Api::load(library).map_err(|none| Failed::new("no GPU", none))?;
        let (mut device, mut context, mut stream) = (0, ptr::null_mut(), ptr::null_mut());
        // SAFETY: here and below: what is pointed to is there until the call returns
        api.checked("cuDeviceGet", unsafe { (api.device_get)(&mut device, 0) })?;
        // SAFETY: a device that the driver has just named
        api.checked("cuDevicePrimaryCtxRetain", unsafe { (api.retain_context)(&mut context, device) })?;
        // SAFETY: the context that was just retained
        api.checked("cuCtxSetCurrent", unsafe { (api.set_context)(context) })?;
        let apart = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: as above
        api.checked("cuStreamCreate", unsafe { (api.create_stream)(&mut stream, apart) })?;
        let pool = pool(&api, device)?;
        let waits = std::env::var("PROMPT_TUNING_GPU_SYNC").is_ok_and(|value| value == "1");
        let (modules, functions, broken) = (Mutex::default(), Mutex::default(), OnceLock::new());
        let staging = Mutex::default();
        Ok(Driver { gpu, api, context, stream, pool, modules, functions, staging, waits, broken })
    }

    /// What was found.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Waits until all that was launched is done.
    ///
    /// # Errors
    /// Something that was launched has failed.
    pub fn wait(&self) -> Result<(), Failed> {
        self.wait_for("waiting")
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
        let mut milliseconds = 0.0;
        // SAFETY: both were recorded, and all is done
        self.call("timing", |api| unsafe { (api.milliseconds)(&mut milliseconds, start.event, end.event) })?;
        Ok(milliseconds)
    }

    /// Bytes that are free, and all bytes. What was freed here counts as free, though the driver keeps it for us.
    ///
    /// # Errors
    /// The driver does not say.
    pub fn memory(&self) -> Result<(u64, u64), Failed> {
        let (mut free, mut all) = (0, 0);
        // SAFETY: what is pointed to is there until the call returns
        self.call("cuMemGetInfo", |api| unsafe { (api.memory)(&mut free, &mut all) })?;
        let taken = self.of_pool(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        let used = self.of_pool(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
        Ok((free as u64 + taken.saturating_sub(used), all as u64))
    }

    /// A number of bytes that the pool knows.
    fn of_pool(&self, attribute: sys::CUmemPool_attribute) -> Result<u64, Failed> {
        let mut bytes = 0u64;
        let to = (&raw mut bytes).cast();
        // SAFETY: the pool is the device's; this attribute is 64 bits, which are there until the call returns
        self.call("cuMemPoolGetAttribute", |api| unsafe { (api.pool_attribute)(self.pool, attribute, to) })?;
        Ok(bytes)
    }

    /// Queues a copy of `bytes` to the device; they may change as soon as this returns.
    ///
    /// # Errors
    /// It is refused.
    ///
    /// # Safety
    /// There is room for them at `to`, on this driver's device, until the stream has come so far.
    pub(super) unsafe fn send(&self, to: sys::CUdeviceptr, bytes: &[u8]) -> Result<(), Failed> {
        Staging::send(&mut locked(&self.staging), self, to, bytes)
    }

    /// The stream of all that is done.
    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    /// One call of the driver in its context, unless all is broken.
    pub(super) fn call(&self, what: impl fmt::Display, f: impl FnOnce(&Api) -> i32) -> Result<(), Failed> {
        self.is_whole()?;
        self.call_whatever_happened(what, f)
    }

    /// Fails with the error after which nothing works, if there was one.
    fn is_whole(&self) -> Result<(), Failed> {
        self.broken.get().map_or(Ok(()), |first| Err(first.clone()))
    }

    /// [`Driver::call`], even if all is broken: what was taken is given back, and what was started is waited for. An
    /// error after which nothing works is kept.
    pub(super) fn call_whatever_happened(
        &self,
        what: impl fmt::Display,
        f: impl FnOnce(&Api) -> i32,
    ) -> Result<(), Failed> {
        // SAFETY: the context is retained as long as the process lives
        let mut code = unsafe { (self.api.set_context)(self.context) };
        if code == 0 {
            code = f(&self.api);
        }
        self.api.checked(what, code).map_err(|failed| {
            if is_final(code) {
                return self.broken.get_or_init(|| failed).clone();
            }
            self.broken.get().cloned().unwrap_or(failed)
        })
    }

    /// Waits even if all is broken, so that no copy goes on that reads or writes what the caller takes back.
    pub(super) fn wait_whatever_happened(&self) -> Result<(), Failed> {
        // SAFETY: the stream is ours
        self.call_whatever_happened("waiting", |api| unsafe { (api.synchronize)(self.stream) })
    }

    fn wait_for(&self, what: &str) -> Result<(), Failed> {
        // SAFETY: the stream is ours
        self.call(what, |api| unsafe { (api.synchronize)(self.stream) })
    }

    fn function(&self, kernel: Kernel) -> Result<sys::CUfunction, Failed> {
        let mut functions = locked(&self.functions);
        if let Some(Loaded(function)) = functions.get(&kernel) {
            return Ok(*function);
        }
        let module = self.module(kernel.file)?;
        let name = CString::new(kernel.name).map_err(|why| Failed::new(kernel.name.escape_debug(), why))?;
        let mut function = ptr::null_mut();
        // SAFETY: the module stays loaded; the name is there until the call returns
        self.call(kernel.name, |api| unsafe { (api.function)(&mut function, module, name.as_ptr()) })?;
        functions.insert(kernel, Loaded(function));
        Ok(function)
    }

    fn module(&self, file: &'static str) -> Result<sys::CUmodule, Failed> {
        let mut modules = locked(&self.modules);
        if let Some(Loaded(module)) = modules.get(file) {
            return Ok(*module);
        }
        let image = match nvrtc::sources() {
            Some(sources) => Some(Cow::from(nvrtc::compile(&sources, file, self.gpu.capability)?)),
            None => images::image(file).map(Cow::from),
        };
        let image = image.ok_or_else(|| Failed::new(file, "there is no image of this name"))?;
        let mut module = ptr::null_mut();
        // SAFETY: a fat binary or an object file, which says itself how long it is
        self.call(format_args!("the kernels of {file}"), |api| unsafe {
            (api.load_module)(&mut module, image.as_ptr().cast())
        })?;
        modules.insert(file, Loaded(module));
        Ok(module)
    }

    /// Allows a function so much dynamic shared memory: more than 48 KiB must be asked for.
    fn allow_shared(&self, kernel: Kernel, function: sys::CUfunction, bytes: u32) -> Result<(), Failed> {
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: a function that the driver has named
        self.call(kernel.name, |api| unsafe {
            (api.set_function_attribute)(function, attribute, bytes.cast_signed())
        })
    }

    /// `map` as the hardware reads it.
    fn encoded(&self, map: &TensorMap) -> Result<sys::CUtensorMap, Failed> {
        let element = match map.element {
            Element::F32 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
            Element::Bf16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        };
        let mut encoded = sys::CUtensorMap { opaque: [0; 16] };
        let (address, one) = (map.address as *mut c_void, [1; 2]);
        let (sizes, strides, box_sizes) = (map.sizes(), [map.row_bytes()], map.box_sizes());
        // SAFETY: a matrix of two dimensions, whose sizes are there until the call returns; it is not looked at
        self.call("cuTensorMapEncodeTiled", |api| unsafe {
            (api.encode_map)(
                &mut encoded,
                element,
                2,
                address,
                sizes.as_ptr(),
                strides.as_ptr(),
                box_sizes.as_ptr(),
                one.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                // zeros where the matrix ends
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        })?;
        Ok(encoded)
    }
}

impl Launcher for Driver {
    unsafe fn launch(&self, launch: &Launch) -> Result<(), Failed> {
        self.is_whole()?;
        let function = self.function(launch.kernel)?;
        let Launch { kernel, grid: [x, y, z], block: [width, height], shared_bytes, .. } = *launch;
        if shared_bytes > 0 {
            self.allow_shared(kernel, function, shared_bytes)?;
        }
        let maps = launch.maps.iter().map(|map| self.encoded(map)).collect::<Result<Vec<_>, _>>()?;
        let maps = maps.iter().map(|map| (&raw const *map).cast_mut().cast());
        let numbers = launch.args.iter().map(|arg| (&raw const arg.0).cast_mut().cast());
        let mut args: Vec<*mut c_void> = maps.chain(numbers).collect();
        let (args, none) = (args.as_mut_ptr(), ptr::null_mut());
        // SAFETY: the caller vouches for the arguments, which the driver copies before it returns
        self.call(kernel.name, |api| unsafe {
            (api.launch)(function, x, y, z, width, height, 1, shared_bytes, self.stream, args, none)
        })?;
        if self.waits { self.wait_for(kernel.name) } else { Ok(()) }
    }

    fn is_hopper(&self) -> bool {
        self.gpu.capability == (9, 0)
    }
}

/// The pool that memory comes from, told to keep what is freed: giving it back to the system, and taking it again,
/// would cost time at every step.
fn pool(api: &Api, device: sys::CUdevice) -> Result<sys::CUmemoryPool, Failed> {
    let (mut pool, mut kept) = (ptr::null_mut(), u64::MAX);
    // SAFETY: a device that the driver has named
    api.checked("cuDeviceGetDefaultMemPool", unsafe { (api.default_pool)(&mut pool, device) })?;
    let (attribute, kept) =
        (sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, (&raw mut kept).cast());
    // SAFETY: this attribute is 64 bits, which are there until the call returns
    api.checked("cuMemPoolSetAttribute", unsafe { (api.set_pool_attribute)(pool, attribute, kept) })?;
    Ok(pool)
}

/// What is in a map that nobody leaves half written.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A point in the stream, with its time.
struct Event<'a> {
    driver: &'a Driver,
    event: sys::CUevent,
}

impl Event<'_> {
    fn new(driver: &Driver) -> Result<Event<'_>, Failed> {
        let (mut event, usual) = (ptr::null_mut(), sys::CUevent_flags::CU_EVENT_DEFAULT as u32);
        // SAFETY: what is pointed to is there until the call returns
        driver.call("cuEventCreate", |api| unsafe { (api.create_event)(&mut event, usual) })?;
        Ok(Event { driver, event })
    }

    fn record(&self) -> Result<(), Failed> {
        // SAFETY: both are ours
        self.driver.call("timing", |api| unsafe { (api.record_event)(self.event, self.driver.stream) })
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again
        let _ = self
            .driver
            .call_whatever_happened("cuEventDestroy", |api| unsafe { (api.destroy_event)(self.event) });
    }
}
