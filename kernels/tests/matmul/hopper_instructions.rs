//! The shim's instructions of Hopper against the tables of PTX, written down once more: from a place in memory to what lies
//! there, where the shim goes from a number to its place.

use half::bf16;
use kernels::cuda::{Launch, TensorMap};
use kernels::testing::Rng;
use prompt_tuning_kernels as kernels;

use crate::host::{Host, hosts, read, write};

const FILE: &str = "hopper_instructions";
const BOX_BYTES: u32 = 64 * 128;

/// Shared memory of the boxes that the kernels have, and a barrier.
fn launch(name: &'static str, threads: u32) -> Launch {
    Launch::new(FILE, name, 1, threads).shared(2 * BOX_BYTES + 8)
}

fn run(host: &Host, launch: Launch) -> Result<(), String> {
    // SAFETY: the callers give what the kernels take, with the sizes that they assume
    unsafe { launch.on(host) }.map_err(|why| why.to_string())
}

/// The numbers that lie one after another in a box: row and column of each, from the box's corner. PTX ISA, "Swizzling modes":
/// of eight rows of 128 bytes, the groups of 16 bytes of row r are where those of row 0 are, exchanged by r.
fn numbers_of_box(bytes_of_one: usize) -> impl Iterator<Item = (usize, usize)> {
    let of_group = 16 / bytes_of_one;
    let groups = (0..64).flat_map(|row| (0..8).map(move |place| (row, place ^ (row % 8))));
    groups.flat_map(move |(row, group)| (0..of_group).map(move |j| (row, group * of_group + j)))
}

// ---- boxes

const ROWS: usize = 70;
const WIDTH: usize = 44;

fn matrix() -> Vec<f32> {
    (1..=ROWS * WIDTH).map(|i| i as f32).collect()
}

fn copy(host: &Host, name: &'static str, x: &[f32], [row, column]: [usize; 2]) -> Result<Vec<u32>, String> {
    let mut out = vec![u32::MAX; 64 * 32];
    let map = TensorMap::new(read(x), WIDTH, 64).expect("a matrix on 16 bytes");
    run(host, launch(name, 64).map(map).arg(write(&mut out)).size(row).size(column)).map(|()| out)
}

fn boxed(x: &[f32], [row, column]: [usize; 2]) -> Vec<u32> {
    let at = |row: usize, column: usize| {
        if row < ROWS && column < WIDTH { x[row * WIDTH + column].to_bits() } else { 0 }
    };
    numbers_of_box(4).map(|(i, j)| at(row + i, column + j)).collect()
}

#[test]
fn boxes_lie_as_ptx_says_and_are_zero_outside() {
    let x = matrix();
    for host in hosts() {
        for corner in [[0, 0], [3, 5], [32, 12], [69, 43], [70, 0], [0, 64]] {
            assert_eq!(
                copy(&host, "box_faultless", &x, corner).unwrap(),
                boxed(&x, corner),
                "{host:?} {corner:?}"
            );
        }
    }
}

#[test]
fn what_is_wrong_with_a_copy_is_found() {
    let (x, corner) = (matrix(), [3, 5]);
    let is_wrong = |host: &Host| copy(host, "box_without_waiting", &x, corner).unwrap() != boxed(&x, corner);
    assert!(hosts().is_empty() || hosts().iter().any(is_wrong));
    let faults = [
        ("box_before_showing", "show_barriers is missing"),
        ("box_of_more_bytes", "deadlock"),
        ("box_between", "not on 1024 bytes"),
        ("box_arriving_twice", "more arrivals than the barrier has"),
        ("box_without_barrier", "nobody has made this barrier"),
    ];
    for host in hosts() {
        for (name, words) in faults {
            let why = copy(&host, name, &x, corner).map(drop).expect_err(name);
            assert!(why.contains(words), "{host:?} {name}: {why}");
        }
        // and it can be used afterwards
        copy(&host, "box_faultless", &x, corner).unwrap();
    }
}

// ---- products

/// What is in bf16 already.
fn halves(seed: u64, n: usize) -> Vec<bf16> {
    Rng(seed).normals(n).into_iter().map(bf16::from_f32).collect()
}

/// D `[64, 128]` += A `[64, 16]` B `[16, 128]`
struct Factors {
    a: Vec<bf16>,
    b: Vec<bf16>,
    d: Vec<f32>,
}

impl Factors {
    fn new() -> Factors {
        Factors { a: halves(1, 64 * 16), b: halves(2, 16 * 128), d: Rng(3).normals(64 * 128) }
    }

    /// PTX ISA, "Matrix fragments for wgmma.mma_async.m64nNk16": registers of A of thread after thread.
    fn registers_of_a(&self) -> Vec<u32> {
        let pair = |row: usize, column: usize| {
            let [low, high] = [0, 1].map(|j| u32::from(self.a[row * 16 + column + j].to_bits()));
            low | high << 16
        };
        let of_thread = |i: usize| {
            let (row, column) = (i / 32 * 16 + i % 32 / 4, i % 4 * 2);
            [pair(row, column), pair(row + 8, column), pair(row, column + 8), pair(row + 8, column + 8)]
        };
        (0..128).flat_map(of_thread).collect()
    }

    /// The same of D: places in the matrix.
    fn places_of_d() -> impl Iterator<Item = (usize, usize)> {
        let of_thread = |i: usize| {
            let (row, column) = (i / 32 * 16 + i % 32 / 4, i % 4 * 2);
            (0..64).map(move |j| (row + j / 2 % 2 * 8, column + j / 4 * 8 + j % 2))
        };
        (0..128).flat_map(of_thread)
    }

    /// Two boxes: B among NaNs, from row `first` of the boxes on (by rows), or from column `first` on.
    fn boxes(&self, by_rows: bool, first: usize) -> Vec<bf16> {
        let both = (0..2).flat_map(|which| numbers_of_box(2).map(move |(row, column)| (which, row, column)));
        let number = |(which, row, column): (usize, usize, usize)| {
            let (k, n) = if by_rows { (row, 64 * which + column) } else { (column, 64 * which + row) };
            let k = k.checked_sub(first).filter(|&k| k < 16);
            k.map_or(bf16::NAN, |k| self.b[k * 128 + n])
        };
        both.map(number).collect()
    }

    /// What a kernel makes of D, thread after thread.
    fn run(&self, host: &Host, name: &'static str, by_rows: bool, first: usize) -> Result<Vec<f32>, String> {
        let mut d: Vec<f32> =
            Factors::places_of_d().map(|(row, column)| self.d[row * 128 + column]).collect();
        let (a, boxes) = (self.registers_of_a(), self.boxes(by_rows, first));
        let begin = if by_rows { first * 64 } else { first };
        let launch = launch(name, 128).arg(read(&a)).arg(read(&boxes)).size(begin);
        run(host, launch.arg(write(&mut d))).map(|()| d)
    }

    fn is_right(&self, d: &[f32]) -> bool {
        Factors::places_of_d().zip(d).all(|((row, column), d)| {
            let products = (0..16).map(|k| self.a[row * 16 + k].to_f64() * self.b[k * 128 + column].to_f64());
            let expected = f64::from(self.d[row * 128 + column]) + products.sum::<f64>();
            (f64::from(*d) - expected).abs() < 1e-5
        })
    }
}

#[test]
fn groups_multiply_what_ptx_says() {
    let factors = Factors::new();
    for host in hosts() {
        for first in [0, 16, 32, 48] {
            for (name, by_rows) in [("group_by_rows", true), ("group_by_columns", false)] {
                let d = factors.run(&host, name, by_rows, first).unwrap();
                assert!(factors.is_right(&d), "{host:?} {name} from {first}");
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_product_is_found() {
    let factors = Factors::new();
    for name in ["group_without_waiting", "group_overwritten"] {
        let is_wrong = |host: &Host| !factors.is_right(&factors.run(host, name, true, 0).unwrap());
        assert!(hosts().is_empty() || hosts().iter().any(is_wrong), "{name}");
    }
    let faults = [
        ("group_without_begin", "begin_products is missing"),
        ("group_of_different", "warps of a group name different descriptors"),
        ("group_of_three", "not that of all warps of a group"),
    ];
    for host in hosts() {
        for (name, words) in faults {
            let why = factors.run(&host, name, true, 0).map(drop).expect_err(name);
            assert!(why.contains(words), "{host:?} {name}: {why}");
        }
    }
    // where products are not done at once, those that have no end are not waited for
    let says = |host: &Host| factors.run(host, "group_without_end", true, 0).is_err();
    assert!(hosts().is_empty() || hosts().iter().any(says));
}

#[test]
fn registers_are_those_that_others_leave() {
    for host in hosts() {
        run(&host, launch("registers_exchanged", 384)).unwrap();
        for (name, words) in
            [("registers_of_nobody", "there are 65536"), ("registers_of_a_warp", "not by all warps")]
        {
            let why = run(&host, launch(name, 384)).expect_err(name);
            assert!(why.contains(words), "{host:?} {name}: {why}");
        }
    }
}
