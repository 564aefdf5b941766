//! Memory that a thread keeps for its next task.

use std::{cell::RefCell, thread::LocalKey};

/// Numbers of a cache line.
const LINE: usize = 16;

/// A buffer to be cut into pieces.
#[derive(Default)]
pub(crate) struct Floats(Vec<f32>);

impl Floats {
    /// Pieces of the given lengths, each at the start of a cache line.
    pub(crate) fn pieces<const N: usize>(&mut self, lengths: [usize; N]) -> [&mut [f32]; N] {
        let padded = |length: &usize| length.next_multiple_of(LINE);
        let total = lengths.iter().map(padded).sum::<usize>() + LINE;
        if self.0.len() < total {
            self.0.resize(total, 0.0);
        }
        let mut rest = &mut self.0[..];
        let start = rest.as_ptr().align_offset(LINE * size_of::<f32>());
        rest = &mut rest[start..];
        lengths.map(|length| {
            let piece = rest.split_off_mut(..length.next_multiple_of(LINE)).expect("as long as the total");
            &mut piece[..length]
        })
    }
}

/// Pieces of the memory of this thread. It is taken out meanwhile: a thread that waits for others may be given another
/// product to compute.
pub(crate) fn with_scratch<const N: usize>(
    kept: &'static LocalKey<RefCell<Floats>>,
    lengths: [usize; N],
    work: impl FnOnce([&mut [f32]; N]),
) {
    let mut floats = kept.take();
    work(floats.pieces(lengths));
    kept.set(floats);
}
