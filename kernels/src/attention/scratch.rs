//! Memory of a thread that is kept for its next task.

use std::cell::RefCell;

use std::ops::Range;

use super::{
    Mask,
    visible::{Block, Bounds, KEYS, View},
};

/// Numbers of a cache line.
const LINE: usize = 16;

/// What a task needs. Holds whatever the last task left.
#[derive(Default)]
pub(super) struct Scratch {
    pub keys: Vec<u32>,
    pub blocks: Vec<Block>,
    pub views: Vec<View>,
    pub floats: Floats,
}

impl Scratch {
    /// Finds the keys that a chunk sees, and who sees which of them.
    pub(super) fn look(&mut self, bounds: &Bounds, mask: Mask, tiles: &[Range<usize>]) {
        bounds.seen_keys(mask, &(tiles[0].start..tiles[tiles.len() - 1].end), &mut self.keys);
        self.blocks.clear();
        self.views.clear();
        for first in (0..self.keys.len()).step_by(KEYS) {
            let block = Block::new(mask, &self.keys, first..(first + KEYS).min(self.keys.len()));
            self.views.extend(tiles.iter().map(|tile| block.view(tile)));
            self.blocks.push(block);
        }
    }
}

/// A buffer to be cut into pieces.
#[derive(Default)]
pub(super) struct Floats(Vec<f32>);

impl Floats {
    /// Pieces of the given lengths, each at the start of a cache line.
    pub(super) fn pieces<const N: usize>(&mut self, lengths: [usize; N]) -> [&mut [f32]; N] {
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

/// Calls `work` with the memory of this thread.
pub(super) fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(work)
}
