//! Many rows: the blocking of Van Zee and van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS
//! Functionality" (2015), with its loop names.
//!
//! ```text
//! loop 5 (jc)  columns of C, NC at a time: the tasks of the threads
//! loop 4 (pc)    k, KC at a time: pack the block of B (KC × NC, lives in L2)
//! loop 2 (ir)      rows of C, MR at a time: copy the panel of A (MR × KC, lives in L1)
//! loop 1 (jr)        columns of the block, NR at a time
//!                      microkernel: MR × NR sums in registers, over KC
//! ```
//!
//! It differs from the paper in what stays where: the panel of A in L1 is used against every panel of B, which streams
//! from L2. So loop 3 (MC) is not needed, and A is copied just before use: rows of a fixed length, where they cannot
//! evict each other as rows at a power-of-two distance do.
//!
//! KC depends only on `k`, and the microkernel adds in the order of `k` wherever in the tile a number lies. That is
//! why a row of C has the same bits whatever the other rows and the threads do.

use std::cell::RefCell;

use rayon::prelude::*;

use super::pack::{Block, pack};
use super::tiles::{self, Tile};
use super::{Element, Order, Product, Size, load_up_to, store_up_to};
use crate::Isa;
use crate::simd::{Simd, SimdOp};

/// Most `k` of one block.
pub(super) const KC: usize = 384;
/// Most columns of one block: KC × NC f32 are three quarters of a 1 MiB L2.
const NC: usize = 480;
/// Most rows of a tile in registers.
const MOST_MR: usize = 12;
/// Every NR divides this.
const NC_STEP: usize = 96;
/// Numbers of a cache line.
const LINE: usize = 16;
/// Fewer multiplications than this are not worth waking a thread for.
const SERIAL: usize = 1 << 17;

/// `C = A · B + bias + residual`
pub(super) fn run<E: Element>(isa: Isa, product: Product<&[E]>, c: &mut [f32]) {
    let Size { m, k, n } = product.size;
    let work = |tile| with_scratch(|scratch| isa.run(Task { product, tile, scratch }));
    if m * k.max(1) * n <= SERIAL {
        return tiles::cut(c, product.size, m, NC).into_iter().for_each(work);
    }
    let (height, width) = tile_size(product.size, rayon::current_num_threads());
    tiles::cut(c, product.size, height, width).into_par_iter().for_each(work);
}

/// Height and width of the tasks. Wide ones copy A less often, high ones pack B less often.
fn tile_size(Size { m, n, .. }: Size, threads: usize) -> (usize, usize) {
    let columns = n.div_ceil(NC).next_multiple_of(threads);
    let width = n.div_ceil(columns).next_multiple_of(NC_STEP).clamp(NC_STEP.max(NC / 2), NC);
    // two tasks a thread even out threads that are slowed down by others
    let bands = (2 * threads).div_ceil(n.div_ceil(width)).min(m.div_ceil(96));
    (m.div_ceil(bands), width)
}

/// Everything inside loop 5.
struct Task<'a, 'c, 's, E> {
    product: Product<'a, &'a [E]>,
    tile: Tile<'c>,
    scratch: &'s mut [f32],
}

impl<E: Element> SimdOp for Task<'_, '_, '_, E> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        // MR × NV sums, NV vectors of B and a broadcast fit the registers
        match S::REGISTERS {
            32 => loop_4::<S, E, 12, 2>(s, self),
            16 => loop_4::<S, E, 6, 2>(s, self),
            _ => loop_4::<S, E, 6, 1>(s, self),
        }
    }
}

/// Which part of `k` a block is, and what that means for the numbers of C.
#[derive(Clone, Copy)]
struct Depth {
    p: usize,
    kc: usize,
    /// C is overwritten, not added to.
    first: bool,
    /// The sum is complete: add bias and residual.
    last: bool,
}

impl<E> Product<'_, &[E]> {
    /// The part of a row of A that belongs to a block; nothing if there is no such row.
    #[inline(always)]
    fn a_piece(&self, row: usize, depth: Depth) -> &[f32] {
        let end = self.a.len();
        let start = end.min(row * self.size.k + depth.p);
        &self.a[start..end.min(start + depth.kc)]
    }
}

#[inline(always)]
fn loop_4<S: Simd, E: Element, const MR: usize, const NV: usize>(s: S, task: Task<E>) {
    let Task { product, mut tile, scratch } = task;
    let Size { k, n, .. } = product.size;
    let nc = tile.width();
    let stride = if product.order == Order::RowMajor { n } else { k };
    let kc = k.div_ceil(k.div_ceil(KC).max(1)).max(1);
    let (a_panel, b_block) = scratch.split_at_mut(MOST_MR * KC);
    // at least once: with k = 0 C is still to be written
    for p in (0..k.max(1)).step_by(kc) {
        let depth = Depth { p, kc: kc.min(k - p), first: p == 0, last: p + kc >= k };
        let b_block = &mut b_block[..depth.kc * nc.next_multiple_of(NV * S::LANES)];
        let block = Block { b: product.b, order: product.order, stride, p, j: tile.col, kc: depth.kc, nc };
        pack::<S, E, NV>(s, block, b_block);
        loop_2::<S, E, MR, NV>(s, &product, depth, (a_panel, b_block), &mut tile);
    }
}

#[inline(always)]
fn loop_2<S: Simd, E: Element, const MR: usize, const NV: usize>(
    s: S,
    product: &Product<&[E]>,
    depth: Depth,
    (a_panel, b_block): (&mut [f32], &[f32]),
    tile: &mut Tile,
) {
    let a_panel: &mut [[f32; KC]] = a_panel.as_chunks_mut().0;
    for (i, rows) in tile.rows.chunks_mut(MR).enumerate() {
        let row = tile.row + i * MR;
        for (r, to) in a_panel.iter_mut().enumerate() {
            if r < rows.len() {
                to[..depth.kc].copy_from_slice(product.a_piece(row + r, depth));
            }
        }
        let (what, at) = ((product, depth), (row, tile.col));
        // the last rows may be few: a smaller tile computes the same bits sooner
        match rows.len() {
            ..=4 => loop_1::<S, E, 4, NV>(s, what, (first_rows(a_panel), b_block), rows, at),
            5..=8 if MR > 8 => loop_1::<S, E, 8, NV>(s, what, (first_rows(a_panel), b_block), rows, at),
            _ => loop_1::<S, E, MR, NV>(s, what, (first_rows(a_panel), b_block), rows, at),
        }
    }
}

#[inline(always)]
fn first_rows<const N: usize>(a_panel: &[[f32; KC]]) -> &[[f32; KC]; N] {
    a_panel.first_chunk().expect("a panel of MR rows")
}

#[inline(always)]
fn loop_1<S: Simd, E: Element, const MR: usize, const NV: usize>(
    s: S,
    (product, depth): (&Product<&[E]>, Depth),
    (a_panel, b_block): (&[[f32; KC]; MR], &[f32]),
    rows: &mut [&mut [f32]],
    (row, col): (usize, usize),
) {
    let nr = NV * S::LANES;
    let nc = rows[0].len();
    for (i, j) in (0..nc).step_by(nr).enumerate() {
        let b_panel = &b_block[i * depth.kc * nr..(i + 1) * depth.kc * nr];
        let width = nr.min(nc - j);
        let a_next = product.a_piece(row + rows.len() + i, depth);
        let sums = microkernel::<S, MR, NV>(s, a_panel, b_panel, a_next, (rows, j));
        // by index up to MR, so that the sums are still registers
        for r in 0..MR {
            if r < rows.len() {
                let c = &mut rows[r][j..j + width];
                let terms =
                    if depth.last { product.epilogue_at(row + r, col + j, width) } else { [None, None] };
                write_row(s, &sums[r], (!depth.first, terms), c);
            }
        }
    }
}

/// `sums[r][·] = Σ_p a[r][p] b[p][·]`, one fused multiply-add at a time in the order of `p`.
///
/// Meanwhile it asks for what is needed next, a cache line of each every 16 steps, so that no fetch waits for another:
/// `a_next`, a row of the next panel of A, and the tile of C, columns `j` of `c`.
#[inline(always)]
fn microkernel<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    a: &[[f32; KC]; MR],
    b: &[f32],
    a_next: &[f32],
    (c, j): (&[&mut [f32]], usize),
) -> [[S::V; NV]; MR] {
    let mut sums = [[s.splat(0.0); NV]; MR];
    for (q, b) in (0..KC / LINE).zip(b.chunks(LINE * NV * S::LANES)) {
        s.prefetch(&a_next[a_next.len().min(q * LINE)..]);
        if let Some(c) = c.get(q / 2) {
            s.prefetch(&c[c.len().min(j + q % 2 * LINE)..]);
        }
        for (i, b) in (0..LINE).zip(b.chunks_exact(NV * S::LANES)) {
            let mut b_row = [s.splat(0.0); NV];
            for v in 0..NV {
                b_row[v] = s.load(&b[v * S::LANES..]);
            }
            for r in 0..MR {
                let a = s.splat(a[r][q * LINE + i]);
                for v in 0..NV {
                    sums[r][v] = s.mul_add(a, b_row[v], sums[r][v]);
                }
            }
        }
    }
    sums
}

/// Writes one row of a tile: what is there already (from earlier blocks), the sums, and the epilogue's terms.
#[inline(always)]
fn write_row<S: Simd, const NV: usize>(
    s: S,
    sums: &[S::V; NV],
    (add, terms): (bool, [Option<&[f32]>; 2]),
    c: &mut [f32],
) {
    let width = c.len();
    for v in 0..NV {
        let (start, end) = (width.min(v * S::LANES), width.min((v + 1) * S::LANES));
        let mut sum = sums[v];
        if add {
            sum = s.add(load_up_to(s, &c[start..end]), sum);
        }
        for term in terms.into_iter().flatten() {
            sum = s.add(sum, load_up_to(s, &term[start..end]));
        }
        store_up_to(s, sum, &mut c[start..end]);
    }
}

/// The longest buffer a task needs: a panel of A and a block of B.
const SCRATCH: usize = (MOST_MR + NC) * KC;

/// A buffer of this thread that is kept for the next task, at the start of a cache line.
fn with_scratch(work: impl FnOnce(&mut [f32])) {
    thread_local! {
        static BUFFER: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(SCRATCH + LINE, 0.0);
        let start = buffer.as_ptr().align_offset(LINE * size_of::<f32>());
        work(&mut buffer[start..start + SCRATCH]);
    });
}
