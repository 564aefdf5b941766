//! The shim's instructions of tensor cores against the tables of PTX, written down once more.

use half::bf16;
use kernels::cuda::{Arg, Launch};
use kernels::testing::Rng;
use prompt_tuning_kernels as kernels;

use crate::host::{Host, hosts, read, write};

/// Two neighbours as a register holds them.
fn pair(low: bf16, high: bf16) -> u32 {
    u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16
}

/// Runs a kernel of `instructions.cu` with so many threads.
fn launch<const N: usize>(
    host: &Host,
    name: &'static str,
    threads: u32,
    args: [Arg; N],
) -> Result<(), String> {
    let launch = Launch::new("instructions", name, 1, threads);
    // SAFETY: the callers give the slices that the kernel takes, as long as it takes them
    unsafe { args.into_iter().fold(launch, Launch::arg).on(host) }.map_err(|why| why.to_string())
}

/// What is in bf16 already.
fn halves(seed: u64, n: usize) -> Vec<bf16> {
    Rng(seed).normals(n).into_iter().map(bf16::from_f32).collect()
}

#[test]
fn lanes_hold_the_parts_of_a_product_that_ptx_says() {
    // row-major: A is [16, 16], B is [16, 8], C is [16, 8]
    let (a, b, c) = (halves(1, 256), halves(2, 128), Rng(3).normals(128));
    // lane 4g + t: PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type"
    let lanes = || (0..8).flat_map(|g| (0..4).map(move |t| (g, t)));
    let of_a = |row: usize, column: usize| pair(a[row * 16 + column], a[row * 16 + column + 1]);
    let registers_of_a: Vec<u32> = lanes()
        .flat_map(|(g, t)| [of_a(g, 2 * t), of_a(g + 8, 2 * t), of_a(g, 2 * t + 8), of_a(g + 8, 2 * t + 8)])
        .collect();
    let of_b = |row: usize, column: usize| pair(b[row * 8 + column], b[(row + 1) * 8 + column]);
    let registers_of_b: Vec<u32> = lanes().flat_map(|(g, t)| [of_b(2 * t, g), of_b(2 * t + 8, g)]).collect();
    let place = |(g, t): (usize, usize)| {
        [g * 8 + 2 * t, g * 8 + 2 * t + 1, (g + 8) * 8 + 2 * t, (g + 8) * 8 + 2 * t + 1]
    };
    let registers_of_c: Vec<f32> = lanes().flat_map(place).map(|at| c[at]).collect();
    for host in hosts() {
        let mut d = vec![f32::NAN; 128];
        let factors = [read(&registers_of_a).into(), read(&registers_of_b).into()];
        let sums = [read(&registers_of_c).into(), write(&mut d).into()];
        launch(&host, "one_product", 32, [factors[0], factors[1], sums[0], sums[1]]).unwrap();
        for (at, d) in lanes().flat_map(place).zip(d) {
            let (row, column) = (at / 8, at % 8);
            let products = (0..16).map(|k| a[row * 16 + k].to_f64() * b[k * 8 + column].to_f64());
            let expected = f64::from(c[at]) + products.sum::<f64>();
            assert!((f64::from(d) - expected).abs() < 1e-5, "{host:?} {row},{column}: {d}, not {expected}");
        }
    }
}

#[test]
fn lanes_get_the_parts_of_matrices_that_ptx_says() {
    let x: Vec<u16> = (0..256).collect();
    for host in hosts() {
        let mut out = vec![0u32; 256];
        launch(&host, "four_matrices", 32, [read(&x).into(), write(&mut out).into()]).unwrap();
        // PTX ISA, "ldmatrix": matrix i is the rows 8i .. 8i + 8
        for (lane, i) in (0..32).flat_map(|lane| (0..4).map(move |i| (lane, i))) {
            let (g, t) = (lane / 4, lane % 4);
            let at = |row: usize, column: usize| u32::from(x[(8 * i + row) * 8 + column]);
            let expected = [at(g, 2 * t) | at(g, 2 * t + 1) << 16, at(2 * t, g) | at(2 * t + 1, g) << 16];
            let actual = [out[lane * 4 + i], out[128 + lane * 4 + i]];
            assert_eq!(actual, expected, "{host:?} lane {lane} matrix {i}");
        }
    }
}

#[test]
fn pairs_are_rounded_to_the_nearest_and_ties_to_even() {
    let mut x = Rng(5).normals(52);
    // ties both ways, the largest number, one that becomes infinite, a subnormal one
    let step = 1.0 / 256.0;
    x.extend([1.0 + step, 1.0 + 3.0 * step, -1.0 - step, f32::MAX, f32::MIN, 3.389e38, 1e-40, -0.0]);
    x.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0]);
    for host in hosts() {
        let mut out = vec![0u32; 32];
        launch(&host, "rounded_pairs", 32, [read(&x).into(), write(&mut out).into()]).unwrap();
        let halves = out.iter().flat_map(|pair| [pair & 0xffff, pair >> 16]);
        for (x, half) in x.iter().zip(halves) {
            let (expected, actual) = (bf16::from_f32(*x), bf16::from_bits(half as u16));
            // a NaN has many names
            let is_same = expected.to_bits() == actual.to_bits() || expected.is_nan() && actual.is_nan();
            assert!(is_same, "{host:?} {x}: {actual}, not {expected}");
        }
    }
}

#[test]
fn powers_of_two_are_near_and_never_subnormal() {
    let mut x: Vec<f32> = Rng(6).normals(26).iter().map(|x| 20.0 * x).collect();
    x.extend([0.0, -126.5, f32::MIN, f32::NEG_INFINITY, f32::INFINITY, f32::NAN]);
    for host in hosts() {
        let mut out = vec![9.0f32; 32];
        launch(&host, "powers_of_two", 32, [read(&x).into(), write(&mut out).into()]).unwrap();
        for (&x, &y) in x.iter().zip(&out) {
            let exact = f64::from(x).exp2();
            let expected = if exact < f64::from(f32::MIN_POSITIVE) { 0.0 } else { exact };
            let is_near = (f64::from(y) - expected).abs() <= expected * 2f64.powi(-22);
            assert!(is_near || f64::from(y) == expected || y.is_nan() && x.is_nan(), "{host:?} {x}: {y}");
        }
    }
}

#[test]
fn a_condition_of_one_thread_is_known_to_the_block() {
    for host in hosts() {
        for (first, second) in [(None, Some(63)), (Some(0), None), (Some(40), Some(7)), (None, None)] {
            let mut x = vec![0u32; 128];
            first.into_iter().chain(second.map(|i| i + 64)).for_each(|i: usize| x[i] = 1);
            let mut out = vec![9u32; 128];
            launch(&host, "any_of_a_block", 64, [read(&x).into(), write(&mut out).into()]).unwrap();
            let expected = [first, second].map(|i| vec![u32::from(i.is_some()); 64]).concat();
            assert_eq!(out, expected, "{host:?} {first:?} {second:?}");
        }
    }
}

/// What two rounds of 64 groups become when each moves one place down; the last four of a round are zeros.
fn moved(x: &[u16]) -> Vec<u16> {
    let group = |round: usize, i: usize| {
        let from = (round * 64 + i) * 8;
        if i < 60 { x[from..from + 8].to_vec() } else { vec![0; 8] }
    };
    (0..2).flat_map(|round| (0..64).flat_map(move |i| group(round, (i + 1) % 64))).collect()
}

#[test]
fn copies_that_nobody_waits_for_give_wrong_numbers() {
    let x: Vec<u16> = (1..=1024).collect();
    let is_wrong = |host: &Host, name| {
        let mut y = vec![0; x.len()];
        launch(host, name, 64, [read(&x).into(), write(&mut y).into()]).unwrap();
        y != moved(&x)
    };
    let wrong = |name| hosts().iter().filter(|host| is_wrong(host, name)).count();
    assert_eq!(wrong("copied_faultless"), 0);
    for name in ["copied_without_waiting", "copied_over_others"] {
        assert!(hosts().is_empty() || wrong(name) > 0, "{name}");
    }
}

#[test]
fn addresses_that_a_gpu_faults_at_are_said() {
    let x = [0u16; 64];
    let faults = [
        ("copied_to_memory", "outside of shared memory"),
        ("copied_from_between", "is not on 16 bytes"),
        ("rows_between", "not on 16 bytes of shared memory"),
    ];
    for host in hosts() {
        for (name, words) in faults {
            let mut y = [0u16; 64];
            // on 16 bytes, whatever the stack is
            let [x, y] =
                [read(&x).into(), write(&mut y).into()].map(|Arg(address)| Arg(address.next_multiple_of(16)));
            let why = launch(&host, name, 32, [x, y]).expect_err(name);
            assert!(why.contains(words), "{name}: {why}");
        }
    }
}
