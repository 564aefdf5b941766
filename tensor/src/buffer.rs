//! Memory for activations and gradients, handed out again instead of freed.
//!
//! A training step makes the same few hundred buffers every time. Asking the operating system for each of them costs
//! a page fault and a zeroing per 4 KiB, so a dropped buffer goes to a free list and the next one of its size class
//! takes it from there. Kernels overwrite their outputs, so what a recycled buffer held before does not matter; with
//! debug assertions it is filled with NaN, and a kernel that forgets a number is found by every test.
//!
//! The pool never holds more than was in use at one time: before new memory is asked for beyond the largest amount
//! ever in use, free buffers of other sizes are given back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Below this the system allocator is fast enough.
const SMALLEST_POOLED: usize = 1 << 12;

/// `f32` memory that returns to the pool when dropped.
#[derive(Debug)]
pub struct Buffer {
    /// As long as its size class; the tail beyond `len` is unused.
    data: Vec<f32>,
    len: usize,
}

impl Buffer {
    /// `len` numbers that must all be overwritten before they are read.
    pub fn uninit(len: usize) -> Buffer {
        let mut buffer = Buffer { data: take(len), len };
        if cfg!(debug_assertions) {
            buffer.as_mut_slice().fill(f32::NAN);
        }
        buffer
    }

    /// The numbers.
    pub fn as_slice(&self) -> &[f32] {
        &self.data[..self.len]
    }

    /// The numbers, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data[..self.len]
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(data: Vec<f32>) -> Buffer {
        let mut pool = lock();
        pool.live += data.len();
        pool.peak = pool.peak.max(pool.live);
        Buffer { len: data.len(), data }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        let mut pool = lock();
        pool.live -= data.len();
        if data.len() >= SMALLEST_POOLED && data.len() == class(data.len()) {
            pool.free_total += data.len();
            pool.free.entry(data.len()).or_default().push(data);
        }
    }
}

/// How much memory buffers take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// In use now.
    pub live: usize,
    /// Waiting in the pool.
    pub free: usize,
    /// The most that was ever in use.
    pub peak: usize,
}

/// How much memory buffers take now.
pub fn usage() -> Usage {
    let pool = lock();
    Usage { live: pool.live * 4, free: pool.free_total * 4, peak: pool.peak * 4 }
}

#[derive(Default)]
struct Pool {
    free: BTreeMap<usize, Vec<Vec<f32>>>,
    free_total: usize,
    live: usize,
    peak: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: BTreeMap::new(), free_total: 0, live: 0, peak: 0 });

fn lock() -> MutexGuard<'static, Pool> {
    // the pool is consistent between any two statements that can panic
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The size class of `len`: rounded up to an eighth of its power of two, so at most 12.5 % is unused.
fn class(len: usize) -> usize {
    if len < SMALLEST_POOLED {
        return len;
    }
    let step = len.next_power_of_two() / 16;
    len.div_ceil(step) * step
}

fn take(len: usize) -> Vec<f32> {
    let class = class(len);
    let mut pool = lock();
    pool.live += class;
    pool.peak = pool.peak.max(pool.live);
    if let Some(data) = pool.free.get_mut(&class).and_then(Vec::pop) {
        pool.free_total -= class;
        return data;
    }
    pool.shrink();
    drop(pool);
    vec![0.0; class]
}

impl Pool {
    /// Gives free buffers back, the largest first, until live and free together are no more than the peak.
    fn shrink(&mut self) {
        while self.live + self.free_total > self.peak {
            let Some((&class, list)) = self.free.iter_mut().next_back() else { return };
            match list.pop() {
                Some(_) => self.free_total -= class,
                None => drop(self.free.remove(&class)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_little_and_are_stable() {
        for len in [1, 4095, 4096, 4097, 5000, 100_000, 1 << 20, (1 << 20) + 1] {
            let c = class(len);
            assert!(c >= len && c as f64 <= len as f64 * 1.126, "{len} -> {c}");
            assert_eq!(class(c), c);
        }
    }

    #[test]
    fn a_dropped_buffer_is_taken_again() {
        let odd = 1_234_567;
        let first = Buffer::uninit(odd);
        let address = first.as_slice().as_ptr();
        drop(first);
        assert_eq!(Buffer::uninit(odd).as_slice().as_ptr(), address);
    }
}
