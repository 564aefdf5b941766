//! Rotary position embedding, half-split as in Hugging Face Llama: lane `i` pairs with lane `i + D/2`. Where a file keeps the
//! lanes of a head in the original order, neighbours `2i` and `2i + 1` are the pair ([`Pairs`]): the same rotation.
//!
//! ```text
//! forward   y_i       = x_i cos θ - x_(i+D/2) sin θ        θ = position · inv_freq_i
//!           y_(i+D/2) = x_(i+D/2) cos θ + x_i sin θ
//! backward  d_x = the same with -θ: a rotation is orthogonal, so its transpose is its inverse
//! ```
//!
//! Source: Su et al. 2021, "RoFormer" (arXiv 2104.09864), which pairs neighbours; the half-split pairing is GPT-NeoX's.

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::{
    Isa,
    simd::{Simd, SimdOp},
    slices::{load, n_rows, rows_per_task, run_all, store},
};

/// Which lanes of a head are rotated together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairs {
    /// `i` and `i + D/2`.
    #[default]
    Halves,
    /// `2i` and `2i + 1`.
    Neighbours,
}

/// Cosines and sines of the tokens of one batch, made once and used by every layer.
#[derive(Clone, Debug)]
pub struct Table {
    /// `[T, D/2]`
    pub cos: Vec<f32>,
    /// `[T, D/2]`
    pub sin: Vec<f32>,
    /// `D/2`
    pub half: usize,
    /// Which lanes they are for.
    pub pairs: Pairs,
}

impl Table {
    /// The angles `positions[t] * inv_freq[i]`, both factors f32 as in transformers.
    pub fn new(positions: &[u32], inv_freq: &[f32], pairs: Pairs) -> Table {
        // the rounding of the angle to f32 is part of what the models were trained with
        let angles = positions.iter().flat_map(|&p| inv_freq.iter().map(move |&f| f64::from(p as f32 * f)));
        let (cos, sin) = angles.map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
        Table { cos, sin, half: inv_freq.len(), pairs }
    }
}

/// `y[T, heads*D]`: every head of every row of `x` rotated by its token's angles.
///
/// Panics when the sizes do not fit together.
pub fn forward(isa: Isa, table: &Table, x: &[f32], y: &mut [f32]) {
    rotate(isa, table, 1.0, x, y);
}

/// The gradient with respect to `x`: the rotation by the negative angles.
///
/// Panics when the sizes do not fit together.
pub fn backward(isa: Isa, table: &Table, d_y: &[f32], d_x: &mut [f32]) {
    rotate(isa, table, -1.0, d_y, d_x);
}

/// `direction` is 1 for the angles of the table, -1 for their opposites.
fn rotate(isa: Isa, table: &Table, direction: f32, x: &[f32], y: &mut [f32]) {
    let half = table.half;
    assert_eq!((x.len(), table.cos.len()), (y.len(), table.sin.len()), "x and y, cos and sin");
    if x.is_empty() {
        return;
    }
    let tokens = n_rows(table.cos.len(), half);
    assert!(
        tokens > 0 && x.len().is_multiple_of(tokens * 2 * half),
        "{} numbers for {tokens} tokens of {half} pairs",
        x.len()
    );
    let width = x.len() / tokens;
    let n = rows_per_task(width);
    let angles = table.cos.chunks(n * half).zip(table.sin.chunks(n * half));
    let tasks = angles.zip(x.chunks(n * width).zip(y.chunks_mut(n * width)));
    let pairs = table.pairs;
    run_all(isa, tasks.map(|((cos, sin), (x, y))| Rotate { cos, sin, half, pairs, width, direction, x, y }));
}

struct Rotate<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
    half: usize,
    pairs: Pairs,
    /// Numbers per token, all heads.
    width: usize,
    direction: f32,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl SimdOp for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Rotate { half, width, .. } = self;
        let rows = self.x.chunks_exact(width).zip(self.y.chunks_exact_mut(width));
        let angles = self.cos.chunks_exact(half).zip(self.sin.chunks_exact(half));
        for ((x, y), (cos, sin)) in rows.zip(angles) {
            for (x, y) in x.chunks_exact(2 * half).zip(y.chunks_exact_mut(2 * half)) {
                match self.pairs {
                    Pairs::Halves => halves(s, (cos, sin), self.direction, x, y),
                    Pairs::Neighbours => neighbours((cos, sin), self.direction, x, y),
                }
            }
        }
    }
}

/// One head, half-split.
#[inline(always)]
fn halves<S: Simd>(s: S, (cos, sin): (&[f32], &[f32]), direction: f32, x: &[f32], y: &mut [f32]) {
    let half = cos.len();
    let ((x1, x2), (y1, y2)) = (x.split_at(half), y.split_at_mut(half));
    for i in (0..half).step_by(S::LANES) {
        let (a, b) = (load(s, x1, i), load(s, x2, i));
        let (cos, sin) = (load(s, cos, i), s.mul(s.splat(direction), load(s, sin, i)));
        store(s, s.sub(s.mul(a, cos), s.mul(b, sin)), y1, i);
        store(s, s.mul_add(b, cos, s.mul(a, sin)), y2, i);
    }
}

/// One head whose pairs lie side by side. The compiler makes vectors of it.
#[inline(always)]
fn neighbours((cos, sin): (&[f32], &[f32]), direction: f32, x: &[f32], y: &mut [f32]) {
    let (x, y) = (x.as_chunks::<2>().0, y.as_chunks_mut::<2>().0);
    for ((y, &[a, b]), (cos, sin)) in y.iter_mut().zip(x).zip(cos.iter().zip(sin)) {
        let sin = direction * sin;
        *y = [a * cos - b * sin, b * cos + a * sin];
    }
}

/// The specification: one head of one token.
pub mod reference {
    use crate::real::Real;

    /// `y[D]` from `x[D]` and the `D/2` angles of the token.
    pub fn forward<R: Real>(angles: &[R], x: &[R]) -> Vec<R> {
        let half = angles.len();
        let mut y = vec![R::from_f64(0.0); 2 * half];
        for (i, &angle) in angles.iter().enumerate() {
            y[i] = x[i] * angle.cos() - x[i + half] * angle.sin();
            y[i + half] = x[i + half] * angle.cos() + x[i] * angle.sin();
        }
        y
    }

    /// `d_x[D]`
    pub fn backward<R: Real>(angles: &[R], d_y: &[R]) -> Vec<R> {
        let half = angles.len();
        let mut d_x = vec![R::from_f64(0.0); 2 * half];
        for (i, &angle) in angles.iter().enumerate() {
            // in the forward pass x[i] went into y[i] with cos and into y[i + half] with sin,
            // and x[i + half] went into y[i] with -sin and into y[i + half] with cos
            d_x[i] = d_y[i] * angle.cos() + d_y[i + half] * angle.sin();
            d_x[i + half] = d_y[i + half] * angle.cos() - d_y[i] * angle.sin();
        }
        d_x
    }
}
