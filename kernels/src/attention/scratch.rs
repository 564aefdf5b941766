//! Memory of a thread that is kept for its next task.

use std::cell::RefCell;
use std::ops::Range;

use super::{
    Mask,
    visible::{Block, Bounds, KEYS, View},
};
use crate::floats::Floats;

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

/// Calls `work` with the memory of this thread.
pub(super) fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(work)
}
