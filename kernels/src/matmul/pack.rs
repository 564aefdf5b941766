//! Panels: the operands in the order in which the microkernel reads them.
//!
//! `A` becomes panels of up to `MR` rows: for each step of `k` the numbers of all rows, side by side. `B` becomes panels
//! of `NR` columns: for each step of `k` the numbers of all columns. Both are words of an [`Arithmetic`]; missing
//! columns, and missing rows of `k`, are zero. Quantised weights are widened a piece of a panel at a time, in L1, and then
//! packed as f32.

use super::arithmetic::{Arithmetic, ArithmeticOp};
use super::panels::{Depth, Panels, tile};
use super::{Element, Elements, Order, Precision, Product, Size, load_up_to};
use crate::blocks::{Blocks, Widen};
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
        let per_piece = self.b.bytes_of(length).div_ceil(LINE);
        Lines { pieces, per_piece, stride: self.b.bytes_of(self.stride) }
    }
}

/// The cache lines of something.
#[derive(Clone, Copy)]
struct Lines {
    pieces: usize,
    per_piece: usize,
    /// Bytes from one piece to the next.
    stride: usize,
}

/// Asks for a panel of `B` that is needed next, a few cache lines at a time, so that it is near when its time comes.
/// Asking for many at once would hold up the loads between them.
pub(super) struct Ahead<'a> {
    b: Elements<'a>,
    shape: Lines,
    /// At which byte the current piece begins, and which of its lines is next.
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
        Ahead { b: source.b, shape: lines, start: source.b.bytes_of(source.start), line: 0, at_once }
    }

    /// A packed panel.
    pub(super) fn packed(words: &'a [f32], calls: usize) -> Ahead<'a> {
        let per_piece = size_of_val(words).div_ceil(LINE);
        let lines = Lines { pieces: 1, per_piece, stride: size_of_val(words) };
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
            let at = self.start + self.line * LINE;
            match self.b {
                Elements::F32(b) => s.prefetch_far(&b[b.len().min(at / 4)..]),
                Elements::F16(b) => s.prefetch_far(&b[b.len().min(at / 2)..]),
                Elements::Bf16(b) => s.prefetch_far(&b[b.len().min(at / 2)..]),
                Elements::Blocks(b) => s.prefetch_far(&b.bytes()[b.bytes().len().min(at)..]),
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
            Elements::Blocks(b) => self.of_blocks::<S, A>(s, b),
        }
    }
}

/// Rows of `k` that are widened at one time.
const DEPTH: usize = 64;
/// Numbers they take: rows of up to 32 columns that begin within a sixteen, or columns of `DEPTH` that do.
const PIECE: usize = DEPTH * 48;

impl PackColumns<'_> {
    #[inline(always)]
    fn of_blocks<S: Simd, A: Arithmetic>(self, s: S, blocks: Blocks) {
        let PackColumns { source, precision, b_panel } = self;
        let Source { order, stride, start, kc, width, .. } = source;
        let row_major = order == Order::RowMajor;
        let nr = tile::<S>().1 * S::LANES;
        let mut wide = [0.0; PIECE];
        for (p, panel) in (0..kc).step_by(DEPTH).zip(b_panel.chunks_mut(DEPTH / A::DEPTH * nr)) {
            let depth = DEPTH.min(kc - p);
            let start = start + if row_major { p * stride } else { p };
            let (pieces, length) = if row_major { (depth, width) } else { (width, depth) };
            // every row begins at the same place of a sixteen
            let first = start % 16;
            let pitch = (first + length).next_multiple_of(16);
            for (i, out) in wide.chunks_exact_mut(pitch).take(pieces).enumerate() {
                s.call(Widen { blocks, from: start - first + i * stride, out });
            }
            let source =
                Source { b: Elements::F32(&[]), order, stride: pitch, start: first, kc: depth, width };
            PackColumns { source, precision, b_panel: panel }.from::<S, f32, A>(s, &wide);
        }
    }

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
