//! What talks to NVIDIA's driver, with a stand-in for it that computes on the CPU (`shim/driver.cpp`).
//!
//! One test, because a broken context stays broken as long as the process lives.
#![cfg(feature = "cuda")]

#[path = "shim/compile.rs"]
mod compile;

use half::bf16;
use libloading::Library;
use prompt_tuning_kernels::{
    cuda::{Buffer, Driver, Launch, Launcher, Slice},
    elementwise,
    matmul::{Layout, cuda as products},
};

#[test]
fn memory_launches_and_errors() {
    let Some(folder) = compile::library("libcuda.so.1", &["shim.cpp", "driver.cpp"]) else { return };
    // SAFETY: its initialisers only note the names of the kernels
    let stand_in = unsafe { Library::new(folder.path().join("libcuda.so.1")) }.expect("a library");

    // SAFETY: the signature is that of driver.cpp
    let kept = *unsafe { stand_in.get::<unsafe extern "C" fn() -> u64>("shim_kept") }.expect("a function");
    // SAFETY: it only reads a number
    let kept = || unsafe { kept() };

    let driver = Driver::get().expect("the stand-in has a GPU");
    assert!(std::ptr::eq(driver, Driver::get().expect("the same")));
    assert_eq!(driver.gpu().name, "a CPU in place of a GPU");

    // a computation, there and back
    let x: Vec<f32> = (0..1001).map(|i| i as f32).collect();
    let (a, b) = (driver.upload(&x).unwrap(), driver.upload(&vec![0.5f32; 1001]).unwrap());
    let mut sum = driver.allocate::<f32>(1001).unwrap();
    let mut y = vec![0.0f32; 1001];
    sum.copy_to(&mut y).unwrap();
    assert!(y.iter().all(|y| y.is_nan()), "nobody has written it");
    let milliseconds =
        driver.timed(|| elementwise::cuda::add(driver, a.slice(), b.slice(), sum.slice_mut())).unwrap();
    assert!(milliseconds > 0.0);
    sum.copy_to(&mut y).unwrap();
    assert!(y.iter().zip(&x).all(|(y, x)| *y == x + 0.5));

    // more than what copies pass through at one time, in one piece and in many, and each may change at once
    let many: Vec<u32> = (0..7_000_001).collect();
    let large = driver.upload(&many).unwrap();
    let mut one = [0; 1000];
    let small: Vec<Buffer<u32>> = (0..6_000)
        .map(|i| {
            one.fill(i);
            driver.upload(&one).unwrap()
        })
        .collect();
    let mut home = vec![0; many.len()];
    large.copy_to(&mut home).unwrap();
    assert_eq!(home, many);
    for (i, small) in small.iter().enumerate() {
        small.copy_to(&mut one).unwrap();
        assert!(one.iter().all(|&x| x == i as u32), "{i}");
    }
    drop((large, small));

    // a product whose factors come in boxes, with more shared memory than a kernel has unasked
    assert!(driver.is_hopper());
    let (rows, w) =
        (driver.upload(&x[..960]).unwrap(), driver.upload(&[bf16::from_f32(0.5); 64 * 24]).unwrap());
    let mut product = driver.allocate::<f32>(15 * 24).unwrap();
    let (elements, rung) = (products::Elements::Bf16(w.slice()), products::Rung::TensorCores);
    let weight = products::Weight { elements, layout: Layout::InOut, n_in: 64, n_out: 24, rung };
    let epilogue = products::Epilogue::default();
    products::forward(driver, rows.slice(), weight, epilogue, product.slice_mut()).unwrap();
    let mut c = vec![0.0f32; 15 * 24];
    product.copy_to(&mut c).unwrap();
    let sum_of_row = |x: &[f32]| x.iter().map(|&x| bf16::from_f32(x).to_f32()).sum::<f32>();
    let expected = x[..960].chunks(64).flat_map(|row| [sum_of_row(row) / 2.0; 24]);
    assert!(c.iter().copied().eq(expected), "{c:?}");
    drop((rows, w, product));

    // a copy on the device
    let mut copy = driver.allocate::<f32>(1001).unwrap();
    copy.copy_from(&sum).unwrap();
    let mut again = vec![0.0f32; 1001];
    copy.copy_to(&mut again).unwrap();
    assert_eq!(again, y);
    drop(copy);

    // memory comes back, and what is too much is said
    let (before, all) = driver.memory().unwrap();
    let large = driver.allocate::<f32>(50_000_000).unwrap();
    assert_eq!(driver.memory().unwrap(), (before - 200_000_000, all));
    assert_eq!(kept(), 0);
    assert!(std::ptr::eq(large.driver(), driver));
    drop(large);
    assert_eq!(driver.memory().unwrap(), (before, all));
    assert!(kept() >= 200_000_000, "what is freed is kept for the next");
    drop(driver.allocate::<f32>(250_000_000).unwrap());
    let why = driver.allocate::<f32>(500_000_000).unwrap_err();
    assert!(why.is_out_of_memory());
    assert_eq!(why.to_string(), "2000.0 MB of GPU memory: 1073.7 MB of 1073.7 MB are free");
    assert!(driver.upload::<u32>(&[]).unwrap().is_empty());

    // kernels that do not exist are no reason to stop
    let launch = |file, name| {
        // SAFETY: there are no such kernels
        unsafe { Launch::new(file, name, 1, 64).on(driver) }.unwrap_err().to_string()
    };
    assert!(launch("no_file", "add_x1").contains("no image"));
    let why = launch("elementwise", "subtract");
    assert!(why.contains("subtract: CUDA_ERROR_NOT_FOUND (500)"), "{why}");
    // nor are sizes that no kernel takes
    let add = || Launch::new("elementwise", "add_x1", 1, 64).arg(a.slice());
    let too_large = [
        (add().size(1 << 32), "4294967296 as a size: at most 4294967295"),
        (add().rows(65_536), "65536 rows of blocks: at most 65535"),
        (Launch::new("elementwise", "add_x1", 1 << 31, 64), "2147483648 blocks in a row: at most 2147483647"),
    ];
    for (launch, words) in too_large {
        // SAFETY: it does not start
        let why = unsafe { launch.on(driver) }.unwrap_err();
        assert!(why.to_string().contains(words) && !why.is_out_of_memory(), "{why}");
    }
    sum.copy_to(&mut y).unwrap();

    // after a kernel that fails, everything returns the first error
    let faulty = Launch::new("elementwise", "fault_two_barriers", 1, 64);
    // SAFETY: the two slices that it takes
    unsafe { faulty.arg(a.slice()).arg(sum.slice_mut()).on(driver) }.expect("it is launched");
    let why = driver.wait().unwrap_err();
    assert!(why.to_string().contains("CUDA_ERROR_LAUNCH_FAILED (719)"), "{why}");
    assert_eq!(sum.copy_to(&mut y).unwrap_err(), why);
    assert_eq!(driver.allocate::<f32>(1).unwrap_err(), why);
    let nothing: Slice<f32> = b.slice();
    assert_eq!(elementwise::cuda::add(driver, nothing, a.slice(), sum.slice_mut()).unwrap_err(), why);
    let launch = Launch::new("no_file", "add_x1", 1, 64);
    // SAFETY: there is no such kernel
    assert_eq!(unsafe { launch.on(driver) }.unwrap_err(), why);
    assert_eq!(driver.memory().unwrap_err(), why);
    drop((a, b, sum));
    // whoever has the driver open keeps it
    std::mem::forget(stand_in);
}
