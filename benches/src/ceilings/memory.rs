//! Bytes per second, for as many bytes as one likes.

use std::hint::black_box;
use std::sync::{Mutex, MutexGuard};

use kernels::Isa;
use kernels::simd::{Simd, SimdOp};

use super::Threads;
use crate::clock::seconds;
use crate::data;

/// Bytes that one measurement moves at least, so that it takes milliseconds.
const MOVED: usize = 64 << 20;
/// More bytes than this are as far away as bytes can be: no cache holds them.
const FAR: usize = 256 << 20;

/// Bytes per second, all bytes that are read or written counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth {
    /// Of reading alone.
    pub read: f64,
    /// Of one array read and another written: the faster of a copy by the C library, which writes around the caches where
    /// that pays, and of plain loads and stores.
    pub copy: f64,
    /// Of two arrays read and a third written, by plain loads and stores.
    pub sum: f64,
}

impl Bandwidth {
    /// How long it takes to read and write so many bytes at best: each byte written goes with one read, as in a copy, or
    /// with two where there are as many, as in a sum, whichever is faster; the others are only read.
    pub fn seconds(self, read: usize, written: usize) -> f64 {
        let with_sums = |sums: usize| {
            let copies = written - sums;
            let rest = read.saturating_sub(2 * sums + copies);
            // no sums take no time, also where they were not measured
            let of_sums = if sums == 0 { 0.0 } else { 3.0 * sums as f64 / self.sum };
            of_sums + 2.0 * copies as f64 / self.copy + rest as f64 / self.read
        };
        with_sums(0).min(with_sums(read.saturating_sub(written).min(written)))
    }

    /// The larger of both, each by itself.
    pub fn max(self, other: Bandwidth) -> Bandwidth {
        Bandwidth {
            read: self.read.max(other.read),
            copy: self.copy.max(other.copy),
            sum: self.sum.max(other.sum),
        }
    }
}

/// Numbers of each thread, to read through, to copy from one half to the other, or to add two thirds into the last.
pub struct Streams {
    threads: Threads,
    parts: Vec<Mutex<Vec<f32>>>,
}

/// Numbers that halves and thirds of a thread's memory are multiples of, so that they begin at a cache line.
const STEP: usize = 6 * LINE;
/// Numbers of two cache lines: a whole vector of any instruction set, several times.
const LINE: usize = 32;

impl Streams {
    /// `bytes` in all (no more than no cache holds), each thread's share touched by that thread.
    pub fn new(bytes: usize, threads: Threads) -> Streams {
        let numbers = (bytes.min(FAR) / 4 / threads.count()).next_multiple_of(STEP).max(STEP);
        let parts: Vec<_> = (0..threads.count()).map(|_| Mutex::default()).collect();
        let streams = Streams { threads, parts };
        let random = data::normals(9, 1 << 12, 1.0);
        threads.run(|i| {
            *streams.part(i) = random.iter().copied().cycle().take(numbers + LINE).collect();
        });
        streams
    }

    fn part(&self, thread: usize) -> MutexGuard<'_, Vec<f32>> {
        // the one who locks a part is the thread it belongs to
        self.parts[thread].lock().expect("no thread panics while it streams")
    }

    /// How many bytes a pass goes through.
    pub fn bytes(&self) -> usize {
        (0..self.parts.len()).map(|i| 4 * (self.part(i).len() - LINE)).sum()
    }

    /// Every bandwidth, measured once.
    pub fn measure(&self) -> Bandwidth {
        let copy = self.rate(copy_by_library).max(self.rate(copy));
        Bandwidth { read: self.rate(read), copy, sum: self.rate(sum) }
    }

    /// Reads all bytes.
    pub fn read_once(&self) {
        self.passes(1, read);
    }

    /// Copies one half to the other by plain loads and stores.
    pub fn copy_once(&self) {
        self.passes(1, copy);
    }

    /// Adds two thirds into the last.
    pub fn sum_once(&self) {
        self.passes(1, sum);
    }

    /// Bytes per second when `pass` goes through all bytes of a thread.
    fn rate(&self, pass: fn(&mut [f32])) -> f64 {
        let n = MOVED.div_ceil(self.bytes());
        (n * self.bytes()) as f64 / seconds(|| self.passes(n, pass))
    }

    fn passes(&self, n: usize, pass: fn(&mut [f32])) {
        self.threads.run(|i| {
            let mut part = self.part(i);
            let numbers = part.len() - LINE;
            let first = part.as_ptr().align_offset(64).min(LINE);
            for _ in 0..n {
                pass(&mut part[first..first + numbers]);
                black_box(&mut part[..]);
            }
        });
    }
}

fn read(x: &mut [f32]) {
    black_box(Isa::best().run(Read(x)));
}

fn copy_by_library(x: &mut [f32]) {
    let (from, to) = x.split_at_mut(x.len() / 2);
    to.copy_from_slice(from);
}

fn copy(x: &mut [f32]) {
    let (from, to) = x.split_at_mut(x.len() / 2);
    Isa::best().run(Scale(from, to));
}

fn sum(x: &mut [f32]) {
    let (a, rest) = x.split_at_mut(x.len() / 3);
    let (b, to) = rest.split_at_mut(a.len());
    Isa::best().run(Sum(a, b, to));
}

struct Read<'a>(&'a [f32]);

impl SimdOp for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> f32 {
        // several sums, so that the additions do not wait for each other
        let mut sums = [s.splat(0.0); 8];
        for block in self.0.chunks_exact(8 * S::LANES) {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = s.add(*sum, s.load(&block[i * S::LANES..]));
            }
        }
        sums.into_iter().map(|sum| s.sum(sum)).sum()
    }
}

/// Times a number that the compiler does not know: it would make a copy by the C library of plain loads and stores.
struct Scale<'a>(&'a [f32], &'a mut [f32]);

impl SimdOp for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let factor = s.splat(black_box(1.0));
        for (from, to) in self.0.chunks_exact(LINE).zip(self.1.chunks_exact_mut(LINE)) {
            for i in (0..LINE).step_by(S::LANES) {
                s.store(s.mul(s.load(&from[i..]), factor), &mut to[i..]);
            }
        }
    }
}

/// Half of it, so that numbers stay what they are however often they are summed.
struct Sum<'a>(&'a [f32], &'a [f32], &'a mut [f32]);

impl SimdOp for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let half = s.splat(black_box(0.5));
        let Sum(a, b, to) = self;
        for ((a, b), to) in a.chunks_exact(LINE).zip(b.chunks_exact(LINE)).zip(to.chunks_exact_mut(LINE)) {
            for i in (0..LINE).step_by(S::LANES) {
                let sum = s.add(s.load(&a[i..]), s.load(&b[i..]));
                s.store(s.mul(sum, half), &mut to[i..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_copied_and_summed() {
        let [a, b] = [1, 2].map(|seed| data::normals(seed, 6 * LINE, 1.0));
        for isa in Isa::available() {
            let (mut copy, mut sum) = (vec![0.0; a.len()], vec![0.0; a.len()]);
            isa.run(Scale(&a, &mut copy));
            isa.run(Sum(&a, &b, &mut sum));
            assert_eq!(copy, a, "{}", isa.name());
            assert!(
                sum.iter().zip(a.iter().zip(&b)).all(|(s, (a, b))| *s == 0.5 * (a + b)),
                "{}",
                isa.name()
            );
        }
    }

    #[test]
    fn all_threads_have_their_bytes() {
        for bytes in [1, 1000, 5 << 20] {
            let streams = Streams::new(bytes, Threads::All);
            let step = 4 * STEP * Threads::All.count();
            assert!((bytes..bytes + step).contains(&streams.bytes()), "{bytes}: {}", streams.bytes());
        }
    }

    #[test]
    fn every_part_is_read() {
        let x = data::normals(1, 1024, 1.0);
        let expected: f64 = data::wide(&x).iter().sum();
        for isa in Isa::available() {
            let sum = f64::from(isa.run(Read(&x)));
            assert!((sum - expected).abs() < 1e-3, "{}: {sum} {expected}", isa.name());
        }
    }

    #[test]
    fn a_byte_written_costs_what_a_copy_of_it_costs() {
        let bandwidth = Bandwidth { read: 10.0, copy: 5.0, sum: 0.0 };
        assert_eq!(bandwidth.seconds(20, 0), 2.0);
        assert_eq!(bandwidth.seconds(10, 10), 4.0);
        assert_eq!(bandwidth.seconds(30, 10), 6.0);
        assert_eq!(bandwidth.seconds(0, 10), 4.0);
    }

    #[test]
    fn sums_are_a_limit_where_they_are_faster() {
        let bandwidth = Bandwidth { read: 10.0, copy: 5.0, sum: 15.0 };
        assert_eq!(bandwidth.seconds(20, 10), 2.0);
        // half of the bytes written can go with two that are read
        assert_eq!(bandwidth.seconds(15, 10), 3.0);
        assert_eq!(bandwidth.seconds(30, 10), 3.0);
        assert_eq!(bandwidth.seconds(10, 10), 4.0);
        assert_eq!(bandwidth.max(Bandwidth { read: 20.0, copy: 1.0, sum: 1.0 }).read, 20.0);
    }
}
