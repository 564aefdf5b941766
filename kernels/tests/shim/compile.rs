//! Compiles the shim with all kernels of the GPU to a library.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The library with these sources of `tests/shim` and linked so, or `None` where there is no compiler; then the reader of the
/// test's output is told. Whoever loads it may remove it afterwards.
///
/// Panics where the compiler refuses the kernels, and where `KERNELS_REQUIRE=cuda-shim` and there is none.
pub(crate) fn library(sources: &[&str], options: &[&str]) -> Option<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or("c++".to_string());
    if Command::new(&compiler).arg("--version").output().is_err() {
        let required = std::env::var("KERNELS_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|name| name.trim() == "cuda-shim"), "no C++ compiler `{compiler}`");
        eprintln!("the GPU's kernels are not tested: there is no C++ compiler `{compiler}`");
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shim = root.join("tests/shim");
    // of this process, because several may compile at one time
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shim-{}.so", std::process::id()));
    let usual =
        "-std=c++17 -O2 -ffp-contract=off -Wall -Wextra -Wno-unknown-pragmas -Werror -fPIC -shared -DSHIM";
    let output = Command::new(&compiler)
        .args(usual.split(' '))
        .args(options)
        .args([root.join("src/cuda"), shim.clone()].map(|folder| format!("-I{}", folder.display())))
        .arg("-o")
        .arg(&library)
        .args(sources.iter().map(|source| shim.join(source)))
        .args(["-x", "c++"])
        .args(kernels(&root.join("src")))
        .arg(shim.join("faults.cu"))
        .output()
        .expect("it has run before");
    assert!(output.status.success(), "{compiler}:\n{}", String::from_utf8_lossy(&output.stderr));
    Some(library)
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
