//! Memory for activations and gradients, handed out again instead of freed.
//!
//! A training step makes the same few hundred buffers every time. Asking the operating system for each of them costs
//! a page fault and a zeroing per 4 KiB, so a dropped buffer goes to a free list and the next one that fits into it
//! takes it from there. Kernels overwrite their outputs, so what a recycled buffer held before does not matter; with
//! debug assertions it is filled with NaN, and a kernel that forgets a number is found by every test.
//!
//! Batches differ in their number of tokens. A buffer may therefore serve a request of as little as half its size: once
//! the largest batch was seen, one of about its size asks for nothing, or for little where what is free does not fit it. A
//! much smaller one, such as the last of an epoch, has to ask for buffers of its own. The pool never holds more than was in use at one time: before
//! new memory is asked for beyond the largest amount ever in use, free buffers that do not fit are given back.

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
            pool.keep(data);
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
    /// Ascending by length.
    free: Vec<Vec<f32>>,
    free_total: usize,
    live: usize,
    peak: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), free_total: 0, live: 0, peak: 0 });

fn lock() -> MutexGuard<'static, Pool> {
    // the pool is consistent between any two statements that can panic
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The size class of `len`: rounded up to an eighth of its power of two, so at most 12.5 % is unused (and, never having
/// been touched, takes no memory). A batch that is a little larger than the largest before finds its buffers too.
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
    let recycled = (class >= SMALLEST_POOLED).then(|| pool.find(class)).flatten();
    pool.live += recycled.as_ref().map_or(class, Vec::len);
    pool.peak = pool.peak.max(pool.live);
    if let Some(data) = recycled {
        return data;
    }
    pool.shrink();
    drop(pool);
    vec![0.0; class]
}

impl Pool {
    fn keep(&mut self, data: Vec<f32>) {
        let at = self.free.partition_point(|free| free.len() <= data.len());
        self.free_total += data.len();
        self.free.insert(at, data);
    }

    /// The smallest free buffer of at least `class` numbers, if it is not far too large.
    fn find(&mut self, class: usize) -> Option<Vec<f32>> {
        let at = self.free.partition_point(|free| free.len() < class);
        self.free.get(at).filter(|free| free.len() <= 2 * class)?;
        let data = self.free.remove(at);
        self.free_total -= data.len();
        Some(data)
    }

    /// Gives free buffers back, the largest first, until live and free together are no more than the peak.
    fn shrink(&mut self) {
        while self.live + self.free_total > self.peak {
            let Some(data) = self.free.pop() else { return };
            self.free_total -= data.len();
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
        let smaller = Buffer::uninit(odd / 4 * 3);
        assert_eq!((smaller.as_slice().as_ptr(), smaller.as_slice().len()), (address, odd / 4 * 3));
        drop(smaller);
        assert_ne!(Buffer::uninit(odd / 4).as_slice().as_ptr(), address, "far too large for this");
    }
}
