//! What this machine can do at most.
//!
//! A kernel is limited by the slower of two things: the arithmetic it must do, and the bytes it must move. Both limits
//! are measured by loops that do nothing else. Bytes are measured on as many bytes as the kernel touches, so whether
//! these lie in a cache or in memory is part of the measurement and not a question of its own.

mod arithmetic;
mod memory;

pub use arithmetic::{Arithmetic, operations_per_second};
pub use memory::{Bandwidth, Streams};

/// Which threads a ceiling is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One, the others idle.
    One,
    /// Every thread of the pool.
    All,
}

impl Threads {
    /// How many that is.
    pub fn count(self) -> usize {
        match self {
            Threads::One => 1,
            Threads::All => rayon::current_num_threads(),
        }
    }

    /// Runs `work` with its number on each of these threads at once. (A parallel iterator could give two pieces of
    /// work to one thread.)
    pub fn run(self, work: impl Fn(usize) + Sync) {
        rayon::broadcast(|thread| {
            if thread.index() < self.count() {
                work(thread.index());
            }
        });
    }
}
