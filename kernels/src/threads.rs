//! Many kernels one after the other.
//!
//! A kernel shares its work with the threads of a pool. Called from a thread outside, each call hands the work over,
//! sleeps, and is woken: some ten microseconds, as long as a small kernel takes. Called from a thread of the pool, it
//! just begins, and the others, which stay awake for a moment after each kernel, join in.

/// Runs `f`, a sequence of kernels, on a thread of the pool.
pub fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}
