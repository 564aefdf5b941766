//! Panels: the operands in the order in which the microkernel reads them.
//!
//! `A` becomes panels of up to `MR` rows: for each step of `k` the numbers of all rows, side by side. `B` becomes panels
//! of `NR` columns: for each step of `k` the numbers of all columns. Both are words of an [`Arithmetic`]; missing
//! columns, and missing rows of `k`, are zero.

use super::arithmetic::{Arithmetic, ArithmeticOp};
use super::panels::{Depth, Panels, tile};
use super::{Element, Elements, Order, Precision, Product, Size, load_up_to};
use crate::simd::{MAX_LANES, Simd, SimdOp};

/// Packs one panel of `A`.
pub(super) struct PackRows<'a> {
    pub(super) product: Product<'a>,
    pub(super) panels: Panels,
    pub(super) i: usize,
    pub(super) panel: &'a mut [f32],
}

impl SimdOp for PackRows<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        self.product.precision.run(s, self);
    }
}

impl ArithmeticOp for PackRows<'_> {
    type Output = ();
    /// Each store is a whole vector, of which the next one overwrites the surplus.
    #[inline(always)]
    fn eval<S: Simd, A: Arithmetic>(self, s: S) {
        let (rows, k) = (self.panels.rows(self.i), self.product.size.k);
        let mut at = 0;
        for p in (0..k).step_by(S::LANES) {
            let depth = S::LANES.min(k - p);
            let mut square = [s.splat(0.0); MAX_LANES];
            for r in 0..S::LANES {
                if r < rows.len() {
                    let start = (rows.start + r) * k + p;
                    square[r] = load_up_to(s, &self.product.a[start..start + depth]);
                }
            }
            s.transpose(&mut square);
            for t in (0..S::LANES).step_by(A::DEPTH) {
                if t < depth {
                    s.store(A::word(s, square[t], square[t + A::DEPTH - 1]), &mut self.panel[at..]);
                    at += rows.len();
                }
            }
        }
    }
}

/// At most `NR` columns of `B` where they lie, over one block of `k`.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    b: Elements<'a>,
    order: Order,
    /// Length of a row in memory: `n` or `k`, by `order`.
    stride: usize,
    /// Where the first number lies.
    start: usize,
    kc: usize,
    width: usize,
}

impl<'a> Source<'a> {
    /// Columns `j .. j + width`.
    pub(super) fn new(product: &Product<'a>, depth: Depth, j: usize, width: usize) -> Source<'a> {
        let Size { k, n, .. } = product.size;
        let (stride, start) = match product.order {
            Order::RowMajor => (n, depth.p * n + j),
            Order::Transposed => (k, j * k + depth.p),
        };
        Source { b: product.b, order: product.order, stride, start, kc: depth.kc, width }
    }

    /// The cache lines it takes, by its pieces that are contiguous in memory.
    fn lines(&self) -> Lines {
        let (pieces, length) = match self.order {
            Order::RowMajor => (self.kc, self.width),
            Order::Transposed => (self.width, self.kc),
        };
        let size = match self.b {
            Elements::F32(_) => 4,
            Elements::F16(_) | Elements::Bf16(_) => 2,
        };
        let per_line = LINE / size;
        Lines { pieces, per_piece: length.div_ceil(per_line), per_line, stride: self.stride }
    }
}

/// The cache lines of something.
#[derive(Clone, Copy)]
struct Lines {
    pieces: usize,
    per_piece: usize,
    /// Numbers in a line.
    per_line: usize,
    /// Numbers from one piece to the next.
    stride: usize,
}

/// Asks for a panel of `B` that is needed next, a few cache lines at a time, so that it is near when its time comes.
/// Asking for many at once would hold up the loads between them.
pub(super) struct Ahead<'a> {
    b: Elements<'a>,
    shape: Lines,
    /// Where the current piece begins, and which of its lines is next.
    start: usize,
    line: usize,
    /// How many lines each call asks for.
    at_once: usize,
}

impl<'a> Ahead<'a> {
    /// A panel that is still to be packed, in `calls` calls.
    pub(super) fn source(source: &Source<'a>, calls: usize) -> Ahead<'a> {
        let lines = source.lines();
        let at_once = (lines.pieces * lines.per_piece).div_ceil(calls.max(1));
        Ahead { b: source.b, shape: lines, start: source.start, line: 0, at_once }
    }

    /// A packed panel.
    pub(super) fn packed(words: &'a [f32], calls: usize) -> Ahead<'a> {
        let (per_line, per_piece) = (LINE / 4, words.len().div_ceil(LINE / 4));
        let lines = Lines { pieces: 1, per_piece, per_line, stride: words.len() };
        Ahead {
            b: Elements::F32(words),
            shape: lines,
            start: 0,
            line: 0,
            at_once: per_piece.div_ceil(calls.max(1)),
        }
    }

    /// Asks for the next few lines.
    #[inline(always)]
    pub(super) fn lines<S: Simd>(&mut self, s: S) {
        for _ in 0..self.at_once {
            let at = self.start + self.line * self.shape.per_line;
            match self.b {
                Elements::F32(b) => s.prefetch_far(&b[b.len().min(at)..]),
                Elements::F16(b) => s.prefetch_far(&b[b.len().min(at)..]),
                Elements::Bf16(b) => s.prefetch_far(&b[b.len().min(at)..]),
            }
            self.line += 1;
            if self.line >= self.shape.per_piece {
                (self.start, self.line) = (self.start + self.shape.stride, 0);
            }
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Packs one panel of `B`.
pub(super) struct PackColumns<'a> {
    pub(super) source: Source<'a>,
    pub(super) precision: Precision,
    pub(super) b_panel: &'a mut [f32],
}

impl SimdOp for PackColumns<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        self.precision.run(s, self);
    }
}

impl ArithmeticOp for PackColumns<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd, A: Arithmetic>(self, s: S) {
        match self.source.b {
            Elements::F32(b) => self.from::<S, _, A>(s, b),
            Elements::F16(b) => self.from::<S, _, A>(s, b),
            Elements::Bf16(b) => self.from::<S, _, A>(s, b),
        }
    }
}

impl PackColumns<'_> {
    #[inline(always)]
    fn from<S: Simd, E: Element, A: Arithmetic>(self, s: S, b: &[E]) {
        match tile::<S>() {
            (_, 2) => self.pack::<S, E, A, 2>(s, b),
            _ => self.pack::<S, E, A, 1>(s, b),
        }
    }

    #[inline(always)]
    fn pack<S: Simd, E: Element, A: Arithmetic, const NV: usize>(self, s: S, b: &[E]) {
        if self.source.kc == 0 {
            return;
        }
        match self.source.order {
            Order::RowMajor => self.copy::<S, E, A, NV>(s, b),
            Order::Transposed => self.transpose::<S, E, A, NV>(s, b),
        }
    }

    #[inline(always)]
    fn copy<S: Simd, E: Element, A: Arithmetic, const NV: usize>(self, s: S, b: &[E]) {
        let Source { stride, start, kc, width, .. } = self.source;
        let words = self.b_panel.chunks_exact_mut(NV * S::LANES);
        for (p, word) in (0..kc).step_by(A::DEPTH).zip(words) {
            let mut rows = [[s.splat(0.0); NV]; 2];
            for d in 0..A::DEPTH {
                if p + d < kc {
                    let row = &b[start + (p + d) * stride..][..width];
                    for v in 0..NV {
                        rows[d][v] = load_up_to(s, &row[width.min(v * S::LANES)..]);
                    }
                }
            }
            for v in 0..NV {
                s.store(A::word(s, rows[0][v], rows[A::DEPTH - 1][v]), &mut word[v * S::LANES..]);
            }
        }
    }

    /// Squares of `LANES` by `LANES` are transposed in registers.
    #[inline(always)]
    fn transpose<S: Simd, E: Element, A: Arithmetic, const NV: usize>(self, s: S, b: &[E]) {
        let Source { stride, start, kc, width, .. } = self.source;
        for p in (0..kc).step_by(S::LANES) {
            let depth = S::LANES.min(kc - p);
            for v in 0..NV {
                let mut square = [s.splat(0.0); MAX_LANES];
                let columns = S::LANES.min(width.saturating_sub(v * S::LANES));
                for c in 0..S::LANES {
                    if c < columns {
                        let start = start + (v * S::LANES + c) * stride + p;
                        square[c] = load_up_to(s, &b[start..start + depth]);
                    }
                }
                s.transpose(&mut square);
                for t in (0..S::LANES).step_by(A::DEPTH) {
                    if t < depth {
                        let at = ((p + t) / A::DEPTH * NV + v) * S::LANES;
                        s.store(A::word(s, square[t], square[t + A::DEPTH - 1]), &mut self.b_panel[at..]);
                    }
                }
            }
        }
    }
}
