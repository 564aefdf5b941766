//! Panels of `B`, widened to f32.
//!
//! A block `B[p0 .. p0 + kc, j0 .. j0 + nc]` becomes panels of `NR` columns. A panel is `kc` rows of `NR` numbers, one
//! after the other: exactly the order in which the microkernel reads them. Missing columns are zero.

use super::{Element, Order, load_up_to};
use crate::simd::{MAX_LANES, Simd};

/// A block of `B` where it lies.
#[derive(Clone, Copy)]
pub(super) struct Block<'a, E> {
    /// All of `B`.
    pub(super) b: &'a [E],
    pub(super) order: Order,
    /// Length of a row in memory: `n` or `k`, by `order`.
    pub(super) stride: usize,
    /// First `k`.
    pub(super) p: usize,
    /// First column.
    pub(super) j: usize,
    pub(super) kc: usize,
    pub(super) nc: usize,
}

/// Writes the block as panels of `NV` vectors to `packed`, whose length is `kc * nc` with `nc` rounded up to whole
/// panels.
#[inline(always)]
pub(super) fn pack<S: Simd, E: Element, const NV: usize>(s: S, block: Block<E>, packed: &mut [f32]) {
    if block.kc == 0 {
        return;
    }
    match block.order {
        Order::RowMajor => copy_rows::<S, E, NV>(s, block, packed),
        Order::Transposed => {
            let nr = NV * S::LANES;
            for (i, panel) in packed.chunks_exact_mut(block.kc * nr).enumerate() {
                let width = nr.min(block.nc - i * nr);
                transpose::<S, E, NV>(s, Block { j: block.j + i * nr, nc: width, ..block }, panel);
            }
        }
    }
}

/// Panels that a row is copied to at once: enough to read it in long pieces, each on a page of its own; few enough
/// that the places written to do not evict each other.
const GROUP: usize = 4;

#[inline(always)]
fn copy_rows<S: Simd, E: Element, const NV: usize>(s: S, block: Block<E>, packed: &mut [f32]) {
    let nr = NV * S::LANES;
    for (g, group) in packed.chunks_mut(GROUP * block.kc * nr).enumerate() {
        let first = g * GROUP * nr;
        let width = (GROUP * nr).min(block.nc - first);
        for p in 0..block.kc {
            let start = (block.p + p) * block.stride + block.j + first;
            let row = &block.b[start..start + width];
            for (i, from) in row.chunks(nr).enumerate() {
                let to = i * block.kc * nr + p * nr;
                copy_row::<S, E, NV>(s, from, &mut group[to..to + nr]);
            }
        }
    }
}

#[inline(always)]
fn copy_row<S: Simd, E: Element, const NV: usize>(s: S, from: &[E], to: &mut [f32]) {
    if from.len() == to.len() {
        for v in 0..NV {
            s.store(E::load(s, &from[v * S::LANES..]), &mut to[v * S::LANES..]);
        }
        return;
    }
    for v in 0..NV {
        let from = &from[from.len().min(v * S::LANES)..];
        s.store(load_up_to(s, from), &mut to[v * S::LANES..]);
    }
}

/// How far ahead a column is asked for. There are too many of them at once for the CPU to foresee it.
const AHEAD: usize = 128;

/// Squares of `LANES` by `LANES` are transposed in registers.
#[inline(always)]
fn transpose<S: Simd, E: Element, const NV: usize>(s: S, block: Block<E>, panel: &mut [f32]) {
    let nr = NV * S::LANES;
    for p in (0..block.kc).step_by(S::LANES) {
        let depth = S::LANES.min(block.kc - p);
        for v in 0..NV {
            let mut square = [s.splat(0.0); MAX_LANES];
            let columns = S::LANES.min(block.nc.saturating_sub(v * S::LANES));
            for c in 0..S::LANES {
                if c < columns {
                    let start = (block.j + v * S::LANES + c) * block.stride + block.p + p;
                    s.prefetch(&block.b[block.b.len().min(start + AHEAD)..]);
                    square[c] = load_up_to(s, &block.b[start..start + depth]);
                }
            }
            s.transpose(&mut square);
            for t in 0..S::LANES {
                if t < depth {
                    s.store(square[t], &mut panel[(p + t) * nr + v * S::LANES..]);
                }
            }
        }
    }
}
