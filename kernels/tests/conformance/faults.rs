//! The shim notices what is wrong with a kernel: the proof that tests of the GPU's kernels can fail.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prompt_tuning_kernels::cuda::Launch;

use crate::device::cuda::{Host, compiled_kernels, hosts, read, write};

const THREADS: usize = 64;

/// Everything that is launched is in an image: tests that launch something else fail (`shim/host.rs`). The other way
/// round: no kernel is compiled that nobody launches.
#[test]
fn every_compiled_kernel_is_launched() {
    let code = code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let unknown: Vec<_> = compiled_kernels().filter(|(_, name)| !is_launched(&code, name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(!is_launched(&code, "attention_forward_512"), "there is no such width");
}

/// Whether a kernel is named, or is one of a table `"name", threads, [width: rows, ...]` of kernels for several widths.
fn is_launched(code: &str, name: &str) -> bool {
    let of_table = || {
        let (stem, width) = name.rsplit_once('_')?;
        let (_, behind) = code.split_once(&format!("\"{stem}\""))?;
        let (widths, _) = behind.split_once('[')?.1.split_once(']')?;
        Some(widths.split(", ").any(|of| of.starts_with(&format!("{width}:"))))
    };
    code.contains(&format!("\"{name}\"")) || of_table() == Some(true)
}

/// All Rust code under `folder`.
fn code(folder: &Path) -> String {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let text = |path: PathBuf| match path.extension() {
        _ if path.is_dir() => code(&path),
        Some(ending) if ending == "rs" => fs::read_to_string(&path).expect("code"),
        _ => String::new(),
    };
    entries.map(text).collect()
}

/// What three blocks of 64 numbers become when each moves one place down.
fn moved(x: &[f32]) -> Vec<f32> {
    x.chunks(THREADS).flat_map(|x| (0..THREADS).map(move |i| x[(i + 1) % THREADS])).collect()
}

/// The result of a kernel under one schedule, or what the shim says.
fn run(host: &Host, name: &'static str) -> Result<Vec<f32>, String> {
    let x: Vec<f32> = (0..3 * THREADS).map(|i| i as f32).collect();
    let mut y = vec![f32::NAN; x.len()];
    let launch = Launch::new("faults", name, 1, THREADS as u32).arg(read(&x)).arg(write(&mut y));
    // SAFETY: two slices, as all of these kernels take them
    unsafe { launch.on(host) }.map(|()| y).map_err(|why| why.to_string())
}

/// Whether some schedule gives other numbers than `moved`.
fn some_schedule_is_wrong(name: &'static str, numbers: usize) -> bool {
    let x: Vec<f32> = (0..3 * THREADS).map(|i| i as f32).collect();
    hosts().iter().any(|host| run(host, name).expect("it runs")[..numbers] != moved(&x)[..numbers])
}

#[test]
fn missing_barriers_give_wrong_numbers() {
    if hosts().is_empty() {
        return;
    }
    assert!(some_schedule_is_wrong("fault_no_barrier", THREADS));
    assert!(some_schedule_is_wrong("fault_no_second_barrier", 3 * THREADS));
    assert!(!some_schedule_is_wrong("faultless", 3 * THREADS));
}

#[test]
fn what_would_hang_is_said() {
    let faults = [
        ("fault_half_a_warp", ["has ended", "deadlock"]),
        ("fault_two_barriers", ["are at barriers", "faults.cu"]),
        ("fault_deadlock", ["deadlock", "waits at"]),
        ("fault_of_nobody", ["no kernel", "no kernel"]),
    ];
    for host in hosts() {
        for (name, words) in faults {
            let why = run(&host, name).expect_err(name);
            assert!(words.iter().any(|word| why.contains(word)), "{host:?} {why}");
        }
        // and it can be used afterwards
        run(&host, "faultless").unwrap();
    }
}

#[test]
fn what_a_gpu_would_not_start_is_said() {
    let faultless = |arguments: usize| {
        (0..arguments)
            .fold(Launch::new("faults", "faultless", 1, THREADS as u32), |launch, _| launch.arg(0u64))
    };
    let sized = |grid, block| {
        let mut launch = faultless(2);
        (launch.grid, launch.block) = (grid, block);
        launch
    };
    let cases = [
        (Launch::new("elementwise", "faultless", 1, 64), "no kernel of this name in elementwise"),
        (Launch::new("faults", "add_x1", 1, 64), "no kernel of this name in faults"),
        (faultless(1), "1 arguments, it takes 2"),
        (faultless(3), "3 arguments, it takes 2"),
        (sized([1, 65_536, 1], [64, 1]), "more than 65535 rows"),
        (sized([1, 1, 65_536], [64, 1]), "more than 65535 rows"),
        (sized([1 << 31, 1, 1], [64, 1]), "more than 2147483647 blocks"),
        (sized([1, 0, 1], [64, 1]), "without blocks"),
        (sized([1, 1, 1], [64, 17]), "more than 1024 threads"),
        (sized([1, 1, 1], [64, 0]), "without threads"),
        (faultless(2).shared(232_449), "more than 232448 bytes of shared memory"),
    ];
    for host in hosts() {
        for (launch, words) in &cases {
            // SAFETY: it does not start
            let why = unsafe { launch.clone().on(&host) }.expect_err(words).to_string();
            assert!(why.contains(words), "{why}");
        }
    }
}
