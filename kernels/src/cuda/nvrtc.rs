//! For those who write kernels: compiles a source when it is asked for, with NVIDIA's compiler that is a library (NVRTC), so
//! that a change is tried without an image made and without this crate compiled again.
//!
//! `PROMPT_TUNING_KERNELS=DIR` says where the sources are (`kernels/src`); without it the images that were built in are used,
//! and this library is not looked for.

use std::{
    env,
    ffi::{CString, c_char, c_int, c_void},
    fs,
    path::{Path, PathBuf},
    ptr,
};

use libloading::{Library, Symbol};

use super::Failed;

/// Names of the library, the version the images are built with first.
const NAMES: [&str; 4] = ["libnvrtc.so.13", "libnvrtc.so", "nvrtc64_130_0.dll", "libnvrtc.dylib"];

/// The folder of the sources, if they are to be compiled.
pub(super) fn sources() -> Option<PathBuf> {
    env::var_os("PROMPT_TUNING_KERNELS").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// An image of `file.cu`, somewhere below a folder, for GPUs of this compute capability.
///
/// # Errors
/// There is no compiler or no such source, or the compiler refuses it: then with what it says.
pub fn compile(sources: &Path, file: &str, capability: (i32, i32)) -> Result<Vec<u8>, Failed> {
    let nvrtc = Nvrtc::open()?;
    let failed = |why: &dyn std::fmt::Display| Failed::new(format_args!("compiling {file}.cu"), why);
    let path = find(sources, &format!("{file}.cu"));
    let path = path.ok_or_else(|| failed(&format_args!("it is not in {}", sources.display())))?;
    let source = fs::read_to_string(&path).map_err(|e| failed(&e))?;
    let folders = [sources.join("cuda"), path.parent().unwrap_or(sources).to_owned()];
    let includes = folders.map(|folder| format!("--include-path={}", folder.display()));
    let (major, minor) = capability;
    // what only this one architecture has is asked for too, as the images have it
    let only = if capability == (9, 0) { "a" } else { "" };
    let architecture = format!("--gpu-architecture=sm_{major}{minor}{only}");
    let options: Vec<String> =
        [architecture, "--std=c++17".into(), "--device-as-default-execution-space".into()]
            .into_iter()
            .chain(includes)
            .collect();
    nvrtc.program(&source, &path.display().to_string())?.compile(&options).map_err(|why| failed(&why))
}

/// The file of this name, at any depth.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let here = paths.iter().find(|path| path.file_name().is_some_and(|found| found == name));
    here.cloned().or_else(|| paths.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
}

/// The library.
struct Nvrtc(Library);

/// `nvrtcProgram`
type Handle = *mut c_void;

impl Nvrtc {
    fn open() -> Result<Nvrtc, Failed> {
        // SAFETY: NVIDIA's compiler, whose initialisers are meant to run at any time
        let found = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok());
        found.map(Nvrtc).ok_or_else(|| {
            Failed::new(
                "PROMPT_TUNING_KERNELS",
                "libnvrtc.so.13 cannot be opened: kernels are compiled with it",
            )
        })
    }

    /// # Safety
    /// `F` is the signature that nvrtc.h gives the function.
    unsafe fn function<F>(&self, name: &'static str) -> Result<Symbol<'_, F>, Failed> {
        // SAFETY: the caller vouches for it
        unsafe { self.0.get(name.as_bytes()) }.map_err(|why| Failed::new(name, why))
    }

    fn program(&self, source: &str, name: &str) -> Result<Program<'_>, Failed> {
        type Create = unsafe extern "C" fn(
            *mut Handle,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        let text = |x: &str| CString::new(x).map_err(|why| Failed::new("the source of a kernel", why));
        let (source, name, mut handle) = (text(source)?, text(name)?, ptr::null_mut());
        // SAFETY: the signature of nvrtc.h
        let create = unsafe { self.function::<Create>("nvrtcCreateProgram") }?;
        // SAFETY: two texts, no headers, and a place for the handle, all there until the call returns
        let code =
            unsafe { create(&mut handle, source.as_ptr(), name.as_ptr(), 0, ptr::null(), ptr::null()) };
        checked("nvrtcCreateProgram", code)?;
        Ok(Program { nvrtc: self, handle })
    }
}

/// A source on its way through the compiler.
struct Program<'a> {
    nvrtc: &'a Nvrtc,
    handle: Handle,
}

impl Program<'_> {
    fn compile(self, options: &[String]) -> Result<Vec<u8>, String> {
        type Compile = unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> c_int;
        let options: Result<Vec<CString>, _> = options.iter().map(|x| CString::new(x.as_str())).collect();
        let options = options.map_err(|why| why.to_string())?;
        let pointers: Vec<*const c_char> = options.iter().map(|x| x.as_ptr()).collect();
        // SAFETY: the signature of nvrtc.h
        let compile = unsafe { self.nvrtc.function::<Compile>("nvrtcCompileProgram") };
        let compile = compile.map_err(|why| why.to_string())?;
        // SAFETY: our program, and as many options as are said, there until the call returns
        let code = unsafe { compile(self.handle, pointers.len() as c_int, pointers.as_ptr()) };
        if code != 0 {
            let log =
                self.bytes("nvrtcGetProgramLogSize", "nvrtcGetProgramLog").map_err(|why| why.to_string())?;
            return Err(String::from_utf8_lossy(&log).trim_end_matches(['\0', '\n']).to_string());
        }
        self.bytes("nvrtcGetCUBINSize", "nvrtcGetCUBIN").map_err(|why| why.to_string())
    }

    /// What one function says the size of, and the other gives.
    fn bytes(&self, size: &'static str, content: &'static str) -> Result<Vec<u8>, Failed> {
        type Size = unsafe extern "C" fn(Handle, *mut usize) -> c_int;
        type Content = unsafe extern "C" fn(Handle, *mut c_char) -> c_int;
        let mut n = 0;
        // SAFETY: the signature of nvrtc.h
        let get = unsafe { self.nvrtc.function::<Size>(size) }?;
        // SAFETY: our program, and a place for the number
        checked(size, unsafe { get(self.handle, &mut n) })?;
        let mut bytes = vec![0u8; n];
        // SAFETY: the signature of nvrtc.h
        let get = unsafe { self.nvrtc.function::<Content>(content) }?;
        // SAFETY: our program, and room for as much as it says it has
        checked(content, unsafe { get(self.handle, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        // SAFETY: the signature of nvrtc.h
        let destroy = unsafe {
            self.nvrtc.function::<unsafe extern "C" fn(*mut Handle) -> c_int>("nvrtcDestroyProgram")
        };
        if let Ok(destroy) = destroy {
            // SAFETY: our program, which nobody uses any more
            unsafe { destroy(&mut self.handle) };
        }
    }
}

fn checked(what: &str, code: c_int) -> Result<(), Failed> {
    if code == 0 { Ok(()) } else { Err(Failed::new(what, format_args!("NVRTC's error {code}"))) }
}
