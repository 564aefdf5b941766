//! `gpu` with a stand-in for NVIDIA's driver (`kernels/tests/shim/driver.cpp`), and without one.

#[path = "../../kernels/tests/shim/compile.rs"]
mod compile;

use std::process::Command;

use prompt_tuning_benches::gpu::report::GpuRun;

#[test]
fn every_operation_is_compared_and_timed() {
    let Some(folder) = compile::library("libcuda.so.1", &["shim.cpp", "driver.cpp"]) else { return };
    let out = folder.path().join("gpu.json");
    let program = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-tuning-benches"));
        let output = command.args(args).env("LD_LIBRARY_PATH", folder.path()).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let file = out.to_str().expect("UTF-8");
    let table = program(&["gpu", "--quick", "--steps", "1", "--out", file]);
    let run: GpuRun =
        serde_json::from_str(&std::fs::read_to_string(&out).expect("a file")).expect("the report");
    assert_eq!(run.gpu.name, "a CPU in place of a GPU");
    assert!(run.measurements.len() > 25 && run.measurements.iter().all(|m| m.error.is_some()));
    assert_eq!(run.steps.len(), 1);
    assert_eq!(program(&["gpu", "--from", file]), table);
}

#[test]
fn without_a_gpu_it_says_why() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-tuning-benches"));
    let output =
        command.args(["gpu", "--quick"]).env("PROMPT_TUNING_GPU", "off").output().expect("it starts");
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && why.lines().count() == 1 && why.contains("PROMPT_TUNING_GPU=off"),
        "{why}"
    );
}
