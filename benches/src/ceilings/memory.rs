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

/// Bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth {
    /// Of reading alone.
    pub read: f64,
    /// Of copying, bytes read and bytes written both counted.
    pub copy: f64,
}

impl Bandwidth {
    /// How long it takes to read and write so many bytes at best: each byte written goes with one read, as in a copy,
    /// and the others are only read.
    pub fn seconds(self, read: usize, written: usize) -> f64 {
        2.0 * written as f64 / self.copy + read.saturating_sub(written) as f64 / self.read
    }
}

/// Memory of each thread, to read through or to copy from one half to the other.
pub struct Streams {
    threads: Threads,
    parts: Vec<Mutex<[Vec<f32>; 2]>>,
}

impl Streams {
    /// `bytes` in all (no more than no cache holds), each thread's share touched by that thread.
    pub fn new(bytes: usize, threads: Threads) -> Streams {
        let half = (bytes.min(FAR) / 8 / threads.count()).max(64);
        let parts: Vec<_> = (0..threads.count()).map(|_| Mutex::default()).collect();
        let streams = Streams { threads, parts };
        let random = data::normals(9, 1 << 12, 1.0);
        threads.run(|i| {
            let make = || random.iter().copied().cycle().take(half).collect();
            *streams.part(i) = [make(), make()];
        });
        streams
    }

    fn part(&self, thread: usize) -> MutexGuard<'_, [Vec<f32>; 2]> {
        // the one who locks a part is the thread it belongs to
        self.parts[thread].lock().expect("no thread panics while it streams")
    }

    fn bytes(&self) -> usize {
        (0..self.parts.len()).map(|i| 8 * self.part(i)[0].len()).sum()
    }

    /// Both bandwidths, measured once.
    pub fn measure(&self) -> Bandwidth {
        let isa = Isa::best();
        let read = self.rate(|halves| {
            black_box(halves.each_ref().map(|half| isa.run(Read(half))));
        });
        // the copy of the C library, which writes around the caches where that pays
        let copy = self.rate(|[from, to]| {
            to.copy_from_slice(from);
            black_box(to);
        });
        Bandwidth { read, copy }
    }

    /// Bytes per second when `pass` goes through all bytes of a thread.
    fn rate(&self, pass: impl Fn(&mut [Vec<f32>; 2]) + Sync) -> f64 {
        let passes = MOVED.div_ceil(self.bytes());
        let time = seconds(|| {
            self.threads.run(|i| {
                let mut part = self.part(i);
                (0..passes).for_each(|_| pass(&mut part));
            });
        });
        (passes * self.bytes()) as f64 / time
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let bandwidth = Bandwidth { read: 10.0, copy: 5.0 };
        assert_eq!(bandwidth.seconds(20, 0), 2.0);
        assert_eq!(bandwidth.seconds(10, 10), 4.0);
        assert_eq!(bandwidth.seconds(30, 10), 6.0);
        assert_eq!(bandwidth.seconds(0, 10), 4.0);
    }
}
