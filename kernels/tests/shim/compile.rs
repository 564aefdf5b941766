//! Compiles the shim with all kernels of the GPU to a library.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A folder of its own with a library of this name, from these sources of `tests/shim`; or `None` where there is no compiler
/// or no Linux, whose way of linking the shim needs, and then the reader of the test's output is told. Whoever has loaded
/// the library needs the folder no longer.
///
/// As `libcuda.so.1`, with `driver.cpp`, it is the one that is found when somebody asks for NVIDIA's driver: in a process that
/// has loaded it, or one that looks for libraries in its folder.
///
/// Panics where the compiler refuses the kernels, and where `KERNELS_REQUIRE=cuda-shim` and there is none. Only then is
/// what it warns of an error: other compilers warn of other things.
pub(crate) fn library(name: &str, sources: &[&str]) -> Option<TempDir> {
    let required = std::env::var("KERNELS_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|name| name.trim() == "cuda-shim");
    let compiler = std::env::var("CXX").unwrap_or("c++".to_string());
    if !cfg!(target_os = "linux") || Command::new(&compiler).arg("--version").output().is_err() {
        let why = format!("this is no Linux, or there is no C++ compiler `{compiler}`");
        assert!(!is_required, "{why}");
        eprintln!("the GPU's kernels are not tested: {why}");
        return None;
    }
    // the tests of other crates compile it too
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels");
    let shim = root.join("tests/shim");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let usual = "-std=c++17 -O2 -ffp-contract=off -Wall -Wextra -Wno-unknown-pragmas -fPIC -shared -DSHIM";
    let output = Command::new(&compiler)
        .args(usual.split(' '))
        .args(is_required.then_some("-Werror"))
        .arg(format!("-DSHIM_IMAGES=\"{}\"", root.join("src/cuda/images").display()))
        .arg(format!("-Wl,-soname,{name}"))
        .args([root.join("src/cuda"), shim.clone()].map(|folder| format!("-I{}", folder.display())))
        .arg("-o")
        .arg(folder.path().join(name))
        .args(sources.iter().chain(&["hopper.cpp"]).map(|source| shim.join(source)))
        .args(["-x", "c++"])
        .args(kernels(&root.join("src")))
        .args(["faults.cu", "instructions.cu", "hopper_instructions.cu"].map(|source| shim.join(source)))
        .output()
        .expect("it has run before");
    assert!(output.status.success(), "{compiler}:\n{}", String::from_utf8_lossy(&output.stderr));
    Some(folder)
}

/// Every `.cu` file under `folder`.
fn kernels(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(kernels(&path));
        } else if path.extension().is_some_and(|ending| ending == "cu") {
            found.push(path);
        }
    }
    found.sort();
    found
}
