//! The sources of the kernels compile with NVRTC too, where it is installed. No GPU is needed for that.
#![cfg(feature = "cuda")]

use std::{fs, path::Path};

use prompt_tuning_kernels::cuda::nvrtc::compile;

/// Names of the `.cu` files below a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(names(&path));
        } else if path.extension().is_some_and(|ending| ending == "cu") {
            found.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

#[test]
fn every_source_compiles() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let why = compile(&sources, "no_such_file", (9, 0)).unwrap_err().to_string();
    if why.contains("cannot be opened") {
        let required = std::env::var("KERNELS_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|name| name.trim() == "nvrtc"), "{why}");
        eprintln!("not tested: {why}");
        return;
    }
    assert!(why.starts_with("compiling no_such_file.cu: it is not in "), "{why}");
    let names = names(&sources);
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let image = compile(&sources, &name, (9, 0)).unwrap_or_else(|why| panic!("{why}"));
        assert!(image.starts_with(b"\x7fELF"), "{name}");
    }
}

#[test]
fn what_the_compiler_says_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("wrong.cu"), "__global__ void f() { g(); }").unwrap();
    let why = compile(folder.path(), "wrong", (8, 0)).unwrap_err().to_string();
    assert!(why.contains("cannot be opened") || why.contains("identifier \"g\" is undefined"), "{why}");
}
