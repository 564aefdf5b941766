//! A tile of scores, transposed: a row per key, a lane per query.
//!
//! That way neither keys nor queries need a sum across lanes, the keys stay in rows as they come, and what belongs to a
//! query (its largest score, its sum) is a lane of a vector.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use super::{
    Inputs, Rows,
    product::{Left, product},
    visible::{Block, TILE, View},
};
use crate::simd::{Simd, math};

/// Queries of a tile meet keys of a block.
#[derive(Clone, Copy)]
pub(super) struct Meeting<'a> {
    pub tile: &'a Range<usize>,
    pub block: &'a Block,
    pub view: &'a View,
}

/// Some vectors of queries: a column of the tile of scores.
#[derive(Clone)]
pub(super) struct Panel {
    /// The first lane, counted in the tile.
    pub lane: usize,
    /// Keys outside are seen by no query of the panel. Rounded to the rows of a product.
    pub keys: Range<usize>,
    /// Rows of the tile.
    pub n_keys: usize,
}

/// What is done with each panel of a tile.
pub(super) trait PerPanel {
    /// `N` vectors of queries; products take `M` keys at a time.
    fn panel<S: Simd, const M: usize, const N: usize>(&mut self, s: S, panel: Panel);
}

/// Calls `work` for every panel of the tile.
#[inline(always)]
pub(super) fn panels<S: Simd>(s: S, meeting: Meeting, work: &mut impl PerPanel) {
    // M * N sums, N vectors and a broadcast fit the registers
    match S::REGISTERS {
        32.. => panels_of::<S, 8, 3>(s, meeting, work),
        16.. => panels_of::<S, 6, 2>(s, meeting, work),
        _ => panels_of::<S, 2, 2>(s, meeting, work),
    }
}

#[inline(always)]
fn panels_of<S: Simd, const M: usize, const MOST: usize>(s: S, meeting: Meeting, work: &mut impl PerPanel) {
    let n = meeting.tile.len();
    let mut lane = 0;
    while lane < n {
        let vectors = (n - lane).div_ceil(S::LANES).min(MOST);
        let next = lane + vectors * S::LANES;
        let keys = meeting.view.keys_of(lane..next.min(n));
        let panel = Panel {
            lane,
            keys: keys.start / M * M..keys.end.next_multiple_of(M),
            n_keys: meeting.block.keys.len(),
        };
        match vectors {
            1 => work.panel::<S, M, 1>(s, panel),
            2 => work.panel::<S, M, 2>(s, panel),
            _ => work.panel::<S, M, 3>(s, panel),
        }
        lane = next;
    }
}

/// What is done to a product to make scores of it.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    /// What a query does not see becomes `-inf`.
    pub meeting: Meeting<'a>,
    /// Whether there is a bias where the scores will be ([`fill_bias`]).
    pub biased: bool,
}

/// Writes the bias of a query head where its scores will be. Whether there is one.
pub(super) fn fill_bias(
    inputs: &Inputs,
    head: usize,
    meeting: Meeting,
    keys: &[u32],
    out: &mut [f32],
) -> bool {
    let Some(bias) = &inputs.bias else { return false };
    let seen = meeting.view.keys_of(0..meeting.tile.len());
    let keys = &keys[meeting.block.keys.clone()][seen.clone()];
    bias.fill(bias.of_head(head, inputs.heads.n_heads), meeting.tile, keys, &mut out[seen.start * TILE..]);
    true
}

/// `out[j, i] = Σ_d rows[j, d] columns[d, i]` for the panel, finished if it shall be, and the largest of each column.
/// Keys that no query of the panel sees get zeros.
#[inline(always)]
pub(super) fn panel_product<S: Simd, const M: usize, const N: usize>(
    s: S,
    panel: &Panel,
    (rows, columns, head_dim): (Rows, &[f32], usize),
    finish: Option<Finish>,
    out: &mut [f32],
) -> [S::V; N] {
    let mut largest = [s.splat(f32::MIN); N]; // not -inf: the difference of two of those is a NaN
    for j in (0..panel.keys.start).chain(panel.keys.end..panel.n_keys) {
        write(s, &[s.splat(0.0); N], &mut out[j * TILE + panel.lane..]);
    }
    let columns = Rows { data: columns, stride: TILE };
    for j in panel.keys.clone().step_by(M) {
        let mut sums = product::<S, M, N>(s, (Left::Plain(rows), j), (columns, panel.lane), head_dim);
        if let Some(Finish { meeting, biased }) = finish {
            if biased {
                add_bias(s, &out[j * TILE + panel.lane..], &mut sums);
            }
            meeting.hide(s, (panel.lane, j), &mut sums);
        }
        for r in 0..M {
            for v in 0..N {
                largest[v] = s.max(largest[v], sums[r][v]);
            }
            write(s, &sums[r], &mut out[(j + r) * TILE + panel.lane..]);
        }
    }
    largest
}

/// `scores += log2(e) * bias`, which is what the scores are multiplied by as well.
#[inline(always)]
fn add_bias<S: Simd, const M: usize, const N: usize>(s: S, bias: &[f32], scores: &mut [[S::V; N]; M]) {
    for r in 0..M {
        for v in 0..N {
            let bias = s.load(&bias[r * TILE + v * S::LANES..]);
            scores[r][v] = s.mul_add(bias, s.splat(LOG2_E), scores[r][v]);
        }
    }
}

#[inline(always)]
fn write<S: Simd, const N: usize>(s: S, vectors: &[S::V; N], out: &mut [f32]) {
    for v in 0..N {
        s.store(vectors[v], &mut out[v * S::LANES..]);
    }
}

impl Meeting<'_> {
    /// Sets the scores of keys `j..j + M` that a query does not see to `-inf`.
    #[inline(always)]
    pub(super) fn hide<S: Simd, const M: usize, const N: usize>(
        self,
        s: S,
        (lane, j): (usize, usize),
        scores: &mut [[S::V; N]; M],
    ) {
        let first = self.tile.start + lane;
        let queries = first..self.tile.end.min(first + N * S::LANES);
        if self.block.all_see(&queries, j..j + M) {
            return;
        }
        let hidden = s.splat(f32::NEG_INFINITY);
        for v in 0..N {
            let query = s.add(s.splat((first + v * S::LANES) as f32), s.load(&NUMBERS));
            for r in 0..M {
                let (begin, end) = (s.splat(self.block.begin[j + r]), s.splat(self.block.end[j + r]));
                let score = s.select_lt(query, end, scores[r][v], hidden);
                scores[r][v] = s.select_lt(query, begin, hidden, score);
            }
        }
    }
}

/// Numbers of the lanes.
const NUMBERS: [f32; 16] = {
    let mut numbers = [0.0; 16];
    let mut i = 0;
    while i < numbers.len() {
        numbers[i] = i as f32;
        i += 1;
    }
    numbers
};

/// Running softmax of some queries, one lane each, in powers of two.
pub(super) struct Running<'a> {
    /// Largest score so far.
    pub max: &'a mut [f32],
    /// `Σ_j 2^(s_ij - max_i)` so far.
    pub sum: &'a mut [f32],
    /// What earlier sums are to be multiplied with because the maximum grew.
    pub keep: &'a mut [f32],
}

impl Running<'_> {
    /// `scores = 2^(scores - max)` for one vector of queries, with the largest of the scores given.
    #[inline(always)]
    pub(super) fn softmax<S: Simd>(
        &mut self,
        s: S,
        (lane, keys): (usize, &Range<usize>),
        largest: S::V,
        scores: &mut [f32],
    ) {
        let before = s.load(&self.max[lane..]);
        let max = s.max(before, largest);
        let keep = math::exp2(s, s.sub(before, max));
        let mut sum = s.mul(s.load(&self.sum[lane..]), keep);
        for row in scores[keys.start * TILE..keys.end * TILE].chunks_exact_mut(TILE) {
            let p = math::exp2(s, s.sub(s.load(&row[lane..]), max));
            s.store(p, &mut row[lane..]);
            sum = s.add(sum, p);
        }
        s.store(max, &mut self.max[lane..]);
        s.store(sum, &mut self.sum[lane..]);
        s.store(keep, &mut self.keep[lane..]);
    }
}
