//! How the rows of `A` and the steps of `k` are divided.

use std::ops::Range;

use super::arithmetic::{Arithmetic, ArithmeticOp};
use super::{Precision, Product, Size};
use crate::Isa;
use crate::simd::{MAX_LANES, Simd, SimdOp};

/// Words of a panel of B: KC × NR is three quarters of a 32 KiB L1.
const B_PANEL: usize = 6144;

/// The tile in registers: `mr` × `nr` sums, a word of B and a broadcast fit them.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) mr: usize,
    pub(super) nr: usize,
    /// Numbers of `k` in a word.
    pub(super) depth: usize,
}

/// Finds the [`Shape`] of an instruction set.
struct ShapeFor(Precision);

impl SimdOp for ShapeFor {
    type Output = Shape;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> Shape {
        self.0.run(s, self)
    }
}

impl ArithmeticOp for ShapeFor {
    type Output = Shape;
    #[inline(always)]
    fn eval<S: Simd, A: Arithmetic>(self, _: S) -> Shape {
        let (mr, nv) = tile::<S>();
        Shape { mr, nr: nv * S::LANES, depth: A::DEPTH }
    }
}

/// Rows, and vectors of columns, of a tile.
pub(super) const fn tile<S: Simd>() -> (usize, usize) {
    match S::REGISTERS {
        32 => (12, 2),
        16 => (6, 2),
        _ => (6, 1),
    }
}

/// Panels of `A` and blocks of `k`.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub(super) shape: Shape,
    pub(super) size: Size,
    /// Most `k` of one block; depends on `k` and the shape only.
    pub(super) kc: usize,
}

impl Panels {
    pub(super) fn new(isa: Isa, product: &Product) -> Panels {
        let shape = isa.run(ShapeFor(product.precision));
        let k = product.size.k;
        let most = B_PANEL / shape.nr * shape.depth;
        let kc = k.div_ceil(k.div_ceil(most).max(1)).max(1).next_multiple_of(shape.depth);
        Panels { shape, size: product.size, kc }
    }

    /// How many panels there are: as even as possible, because a low tile is a slow one.
    pub(super) fn count(&self) -> usize {
        self.size.m.div_ceil(self.shape.mr)
    }

    /// The rows of panel `i`.
    pub(super) fn rows(&self, i: usize) -> Range<usize> {
        part(self.size.m, self.count(), i)
    }

    /// The rows of some panels.
    pub(super) fn rows_of(&self, panels: &Range<usize>) -> Range<usize> {
        self.rows(panels.start).start..self.rows(panels.end - 1).end
    }

    /// Words of `k` numbers.
    pub(super) fn words(&self, k: usize) -> usize {
        k.div_ceil(self.shape.depth)
    }

    /// Words from one panel to the next; whole vectors are stored, so the last one needs room.
    pub(super) fn stride(&self) -> usize {
        self.words(self.size.k) * self.shape.mr + MAX_LANES
    }

    /// The blocks of `k`; one of them, empty, if `k` is 0, because C is still to be written.
    pub(super) fn depths(&self) -> impl Iterator<Item = Depth> + use<> {
        let (k, most) = (self.size.k, self.kc);
        (0..k.max(1)).step_by(most).map(move |p| Depth { p, kc: most.min(k - p), last: p + most >= k })
    }
}

/// A block of `k`.
#[derive(Clone, Copy)]
pub(super) struct Depth {
    /// Its first `k`: if that is 0, C is overwritten, not added to.
    pub(super) p: usize,
    pub(super) kc: usize,
    /// The sum is complete: add bias and residual.
    pub(super) last: bool,
}

/// The `i`-th of `count` parts of `0..n` that differ by one at most.
fn part(n: usize, count: usize, i: usize) -> Range<usize> {
    let (each, more) = (n / count, n % count);
    let start = |i: usize| i * each + i.min(more);
    start(i)..start(i + 1)
}

/// Cuts `range` into `count` parts that differ by one at most.
pub(super) fn split(range: Range<usize>, count: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).map(move |i| {
        let part = part(range.len(), count, i);
        range.start + part.start..range.start + part.end
    })
}
