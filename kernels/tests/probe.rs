//! The probe asks drivers that lie, refuse, lack functions or are old: every answer is a value, and nothing panics.
#![cfg(feature = "cuda")]

use std::{fs, process::Command};

use libloading::Library;
use prompt_tuning_kernels::cuda::{
    self, Gpu, NoGpu, probe,
    probe::{Wanted, ask, wanted},
};

/// A driver, as it answers.
#[derive(Clone, Copy)]
struct Driver {
    init: i32,
    version: i32,
    devices: i32,
    capability: (i32, i32),
    /// A function that it does not have.
    lacks: &'static str,
    /// Code of the calls that ask a device about itself.
    about: i32,
}

const GOOD: Driver = Driver { init: 0, version: 13_010, devices: 2, capability: (9, 0), lacks: "", about: 0 };

impl Driver {
    /// A library of C functions that answer so.
    fn library(self) -> Library {
        self.linked(&[])
    }

    /// [`Driver::library`], linked with these options.
    fn linked(self, options: &[&str]) -> Library {
        let Driver { init, version, devices, capability: (major, minor), lacks, about } = self;
        let functions = [
            ("cuInit", format!("unsigned flags) {{ return {init};")),
            ("cuDriverGetVersion", format!("int* v) {{ *v = {version}; return 0;")),
            ("cuDeviceGetCount", format!("int* n) {{ *n = {devices}; return 0;")),
            ("cuDeviceGet", "int* device, int i) { *device = i; return 0;".to_string()),
            // as many letters as fit, and no end: what a careless driver could write
            (
                "cuDeviceGetName",
                format!("char* name, int n, int d) {{ while (n > 0) name[--n] = 'G'; return {about};"),
            ),
            (
                "cuDeviceGetAttribute",
                format!("int* x, int which, int d) {{ *x = which == 75 ? {major} : {minor}; return {about};"),
            ),
            ("cuDeviceTotalMem_v2", format!("unsigned long* n, int d) {{ *n = 1ul << 37; return {about};")),
        ];
        let functions = functions.iter().filter(|(name, _)| *name != lacks);
        let code: String = functions.map(|(name, rest)| format!("int {name}({rest} }}\n")).collect();

        let folder = tempfile::tempdir().expect("a folder");
        let (source, library) = (folder.path().join("driver.c"), folder.path().join("driver.so"));
        fs::write(&source, code).expect("it is written");
        let compiler = Command::new("cc")
            .args(["-shared", "-fPIC"])
            .args(options)
            .arg("-o")
            .args([&library, &source])
            .output();
        let output = compiler.expect("cc, which links every Rust program");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // SAFETY: it has no initialisers
        unsafe { Library::new(library) }.expect("a library")
    }
}

#[test]
fn a_good_driver_describes_its_gpu() {
    let gpu = ask(&GOOD.library()).expect("a GPU");
    assert_eq!(gpu, Gpu { name: "G".repeat(255), capability: (9, 0), memory: 1 << 37, driver: 13_010 });
}

#[test]
fn every_refusal_is_a_value_and_says_why() {
    let refused = |call, code| NoGpu::Refused { call, code };
    let cases = [
        (Driver { init: 100, ..GOOD }, refused("cuInit", 100), "returned 100 (no device)"),
        (Driver { init: 34, ..GOOD }, refused("cuInit", 34), "a stub library"),
        (Driver { init: 9999, ..GOOD }, refused("cuInit", 9999), "cuInit of NVIDIA's driver returned 9999"),
        (Driver { init: -1, ..GOOD }, refused("cuInit", -1), "returned -1"),
        (Driver { lacks: "cuInit", ..GOOD }, NoGpu::NoFunction("cuInit"), "no cuInit"),
        (
            Driver { lacks: "cuDeviceTotalMem_v2", ..GOOD },
            NoGpu::NoFunction("cuDeviceTotalMem_v2"),
            "no cuDev",
        ),
        (Driver { version: 12_040, ..GOOD }, NoGpu::OldDriver(12_040), "is for CUDA 12.4, 13.0 is needed"),
        (Driver { devices: 0, ..GOOD }, NoGpu::NoDevice, "no device"),
        (Driver { devices: -3, ..GOOD }, NoGpu::NoDevice, "no device"),
        (Driver { about: 719, ..GOOD }, refused("cuDeviceGetName", 719), "returned 719"),
    ];
    for (driver, expected, words) in cases {
        let why = ask(&driver.library()).expect_err("no GPU");
        assert_eq!(why, expected);
        assert!(why.to_string().contains(words), "{why}");
        assert!(!why.to_string().contains('\n'), "{why}");
    }
    let why = ask(&Driver { capability: (7, 5), ..GOOD }.library()).expect_err("too old a GPU");
    assert!(why.to_string().contains("compute capability 7.5, 8.0 is needed"), "{why}");
}

/// A driver that answers the probe, and lacks what the kernels need.
#[test]
#[cfg(target_os = "linux")]
fn a_function_that_only_the_kernels_need_is_missed() {
    if wanted() != Ok(Wanted::Auto) {
        return;
    }
    // a library of this name that is loaded is the one that is found when somebody asks for the driver
    let _library = GOOD.linked(&["-Wl,-soname,libcuda.so.1"]);
    assert!(probe().is_ok());
    for _ in 0..2 {
        let why = cuda::Driver::get().expect_err("no driver").to_string();
        assert_eq!(why, "no GPU: the libcuda that was found has no cuDevicePrimaryCtxRetain");
    }
}

/// `PROMPT_TUNING_GPU=require` on a machine with a GPU: what finds none must not pass.
#[test]
fn a_gpu_that_is_required_is_there() {
    if wanted() == Ok(Wanted::Require) {
        probe().expect("the GPU that is required");
    }
}
