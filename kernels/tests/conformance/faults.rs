//! The shim notices what is wrong with a kernel: the proof that tests of the GPU's kernels can fail.

use prompt_tuning_kernels::cuda::Launch;

use crate::device::cuda::{Host, hosts, read, write};

const THREADS: usize = 64;

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
