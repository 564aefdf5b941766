//! The GPU's kernels on the CPU: the `.cu` files, compiled with the shim, as a library that is loaded.
//!
//! A machine without a C++ compiler leaves these tests out and says so; with `KERNELS_REQUIRE=cuda-shim` it fails.

#[path = "compile.rs"]
mod compile;

use std::{
    cell::Cell,
    ffi::{CStr, CString, c_char, c_void},
    fmt,
    sync::{Mutex, OnceLock},
};

use libloading::Library;
use prompt_tuning_kernels::cuda::{Failed, Kernel, Launch, Launcher, Slice, SliceMut, TensorMap};

/// The shim, with a schedule: who of the threads of a block goes on when several can.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    shim: &'static Shim,
    schedule: Schedule,
    is_hopper: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Schedule {
    Forward,
    Backward,
    Random(u64),
}

impl Host {
    /// `None` where it cannot be compiled.
    fn new(schedule: Schedule) -> Option<Host> {
        Shim::get().map(|shim| Host { shim, schedule, is_hopper: false })
    }

    /// The same, for a GPU that has what is new in Hopper.
    #[allow(dead_code, reason = "not all tests that have this file multiply")]
    pub(crate) fn as_hopper(self) -> Host {
        Host { is_hopper: true, ..self }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let which = if self.is_hopper { "cuda for Hopper" } else { "cuda" };
        write!(f, "{which} on the CPU, {:?}", self.schedule)
    }
}

/// The shim under several schedules; nothing where it cannot be compiled.
pub(crate) fn hosts() -> Vec<Host> {
    let schedules = [Schedule::Forward, Schedule::Backward, Schedule::Random(1), Schedule::Random(2)];
    schedules.into_iter().filter_map(Host::new).collect()
}

/// Most turns of threads in a case that is small: some milliseconds.
const FEW_TURNS: u64 = 1 << 14;

/// Runs case number `case` under a random schedule of its own, and if it is small, under three more.
pub(crate) fn on_schedules(case: usize, mut check: impl FnMut(Host)) {
    let (seed, before) = (2 * case as u64 + 1, TURNS.get());
    Host::new(Schedule::Random(seed)).into_iter().for_each(&mut check);
    if TURNS.get() - before <= FEW_TURNS {
        let others = [Schedule::Random(seed + 1), Schedule::Forward, Schedule::Backward];
        others.into_iter().filter_map(Host::new).for_each(check);
    }
}

thread_local! {
    /// Turns that threads of kernels had in the launches of this thread.
    static TURNS: Cell<u64> = const { Cell::new(0) };
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

    fn is_hopper(&self) -> bool {
        self.is_hopper
    }
}

type FindFunction = unsafe extern "C" fn(*const c_char, *const c_char) -> *const c_void;
type CountFunction = unsafe extern "C" fn(*const c_void) -> u32;
type TurnsFunction = unsafe extern "C" fn() -> u64;
type RunFunction = unsafe extern "C" fn(
    *const c_void,
    *const u32,
    *const u32,
    u32,
    *mut *const c_void,
    u32,
    u64,
) -> *const c_char;
type MapFunction = unsafe extern "C" fn(*mut Encoded, u64, u32, *const u64, u64, *const u32) -> *const c_char;

/// A tensor map as a kernel takes it.
#[repr(C, align(64))]
struct Encoded([u64; 16]);

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
        let folder = compile::library("libshim.so", &["shim.cpp"])?;
        // SAFETY: its initialisers only note the names of the kernels
        let library = unsafe { Library::new(folder.path().join("libshim.so")) }.expect("a library");
        Some(Shim { library, one_at_a_time: Mutex::new(()) })
    }

    /// # Safety
    /// The arguments are those of the kernel.
    unsafe fn launch(&self, launch: &Launch, order: u32, seed: u64) -> Result<(), Failed> {
        let _turn = self.one_at_a_time.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let kernel = self.kernel(launch)?;
        let block = [launch.block[0], launch.block[1], 1];
        let maps = launch.maps.iter().map(|map| self.encoded(map)).collect::<Result<Vec<_>, _>>()?;
        let maps = maps.iter().map(|map| (&raw const *map).cast());
        let numbers = launch.args.iter().map(|arg| (&raw const arg.0).cast());
        let mut arguments: Vec<*const c_void> = maps.chain(numbers).collect();
        // SAFETY: the signature is that of shim.cpp
        let run = unsafe { self.library.get::<RunFunction>("shim_run") }.expect("the shim has it");
        let (grid, block, arguments) = (launch.grid.as_ptr(), block.as_ptr(), arguments.as_mut_ptr());
        // SAFETY: pointers to what outlives the call; the caller vouches for the arguments
        let why = unsafe { run(kernel, grid, block, launch.shared_bytes, arguments, order, seed) };
        // SAFETY: the signature is that of shim.cpp
        let turns = unsafe { self.library.get::<TurnsFunction>("shim_turns") }.expect("the shim has it");
        // SAFETY: it only reads a number
        TURNS.set(TURNS.get() + unsafe { turns() });
        if why.is_null() {
            return Ok(());
        }
        // SAFETY: a text that ends, and lasts until the next launch
        let why = unsafe { CStr::from_ptr(why) }.to_string_lossy();
        Err(Failed::new(launch.kernel.name, why))
    }

    /// `map` as the shim's copies take it.
    fn encoded(&self, map: &TensorMap) -> Result<Encoded, Failed> {
        // SAFETY: the signature is that of hopper.cpp
        let encode = unsafe { self.library.get::<MapFunction>("shim_tensor_map") }.expect("the shim has it");
        let mut encoded = Encoded([0; 16]);
        let (bytes, sizes, box_sizes) = (map.element.bytes(), map.sizes(), map.box_sizes());
        // SAFETY: what is pointed to is there until the call returns, and a map is not longer
        let why = unsafe {
            encode(&mut encoded, map.address, bytes, sizes.as_ptr(), map.row_bytes(), box_sizes.as_ptr())
        };
        if why.is_null() {
            return Ok(encoded);
        }
        // SAFETY: a text that ends, and stays
        Err(Failed::new("a map", unsafe { CStr::from_ptr(why) }.to_string_lossy()))
    }

    /// The kernel, if it takes so many arguments, and there is an image of it.
    fn kernel(&self, launch: &Launch) -> Result<*const c_void, Failed> {
        let Kernel { file, name } = launch.kernel;
        let [c_file, c_name] = [file, name].map(|text| CString::new(text).expect("a name"));
        // SAFETY: the signature is that of shim.cpp
        let find = unsafe { self.library.get::<FindFunction>("shim_kernel") }.expect("the shim has it");
        // SAFETY: texts that end
        let kernel = unsafe { find(c_file.as_ptr(), c_name.as_ptr()) };
        if kernel.is_null() {
            return Err(Failed::new(name, format_args!("no kernel of this name in {file}")));
        }
        let is_of_tests = ["faults", "instructions", "hopper_instructions"].contains(&file);
        if !is_of_tests && !compiled_kernels().any(|kernel| kernel == (file, name)) {
            return Err(Failed::new(
                name,
                format_args!("no image of {file} has it: run scripts/cuda-images.sh"),
            ));
        }
        // SAFETY: the signature is that of shim.cpp
        let count = unsafe { self.library.get::<CountFunction>("shim_arguments") }.expect("the shim has it");
        // SAFETY: a kernel of the shim's
        let (wanted, given) = (unsafe { count(kernel) } as usize, launch.maps.len() + launch.args.len());
        if given != wanted {
            return Err(Failed::new(name, format_args!("{given} arguments, it takes {wanted}")));
        }
        Ok(kernel)
    }
}

/// File and name of every kernel that is in an image.
pub(crate) fn compiled_kernels() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("../../src/cuda/images/RESOURCES.txt").lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().zip(words.next())
    })
}
