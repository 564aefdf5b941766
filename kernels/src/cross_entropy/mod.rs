//! Softmax cross-entropy at the rows that are scored.
//!
//! ```text
//! forward   lse = log Σ_v e^(z_v) = m + log Σ_v e^(z_v - m),  m = max_v z_v;      loss = Σ_t w_t (lse - z_token(t))
//! backward  d_z_v = (Σ_t w_t) e^(z_v - lse) - Σ_t w_t [v = token(t)]              sums over the targets of the row
//! ```
//!
//! Derivation: `∂lse/∂z_v = e^(z_v) / Σ e^z = e^(z_v - lse)`.

#[cfg(feature = "cuda")]
pub mod cuda;

use crate::{
    Isa,
    simd::{Simd, SimdOp, math},
    slices::{Step, load_or, map, n_rows, prefetch, rows_per_task, run_all, sums},
};

/// `lse[n] = log Σ_v exp(logits[n, v])`, computed stably.
///
/// Panics when the sizes do not fit together.
pub fn log_sum_exp(isa: Isa, logits: &[f32], vocab: usize, lse: &mut [f32]) {
    assert_eq!(n_rows(logits.len(), vocab), lse.len(), "one lse per row");
    if lse.is_empty() {
        return;
    }
    let n = rows_per_task(vocab);
    let tasks = logits.chunks(n * vocab).zip(lse.chunks_mut(n));
    run_all(isa, tasks.map(|(logits, lse)| LogSumExp { logits, vocab, lse }));
}

struct LogSumExp<'a> {
    logits: &'a [f32],
    vocab: usize,
    lse: &'a mut [f32],
}

impl SimdOp for LogSumExp<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (z, lse) in self.logits.chunks_exact(self.vocab).zip(self.lse) {
            *lse = log_sum_exp_of_row(s, z);
        }
    }
}

/// How many logits are looked at twice, for their maximum and for their sum, while they are in the nearest cache.
const BLOCK: usize = 1024;

/// `log Σ e^z`, going over memory once: whenever a block has a larger number, the sum so far is scaled down to it.
#[inline(always)]
fn log_sum_exp_of_row<S: Simd>(s: S, z: &[f32]) -> f32 {
    // the shift is finite, so that a row of -inf alone needs no case of its own: its sum is 0
    let (mut shift, mut sum) = (f32::MIN, 0.0);
    let mut blocks = z.chunks(BLOCK).peekable();
    while let Some(z) = blocks.next() {
        let larger = largest(s, z).max(shift);
        // the exponentials take about as long as the next block takes to come
        prefetch(s, blocks.peek().copied().unwrap_or_default());
        let [of_block] = sums(s, ExpOver(larger), [z], f32::NEG_INFINITY);
        sum = sum * (shift - larger).exp() + of_block;
        shift = larger;
    }
    shift + sum.ln()
}

/// The largest number of `z`; a NaN may or may not count.
#[inline(always)]
fn largest<S: Simd>(s: S, z: &[f32]) -> f32 {
    // side by side, so that one comparison need not wait for the one before it
    let mut largest = [s.splat(f32::NEG_INFINITY); 4];
    let blocks = z.chunks_exact(4 * S::LANES);
    let rest = blocks.remainder();
    for z in blocks {
        for (largest, z) in largest.iter_mut().zip(z.chunks_exact(S::LANES)) {
            *largest = s.max(*largest, s.load(z));
        }
    }
    for i in (0..rest.len()).step_by(S::LANES) {
        largest[0] = s.max(largest[0], load_or(s, rest, i, f32::NEG_INFINITY));
    }
    let [a, b, c, d] = largest;
    s.max_lane(s.max(s.max(a, b), s.max(c, d)))
}

/// `e^(z - shift)` for `z <= shift`
#[derive(Clone, Copy)]
struct ExpOver(f32);

impl Step<1, 1> for ExpOver {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [z]: [S::V; 1], [sum]: [S::V; 1]) -> [S::V; 1] {
        // The largest number adds 1 to the sum, so what is further below adds nothing; nor does a row of -inf alone. The
        // rounding of the product weighs |below| e^below, which is less than 0.4.
        let below = s.sub(z, s.splat(self.0));
        let power = s.mul(math::at_least(s, below, -math::MODERATE), s.splat(std::f32::consts::LOG2_E));
        let e = math::exp2_moderate(s, power);
        [s.add(sum, s.select_lt(below, s.splat(-math::MODERATE), s.splat(0.0), e))]
    }
}

/// One scored token: the row of the logits, the token, and how much it weighs in the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Row of the logits.
    pub row: u32,
    /// Vocabulary index that should be likely there.
    pub token: u32,
    /// Factor of `-log p` in the loss. May be negative or zero.
    pub weight: f32,
}

/// The gradient of `Σ_t weight_t · -log softmax(logits[row_t])[token_t]`.
///
/// `logits` is `[n, V]`, `targets` are sorted by row and may name a row several times or never (then its gradient is
/// zero). `d_logits` has the shape of `logits`. Panics when the sizes do not fit together, a target lies outside of
/// the logits, or the targets are not sorted.
pub fn backward(
    isa: Isa,
    logits: &[f32],
    vocab: usize,
    lse: &[f32],
    targets: &[Target],
    d_logits: &mut [f32],
) {
    let rows = n_rows(logits.len(), vocab);
    assert_eq!((lse.len(), d_logits.len()), (rows, logits.len()), "one lse per row, d_logits like logits");
    check_targets(targets, rows, vocab);
    if rows == 0 {
        return;
    }
    let n = rows_per_task(vocab);
    let of_rows = |first: usize| {
        let begin = targets.partition_point(|t| (t.row as usize) < first);
        let end = targets.partition_point(|t| (t.row as usize) < first + n);
        &targets[begin..end]
    };
    let slices = logits.chunks(n * vocab).zip(lse.chunks(n)).zip(d_logits.chunks_mut(n * vocab));
    let tasks = slices.enumerate().map(|(i, ((logits, lse), d_logits))| {
        let first_row = i * n;
        Backward { logits, lse, targets: of_rows(first_row), first_row, vocab, d_logits }
    });
    run_all(isa, tasks);
}

/// Panics when a target lies outside of the logits, or they are not sorted.
fn check_targets(targets: &[Target], rows: usize, vocab: usize) {
    assert!(targets.is_sorted_by_key(|t| t.row), "targets must be sorted by row");
    for t in targets {
        let inside = (t.row as usize) < rows && (t.token as usize) < vocab;
        assert!(inside, "target (row {}, token {}) is outside of logits [{rows}, {vocab}]", t.row, t.token);
    }
}

struct Backward<'a> {
    logits: &'a [f32],
    lse: &'a [f32],
    /// Those of the rows of this task.
    targets: &'a [Target],
    first_row: usize,
    vocab: usize,
    d_logits: &'a mut [f32],
}

impl SimdOp for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let mut targets = self.targets;
        let rows = self.logits.chunks_exact(self.vocab).zip(self.d_logits.chunks_exact_mut(self.vocab));
        for (row, ((z, d_z), &lse)) in rows.zip(self.lse).enumerate() {
            let here;
            (here, targets) =
                targets.split_at(targets.partition_point(|t| t.row as usize <= self.first_row + row));
            let weight: f32 = here.iter().map(|t| t.weight).sum();
            if weight == 0.0 {
                d_z.fill(0.0);
            } else {
                map(s, Softmax { lse, weight }, [z], [d_z]);
            }
            for t in here {
                d_z[t.token as usize] -= t.weight;
            }
        }
    }
}

/// `weight e^(z - lse)`
#[derive(Clone, Copy)]
struct Softmax {
    lse: f32,
    weight: f32,
}

impl Step<1, 1> for Softmax {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, [z]: [S::V; 1], _: [S::V; 1]) -> [S::V; 1] {
        let p = math::exp(s, s.sub(z, s.splat(self.lse)));
        [s.mul(s.splat(self.weight), p)]
    }
}

/// The specification: one row.
pub mod reference {
    use crate::real::Real;

    /// `log Σ_v exp(logits[v])`
    pub fn log_sum_exp<R: Real>(logits: &[R]) -> R {
        let mut max = R::from_f64(f64::NEG_INFINITY);
        for &z in logits {
            max = if z > max { z } else { max };
        }
        if max == R::from_f64(f64::NEG_INFINITY) {
            return max;
        }
        let mut sum = R::from_f64(0.0);
        for &z in logits {
            sum += (z - max).exp();
        }
        max + sum.ln()
    }

    /// `Σ_t weight_t (lse - logits[token_t])` for the `(token, weight)` of the row.
    pub fn loss<R: Real>(logits: &[R], targets: &[(usize, R)]) -> R {
        let lse = log_sum_exp(logits);
        let mut loss = R::from_f64(0.0);
        for &(token, weight) in targets {
            loss += weight * (lse - logits[token]);
        }
        loss
    }

    /// `d_logits` of [`loss`].
    pub fn backward<R: Real>(logits: &[R], lse: R, targets: &[(usize, R)]) -> Vec<R> {
        let mut d_logits = vec![R::from_f64(0.0); logits.len()];
        for &(token, weight) in targets {
            // in the forward pass this was loss += weight * (lse - logits[token])
            for (d, &z) in d_logits.iter_mut().zip(logits) {
                *d += weight * (z - lse).exp();
            }
            d_logits[token] += -weight;
        }
        d_logits
    }
}
