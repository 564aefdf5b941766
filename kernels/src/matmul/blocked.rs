//! Many rows: the blocking of Van Zee and van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS
//! Functionality" (2015), with its loop names.
//!
//! ```text
//! first          pack all of A, on all threads: panels of MR rows
//! loop 5 (jc)    strips of C, NC columns wide: the tasks of the threads
//! loop 3 (ic)      rows of C, MC at a time: this block of C lives in L2 until it is finished
//! loop 4 (pc)        k, KC at a time: the block of A (MC × KC) lives in L2
//! loop 2 (jr)          columns of the strip, NR at a time: the panel of B (KC × NR) lives in L1; it is packed
//!                        when it is first needed, and asked for while the panel before it is used
//! loop 1 (ir)            rows of the block, MR at a time: the panel of A streams from L2
//!                          microkernel: MR × NR sums in registers, over KC
//! ```
//!
//! It differs from the paper in that a block of C is finished before the next one (loop 3 outside loop 4), so that it
//! goes to memory once; and in that packing B is spread over the products, which hide its trips to memory.
//!
//! KC depends only on `k`, and the microkernel adds in the order of `k` wherever in the tile a number lies. That is
//! why a row of C has the same bits whatever the other rows and the threads do.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::loop_1::{Loop1, UNROLL};
use super::pack::{Ahead, PackColumns, PackRows, Source};
use super::panels::{Depth, Panels, split};
use super::tiles::{self, Tile};
use super::{Product, Size};
use crate::Isa;
use crate::floats::{Floats, with_scratch};

/// Words of a block of A: MC × KC is half of a 512 KiB L2.
const A_BLOCK: usize = 1 << 16;
/// Columns of a strip: more would leave L2 no room for a block of C; fewer would read A more often.
const NC: usize = 192;
/// Every NR divides this.
const NC_STEP: usize = 32;
/// Words of a packed strip of B (4 MB), if there is more than one block of rows to use it.
const B_STRIP: usize = 1 << 20;
/// Numbers of A that are packed at one time (16 MB), but not less than a few blocks; more rows are another product.
const A_NUMBERS: usize = 1 << 22;
/// Fewer multiplications than this are not worth waking a thread for.
const SERIAL: usize = 1 << 17;

/// `C = A · B + bias + residual`
pub(super) fn run(isa: Isa, product: Product, c: &mut [f32]) {
    let Size { k, n, .. } = product.size;
    let at_once = (A_NUMBERS / k.max(1)).max(NC);
    for (i, c) in c.chunks_mut(at_once * n).enumerate() {
        let first = i * at_once;
        multiply(isa, product.rows(first..first + c.len() / n), c);
    }
}

fn multiply(isa: Isa, product: Product, c: &mut [f32]) {
    let Size { m, k, n } = product.size;
    let parallel = m * k.max(1) * n > SERIAL;
    let panels = Panels::new(isa, &product);
    with_scratch(&A_PACKED, [panels.count() * panels.stride()], |[a_packed]| {
        let pack = |(i, panel): (usize, &mut [f32])| isa.run(PackRows { product, panels, i, panel });
        match parallel {
            true => a_packed.par_chunks_mut(panels.stride()).enumerate().for_each(pack),
            false => a_packed.chunks_mut(panels.stride()).enumerate().for_each(pack),
        }
        let strip = Strip { isa, product, panels, a_packed };
        let threads = if parallel { rayon::current_num_threads() } else { 1 };
        let tiles = strip.cut(c, threads);
        match parallel {
            true => tiles.into_par_iter().with_max_len(1).for_each(|tile| strip.run(tile)),
            false => tiles.into_iter().for_each(|tile| strip.run(tile)),
        }
    });
}

/// Everything inside loop 5.
#[derive(Clone, Copy)]
struct Strip<'a> {
    isa: Isa,
    product: Product<'a>,
    panels: Panels,
    a_packed: &'a [f32],
}

impl Strip<'_> {
    /// The tasks: strips of columns, and where those are too few for the threads, bands of rows as well.
    fn cut<'c>(&self, c: &'c mut [f32], threads: usize) -> Vec<Tile<'c>> {
        let Size { k, n, .. } = self.product.size;
        let most = (B_STRIP / k.max(1)).clamp(NC_STEP, NC) / NC_STEP * NC_STEP;
        // four tasks a thread even out threads that are slowed down by others
        let width = tiles::width_for(n, 4 * threads, NC_STEP, most);
        let n_bands = match threads {
            1 => 1,
            _ => (2 * threads).div_ceil(n.div_ceil(width)).min(self.panels.count().div_ceil(8)),
        };
        let bands: Vec<Range<usize>> = split(0..self.panels.count(), n_bands).collect();
        tiles::cut(c, n, width, bands.into_iter().map(|band| (self.panels.rows_of(&band), band)))
    }

    /// Loop 3.
    fn run(&self, mut tile: Tile) {
        let (panels, nr) = (self.panels, self.panels.shape.nr);
        let per_block = (A_BLOCK / (panels.words(panels.kc) * panels.shape.mr)).max(1);
        let n_blocks = tile.panels.len().div_ceil(per_block);
        let n_columns = tile.width().next_multiple_of(nr);
        let kept = n_blocks > 1;
        let (depth, columns) = if kept { (panels.size.k, n_columns) } else { (panels.kc, nr) };
        let partial = per_block.min(tile.panels.len()) * panels.shape.mr * n_columns;
        with_scratch(&B_PACKED, [panels.words(depth) * columns, partial], |[b_packed, partial]| {
            let mut buffers = Buffers { b_packed, kept, partial };
            for (i, block) in split(tile.panels.clone(), n_blocks).enumerate() {
                self.loops_4_and_2(&mut tile, block, i == 0, &mut buffers);
            }
        });
    }

    /// A block of rows; the first one packs what the others find packed.
    fn loops_4_and_2(&self, tile: &mut Tile, block: Range<usize>, first: bool, buffers: &mut Buffers) {
        let (panels, nr) = (self.panels, self.panels.shape.nr);
        let n_columns = tile.width().next_multiple_of(nr);
        for depth in panels.depths() {
            let words = panels.words(depth.kc) * nr;
            let calls = block.len() * (panels.words(depth.kc) / UNROLL);
            for j in (0..tile.width()).step_by(nr) {
                let width = nr.min(tile.width() - j);
                let at = if buffers.kept { panels.words(depth.p) * n_columns + j / nr * words } else { 0 };
                let (b_panel, after) = buffers.b_packed[at..].split_at_mut(words);
                let next = if first {
                    let source = Source::new(&self.product, depth, tile.col + j, width);
                    self.isa.run(PackColumns { source, precision: self.product.precision, b_panel });
                    self.after(tile, depth, j).map(|source| Ahead::source(&source, calls))
                } else {
                    Some(Ahead::packed(&after[..words.min(after.len())], calls))
                };
                self.isa.run(Loop1 {
                    product: &self.product,
                    panels,
                    a_packed: self.a_packed,
                    block: block.clone(),
                    depth,
                    b_panel,
                    columns: j..j + width,
                    next,
                    partial: &mut buffers.partial[block.len() * panels.shape.mr * j..],
                    tile,
                });
            }
        }
    }

    /// The panel of B that is packed after this one, in the order of the loops.
    fn after(&self, tile: &Tile, depth: Depth, j: usize) -> Option<Source<'_>> {
        let nr = self.panels.shape.nr;
        let (depth, j) = match j + nr < tile.width() {
            true => (depth, j + nr),
            false => (self.panels.depths().find(|next| next.p > depth.p)?, 0),
        };
        Some(Source::new(&self.product, depth, tile.col + j, nr.min(tile.width() - j)))
    }
}

/// The memory of a task.
struct Buffers<'s> {
    /// The panels of B: all of them, or the one in use.
    b_packed: &'s mut [f32],
    /// Whether there is more than one block of rows, so that a panel is used again.
    kept: bool,
    /// Sums over the blocks of `k` so far.
    partial: &'s mut [f32],
}

thread_local! {
    static A_PACKED: RefCell<Floats> = RefCell::default();
    static B_PACKED: RefCell<Floats> = RefCell::default();
}
