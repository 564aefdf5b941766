//! The GPU's kernels on the CPU: the `.cu` files, compiled with the shim, as a library that is loaded.
//!
//! A machine without a C++ compiler leaves these tests out and says so; with `KERNELS_REQUIRE=cuda-shim` it fails.

#[path = "compile.rs"]
mod compile;

use std::{
    ffi::{CStr, CString, c_char, c_void},
    fmt,
    sync::{Mutex, OnceLock},
};

use libloading::Library;
use prompt_tuning_kernels::cuda::{Failed, Launch, Launcher, Slice, SliceMut};

/// The shim, with a schedule: who of the threads of a block goes on when several can.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    shim: &'static Shim,
    schedule: Schedule,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Schedule {
    Forward,
    Backward,
    Random(u64),
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "cuda on the CPU, {:?}", self.schedule)
    }
}

/// The shim under several schedules; nothing where it cannot be compiled.
pub(crate) fn hosts() -> Vec<Host> {
    let schedules = [Schedule::Forward, Schedule::Backward, Schedule::Random(1), Schedule::Random(2)];
    let shim = Shim::get().into_iter();
    shim.flat_map(|shim| schedules.map(|schedule| Host { shim, schedule })).collect()
}

/// Memory of the CPU, as the kernels see it there.
pub(crate) fn read<T>(x: &[T]) -> Slice<'_, T> {
    // SAFETY: the address and length of a slice that is lent for the lifetime
    unsafe { Slice::from_raw(x.as_ptr() as u64, x.len()) }
}

/// Memory of the CPU, to be written.
pub(crate) fn write<T>(x: &mut [T]) -> SliceMut<'_, T> {
    // SAFETY: the address and length of a slice that is lent for the lifetime
    unsafe { SliceMut::from_raw(x.as_mut_ptr() as u64, x.len()) }
}

impl Launcher for Host {
    unsafe fn launch(&self, launch: &Launch) -> Result<(), Failed> {
        let (order, seed) = match self.schedule {
            Schedule::Forward => (0, 0),
            Schedule::Backward => (1, 0),
            Schedule::Random(seed) => (2, seed),
        };
        // SAFETY: the caller vouches for the arguments
        unsafe { self.shim.launch(launch, order, seed) }
    }
}

type LaunchFunction = unsafe extern "C" fn(
    *const c_char,
    *const u32,
    *const u32,
    *mut *const c_void,
    u32,
    u64,
) -> *const c_char;

struct Shim {
    library: Library,
    /// It has one block at a time.
    one_at_a_time: Mutex<()>,
}

impl Shim {
    fn get() -> Option<&'static Shim> {
        static SHIM: OnceLock<Option<Shim>> = OnceLock::new();
        SHIM.get_or_init(Shim::compiled).as_ref()
    }

    /// `None` where there is no compiler.
    fn compiled() -> Option<Shim> {
        let path = compile::library(&["shim.cpp"], &[])?;
        // SAFETY: its initialisers only note the names of the kernels
        let library = unsafe { Library::new(&path) }.expect("a library");
        std::fs::remove_file(&path).expect("the library was written");
        Some(Shim { library, one_at_a_time: Mutex::new(()) })
    }

    /// # Safety
    /// The arguments are those of the kernel.
    unsafe fn launch(&self, launch: &Launch, order: u32, seed: u64) -> Result<(), Failed> {
        let _turn = self.one_at_a_time.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let name = CString::new(launch.kernel.name).expect("a name");
        let block = [launch.block[0], launch.block[1], 1];
        let mut arguments: Vec<*const c_void> =
            launch.args.iter().map(|arg| (&raw const arg.0).cast()).collect();
        // SAFETY: the signature is that of shim.cpp
        let function = unsafe { self.library.get::<LaunchFunction>("shim_launch") }.expect("the shim has it");
        let (grid, block, arguments) = (launch.grid.as_ptr(), block.as_ptr(), arguments.as_mut_ptr());
        // SAFETY: pointers to what outlives the call; the caller vouches for the arguments
        let why = unsafe { function(name.as_ptr(), grid, block, arguments, order, seed) };
        if why.is_null() {
            return Ok(());
        }
        // SAFETY: a text that ends, and lasts until the next launch
        let why = unsafe { CStr::from_ptr(why) }.to_string_lossy().into_owned();
        Err(Failed { what: launch.kernel.name.to_string(), why })
    }
}
