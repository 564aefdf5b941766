//! Is there a GPU that can be used? An answer, never a panic.
//!
//! A driver may be missing, old, a stub that only linkers want, or newer than anything known here; and it may answer
//! with codes that nobody has heard of. So the questions are asked with plain integers, and function by function: an
//! old driver, which lacks newer functions, is called old. Only of a driver that has answered all of them are the
//! functions loaded with which the kernels run.
//!
//! `PROMPT_TUNING_GPU` says what is wanted: `off` (there is none, do not look), `auto` (the default), or `require`,
//! with which tests that find none fail, so that on a machine with a GPU a skipped test cannot pass for a passed one.

use std::{ffi::CStr, fmt, sync::OnceLock};

use libloading::Library;

/// The version of the driver's interface that is needed: CUDA 13.0.
pub const NEEDED: i32 = 13_000;

/// The oldest architecture there are kernels for: `sm_80`.
pub const OLDEST: (i32, i32) = (8, 0);

/// The first GPU, as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// "NVIDIA H200"
    pub name: String,
    /// Compute capability: `(9, 0)` is `sm_90`.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory: u64,
    /// The driver's version of the interface: 13000 is 13.0.
    pub driver: i32,
}

/// Why there is no GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoGpu {
    /// `PROMPT_TUNING_GPU=off`.
    SwitchedOff,
    /// `PROMPT_TUNING_GPU` is something else than it can be.
    NoSuchSetting(String),
    /// `libcuda` cannot be opened.
    NoDriver,
    /// `libcuda` lacks a function that every driver has.
    NoFunction(&'static str),
    /// A call of the driver returned this code.
    Refused {
        /// Which call.
        call: &'static str,
        /// `CUresult`
        code: i32,
    },
    /// The driver's version of the interface is too old.
    OldDriver(i32),
    /// The driver works, and there is no device.
    NoDevice,
    /// The GPU is older than the kernels.
    OldGpu(Box<Gpu>),
}

impl fmt::Display for NoGpu {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let version = |v: i32| format!("{}.{}", v / 1000, v % 1000 / 10);
        match self {
            NoGpu::SwitchedOff => write!(f, "PROMPT_TUNING_GPU=off"),
            NoGpu::NoSuchSetting(value) => {
                write!(f, "PROMPT_TUNING_GPU={value}: it is off, auto or require")
            }
            NoGpu::NoDriver => {
                write!(f, "libcuda.so.1 cannot be opened; is NVIDIA's driver installed?")
            }
            NoGpu::NoFunction(name) => write!(f, "the libcuda that was found has no {name}"),
            NoGpu::Refused { call, code } => {
                write!(f, "{call} of NVIDIA's driver returned {code}{}", explained(*code))
            }
            NoGpu::OldDriver(v) => {
                write!(f, "NVIDIA's driver is for CUDA {}, {} is needed", version(*v), version(NEEDED))
            }
            NoGpu::NoDevice => write!(f, "NVIDIA's driver finds no device"),
            NoGpu::OldGpu(gpu) => {
                let (major, minor) = gpu.capability;
                write!(f, "{} has compute capability {major}.{minor}, 8.0 is needed", gpu.name)
            }
        }
    }
}

impl std::error::Error for NoGpu {}

/// What the commoner codes mean (`CUresult` in `cuda.h`).
fn explained(code: i32) -> &'static str {
    match code {
        3 => " (not initialised)",
        34 => " (a stub library, meant for linking)",
        46 => " (the device is not available)",
        100 => " (no device)",
        101 => " (invalid device)",
        802 => " (the system is not ready)",
        803 => " (driver and kernel module do not fit together)",
        _ => "",
    }
}

/// What `PROMPT_TUNING_GPU` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// There is none.
    Off,
    /// If there is one.
    Auto,
    /// Tests that find none fail.
    Require,
}

/// The setting.
///
/// # Errors
/// It is set to something else than `off`, `auto` or `require`.
pub fn wanted() -> Result<Wanted, NoGpu> {
    match std::env::var("PROMPT_TUNING_GPU").as_deref() {
        Err(_) | Ok("" | "auto") => Ok(Wanted::Auto),
        Ok("off") => Ok(Wanted::Off),
        Ok("require") => Ok(Wanted::Require),
        Ok(other) => Err(NoGpu::NoSuchSetting(other.to_string())),
    }
}

/// The first GPU, unless it is switched off.
///
/// # Errors
/// Why there is none.
pub fn probe() -> Result<Gpu, NoGpu> {
    open().map(|(gpu, _)| gpu)
}

/// The first GPU, and the library that knows it.
pub(super) fn open() -> Result<(Gpu, &'static Library), NoGpu> {
    // a driver that has started threads must not be unloaded: what is in a static stays
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    if wanted()? == Wanted::Off {
        return Err(NoGpu::SwitchedOff);
    }
    // SAFETY: the library is NVIDIA's driver, whose initialisers are meant to run at any time
    let named = |name| unsafe { Library::new(name) };
    let library = LIBRARY.get_or_init(|| named("libcuda.so.1").or_else(|_| named("libcuda.so")).ok());
    let library = library.as_ref().ok_or(NoGpu::NoDriver)?;
    Ok((ask(library)?, library))
}

/// Calls a function of the driver; ends the caller with an error where there is none, or it returns one.
macro_rules! call {
    ($library:expr, $name:literal, $($argument:expr => $type:ty),*) => {{
        // SAFETY: the signature is that of cuda.h, with CUresult and CUdevice as the integers that they are
        let function = unsafe { $library.get::<unsafe extern "C" fn($($type),*) -> i32>($name.as_bytes()) };
        let function = function.map_err(|_| NoGpu::NoFunction($name))?;
        // SAFETY: as above; what is pointed to is there until the call returns
        let code = unsafe { function($($argument),*) };
        if code != 0 {
            return Err(NoGpu::Refused { call: $name, code });
        }
    }};
}

/// What `library` says. [`probe`] asks the one that is installed; tests ask others.
///
/// # Errors
/// Why there is no GPU.
pub fn ask(library: &Library) -> Result<Gpu, NoGpu> {
    let (mut driver, mut devices, mut device, mut memory) = (0i32, 0i32, 0i32, 0usize);
    let (mut major, mut minor, mut name) = (0i32, 0i32, [0u8; 256]);
    call!(library, "cuInit", 0 => u32);
    call!(library, "cuDriverGetVersion", &mut driver => *mut i32);
    if driver < NEEDED {
        return Err(NoGpu::OldDriver(driver));
    }
    call!(library, "cuDeviceGetCount", &mut devices => *mut i32);
    if devices < 1 {
        return Err(NoGpu::NoDevice);
    }
    call!(library, "cuDeviceGet", &mut device => *mut i32, 0 => i32);
    // the last byte is left alone, so there is an end
    call!(library, "cuDeviceGetName", name.as_mut_ptr() => *mut u8, 255 => i32, device => i32);
    call!(library, "cuDeviceGetAttribute", &mut major => *mut i32, MAJOR => i32, device => i32);
    call!(library, "cuDeviceGetAttribute", &mut minor => *mut i32, MINOR => i32, device => i32);
    call!(library, "cuDeviceTotalMem_v2", &mut memory => *mut usize, device => i32);
    let name = CStr::from_bytes_until_nul(&name).map_or("a GPU without a name".into(), CStr::to_string_lossy);
    let gpu = Gpu { name: name.into_owned(), capability: (major, minor), memory: memory as u64, driver };
    if gpu.capability < OLDEST { Err(NoGpu::OldGpu(Box::new(gpu))) } else { Ok(gpu) }
}

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`
const MAJOR: i32 = 75;
const MINOR: i32 = 76;
