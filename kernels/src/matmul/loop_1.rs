//! Loop 1: one panel of `B` against the rows of a block, a tile of `C` at a time.

use std::ops::Range;

use super::arithmetic::{Arithmetic, ArithmeticOp};
use super::pack::Ahead;
use super::panels::{Depth, Panels, tile};
use super::tiles::Tile;
use super::{Product, load_up_to, store_up_to};
use crate::simd::{Simd, SimdOp};

/// The panel of `B` that is in L1, and what it is multiplied with.
pub(super) struct Loop1<'a, 'b, 'c> {
    pub(super) product: &'b Product<'a>,
    pub(super) panels: Panels,
    pub(super) a_packed: &'b [f32],
    /// Panels of A.
    pub(super) block: Range<usize>,
    pub(super) depth: Depth,
    pub(super) b_panel: &'b [f32],
    /// Columns of the tile.
    pub(super) columns: Range<usize>,
    /// What is needed next.
    pub(super) next: Option<Ahead<'b>>,
    /// The sums over the blocks of `k` so far, a tile of `MR` × `NR` after the other.
    pub(super) partial: &'b mut [f32],
    pub(super) tile: &'b mut Tile<'c>,
}

impl SimdOp for Loop1<'_, '_, '_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        self.product.precision.run(s, self);
    }
}

impl ArithmeticOp for Loop1<'_, '_, '_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd, A: Arithmetic>(self, s: S) {
        match tile::<S>() {
            (12, 2) => self.all::<S, A, 12, 2>(s),
            (6, 2) => self.all::<S, A, 6, 2>(s),
            _ => self.all::<S, A, 6, 1>(s),
        }
    }
}

impl Loop1<'_, '_, '_> {
    #[inline(always)]
    fn all<S: Simd, A: Arithmetic, const MR: usize, const NV: usize>(mut self, s: S) {
        for panel in self.block.clone() {
            let rows = self.panels.rows(panel);
            match rows.len() {
                1 => self.one::<S, A, 1, NV>(s, panel, rows),
                2 => self.one::<S, A, 2, NV>(s, panel, rows),
                3 => self.one::<S, A, 3, NV>(s, panel, rows),
                4 => self.one::<S, A, 4, NV>(s, panel, rows),
                5 => self.one::<S, A, 5, NV>(s, panel, rows),
                6 => self.one::<S, A, 6, NV>(s, panel, rows),
                7 if MR > 6 => self.one::<S, A, 7, NV>(s, panel, rows),
                8 if MR > 6 => self.one::<S, A, 8, NV>(s, panel, rows),
                9 if MR > 6 => self.one::<S, A, 9, NV>(s, panel, rows),
                10 if MR > 6 => self.one::<S, A, 10, NV>(s, panel, rows),
                11 if MR > 6 => self.one::<S, A, 11, NV>(s, panel, rows),
                _ => self.one::<S, A, MR, NV>(s, panel, rows),
            }
        }
    }

    /// One tile of `ROWS` rows.
    #[inline(always)]
    fn one<S: Simd, A: Arithmetic, const ROWS: usize, const NV: usize>(
        &mut self,
        s: S,
        panel: usize,
        rows: Range<usize>,
    ) {
        let Loop1 { product, panels, depth, tile, .. } = self;
        let a = &self.a_packed[panel * panels.stride() + panels.words(depth.p) * ROWS..];
        let a = &a[..panels.words(depth.kc) * ROWS];
        let first = rows.start - tile.row;
        let c: &mut [&mut [f32]; ROWS] = tile.rows[first..].first_chunk_mut().expect("the rows of a panel");
        if depth.last {
            for c in c.iter() {
                // by the end of the sums it is here
                s.prefetch(&c[self.columns.start..]);
                s.prefetch(&c[self.columns.end - 1..]);
            }
        }
        let mut sums = microkernel::<S, A, ROWS, NV>(s, a, self.b_panel, &mut self.next);
        let nr = NV * S::LANES;
        let partial = &mut self.partial[(panel - self.block.start) * panels.shape.mr * nr..][..ROWS * nr];
        for r in 0..ROWS {
            let partial = &mut partial[r * nr..(r + 1) * nr];
            for v in 0..NV {
                let partial = &mut partial[v * S::LANES..(v + 1) * S::LANES];
                if depth.p > 0 {
                    sums[r][v] = s.add(s.load(partial), sums[r][v]);
                }
                if !depth.last {
                    s.store(sums[r][v], partial);
                }
            }
        }
        if depth.last {
            for r in 0..ROWS {
                let (col, width) = (tile.col + self.columns.start, self.columns.len());
                let terms = product.epilogue_at(rows.start + r, col, width);
                write_row(s, &sums[r], terms, &mut c[r][self.columns.clone()]);
            }
        }
    }
}

/// `sums[r][·] = Σ_w a[w][r] b[w][·]`, one step at a time in the order of `w`: wherever in a tile a number lies, it has
/// the same bits.
#[inline(always)]
fn microkernel<S: Simd, A: Arithmetic, const ROWS: usize, const NV: usize>(
    s: S,
    a: &[f32],
    b: &[f32],
    next: &mut Option<Ahead>,
) -> [[S::V; NV]; ROWS] {
    let mut sums = [[s.splat(0.0); NV]; ROWS];
    let nr = NV * S::LANES;
    let (a, b) = (a.chunks_exact(UNROLL * ROWS), b.chunks_exact(UNROLL * nr));
    let rest = (a.remainder(), b.remainder());
    for (a, b) in a.zip(b) {
        if let Some(next) = next {
            next.lines(s);
        }
        for u in 0..UNROLL {
            step::<S, A, ROWS, NV>(s, &a[u * ROWS..], &b[u * nr..], &mut sums);
        }
    }
    for (a, b) in rest.0.chunks_exact(ROWS).zip(rest.1.chunks_exact(nr)) {
        step::<S, A, ROWS, NV>(s, a, b, &mut sums);
    }
    sums
}

/// Words that are multiplied in one turn of the loop.
pub(super) const UNROLL: usize = 4;

/// Adds the products of one word of each row and column.
#[inline(always)]
fn step<S: Simd, A: Arithmetic, const ROWS: usize, const NV: usize>(
    s: S,
    a: &[f32],
    b: &[f32],
    sums: &mut [[S::V; NV]; ROWS],
) {
    let (a, b) = (&a[..ROWS], &b[..NV * S::LANES]);
    let mut b_word = [s.splat(0.0); NV];
    for v in 0..NV {
        b_word[v] = s.load(&b[v * S::LANES..]);
    }
    for r in 0..ROWS {
        let a = s.splat(a[r]);
        for v in 0..NV {
            sums[r][v] = A::step(s, a, b_word[v], sums[r][v]);
        }
    }
}

/// Writes one row of a tile: the sums and the epilogue's terms.
#[inline(always)]
fn write_row<S: Simd, const NV: usize>(s: S, sums: &[S::V; NV], terms: [Option<&[f32]>; 2], c: &mut [f32]) {
    let width = c.len();
    for v in 0..NV {
        let (start, end) = (width.min(v * S::LANES), width.min((v + 1) * S::LANES));
        let mut sum = sums[v];
        for term in terms.into_iter().flatten() {
            sum = s.add(sum, load_up_to(s, &term[start..end]));
        }
        store_up_to(s, sum, &mut c[start..end]);
    }
}
