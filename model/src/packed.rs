//! Rows ready to be computed: what they share is there once, and so is each place where something is scored.

use std::sync::Arc;

use autograd::ops::{Intervals, Source};
use kernels::cross_entropy::Target;

use crate::forest::Forest;
use crate::row::{Family, Row};

/// Rows ready to be computed: a forest, and the few tokens where something is scored.
#[derive(Clone, Debug)]
pub struct PackedBatch {
    /// What the encoder reads: each distinct input once, as a segment. Empty unless the model is [`Family::Seq2Seq`].
    pub encoder: Forest,
    /// Which tokens of `forest` see each token of `encoder`: those of the rows that have this encoder input.
    pub cross: Arc<Intervals>,
    /// The tokens: trees of a causal sequence, segments of a masked one. The last token of a causal row is only
    /// predicted, so it is not among them unless another row goes on.
    pub forest: Forest,
    /// Tokens of the forest whose final hidden state is needed, ascending.
    pub outputs: Arc<[u32]>,
    /// What is scored, sorted by row; `row` counts `outputs`. Targets of identical rows are one, their weights added.
    pub targets: Vec<Target>,
    /// Index into `targets` of each scored token, by row, in the order of [`Row::scored`].
    pub row_targets: Vec<Vec<u32>>,
}

impl PackedBatch {
    /// Packs `rows` for a model of `family`. Panics when a row scores nothing, or at a token it does not have: the
    /// data reader checks that.
    pub fn from_rows(family: Family, rows: &[Row]) -> PackedBatch {
        assert!(rows.iter().all(|row| !row.scored.is_empty()), "a row scores at least one token");
        let encoder = Forest::segments(rows.iter().map(|row| row.encoder.as_slice()));
        let forest = match family {
            Family::Masked => Forest::segments(rows.iter().map(|row| row.tokens.as_slice())),
            // a decoder's tokens are shared by the rows that see the same encoder tokens; causal rows see none
            Family::Causal | Family::Seq2Seq => {
                let group = |i| encoder.path(i).first().copied();
                Forest::trees(rows.iter().enumerate().map(|(i, row)| (group(i), row.causal_part())))
            }
        };
        let cross = Arc::new(cross(&encoder, &forest, rows.len()));
        let (outputs, targets, row_targets) = targets(&forest, rows);
        PackedBatch { encoder, cross, forest, outputs, targets, row_targets }
    }

    /// Where the embedding of each token comes from, the encoder's first.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        self.encoder.sources.iter().chain(&*self.forest.sources).copied()
    }

    /// Number of tokens that are computed.
    pub fn len(&self) -> usize {
        self.encoder.len() + self.forest.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The trees of one encoder input are neighbours, so who sees it is one interval.
pub(crate) fn cross(encoder: &Forest, forest: &Forest, n_rows: usize) -> Intervals {
    let (mut begin, mut end) = (vec![u32::MAX; encoder.len()], vec![0; encoder.len()]);
    for row in 0..n_rows {
        let root = forest.path(row)[0];
        for &token in encoder.path(row) {
            let (begin, end) = (&mut begin[token as usize], &mut end[token as usize]);
            *begin = root.min(*begin);
            *end = forest.mask.end[root as usize].max(*end);
        }
    }
    Intervals::new(begin, end)
}

/// `outputs`, `targets` and `row_targets` of a batch.
fn targets(forest: &Forest, rows: &[Row]) -> (Arc<[u32]>, Vec<Target>, Vec<Vec<u32>>) {
    // of each scored token: the token of the forest that predicts it, and its id
    let scored = |(i, row): (usize, &Row)| {
        row.scored.iter().map(|p| (forest.path(i)[p.at], p.token)).collect::<Vec<_>>()
    };
    let scored: Vec<Vec<(u32, u32)>> = rows.iter().enumerate().map(scored).collect();
    let mut unique = scored.concat();
    unique.sort_unstable();
    unique.dedup();
    let mut outputs: Vec<u32> = unique.iter().map(|&(at, _)| at).collect();
    outputs.dedup();
    let target = |&(at, token): &(u32, u32)| Target {
        row: outputs.partition_point(|&o| o < at) as u32,
        token,
        weight: 0.0,
    };
    let mut targets: Vec<Target> = unique.iter().map(target).collect();
    let mut row_targets = Vec::with_capacity(rows.len());
    for (row, scored) in rows.iter().zip(&scored) {
        let index = |key| unique.binary_search(key).expect("every scored token is in the list") as u32;
        let indices: Vec<u32> = scored.iter().map(index).collect();
        indices.iter().for_each(|&t| targets[t as usize].weight += row.weight);
        row_targets.push(indices);
    }
    (outputs.into(), targets, row_targets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Prediction;

    fn text(ids: &[u32]) -> Vec<Source> {
        ids.iter().map(|&id| Source::Text(id)).collect()
    }

    fn target(row: u32, token: u32, weight: f32) -> Target {
        Target { row, token, weight }
    }

    #[test]
    fn targets_of_identical_rows_add_and_candidates_share_their_row() {
        let row = |ids: &[u32]| Row::causal(text(ids), 2, 0.5);
        let rows = [row(&[1, 2, 3]), row(&[1, 2, 3]), row(&[1, 2, 7, 8])];
        let batch = PackedBatch::from_rows(Family::Causal, &rows);
        assert_eq!(*batch.forest.sources, *text(&[1, 2, 7]));
        assert_eq!(*batch.outputs, [1, 2]);
        assert_eq!(batch.targets, [target(0, 3, 1.0), target(0, 7, 0.5), target(1, 8, 0.5)]);
        assert_eq!(batch.row_targets, [vec![0], vec![0], vec![1, 2]]);
        assert!(batch.encoder.is_empty() && batch.cross.begin.is_empty());
    }

    #[test]
    fn candidates_for_the_same_masks_share_the_whole_row() {
        let row = |ids: &[u32], scored: &[(usize, u32)], weight| {
            let scored = scored.iter().map(|&(at, token)| Prediction { at, token }).collect();
            Row { encoder: Vec::new(), tokens: text(ids), scored, weight }
        };
        // 9 is the mask; the order of a row's predictions is its own
        let rows = [
            row(&[1, 9, 9, 2], &[(2, 5), (1, 4)], 1.0),
            row(&[1, 9, 2], &[(1, 6)], 1.0),
            row(&[1, 9, 9, 2], &[(1, 4), (2, 7)], 0.5),
        ];
        let batch = PackedBatch::from_rows(Family::Masked, &rows);
        assert_eq!(*batch.forest.sources, *text(&[1, 9, 9, 2, 1, 9, 2]));
        assert_eq!(*batch.outputs, [1, 2, 5]);
        let expected = [target(0, 4, 1.5), target(1, 5, 1.0), target(1, 7, 0.5), target(2, 6, 1.0)];
        assert_eq!(batch.targets, expected);
        assert_eq!(batch.row_targets, [vec![1, 0], vec![3], vec![0, 2]]);
    }

    #[test]
    fn a_decoder_tree_belongs_to_its_encoder_input() {
        let row =
            |encoder: &[u32], ids: &[u32]| Row { encoder: text(encoder), ..Row::causal(text(ids), 1, 1.0) };
        // the second and third inputs interleave with the first, and begin their decoders with the same token
        let rows =
            [row(&[5, 6], &[0, 1, 2]), row(&[5], &[0, 1]), row(&[5, 6], &[0, 1, 3]), row(&[5], &[0, 3, 4])];
        let batch = PackedBatch::from_rows(Family::Seq2Seq, &rows);
        assert_eq!(*batch.encoder.sources, *text(&[5, 6, 5]));
        assert_eq!(*batch.encoder.mask, Intervals::new(vec![0, 0, 2], vec![2, 2, 3]));
        assert_eq!(*batch.forest.sources, *text(&[0, 1, 0, 3]));
        assert_eq!(*batch.cross, Intervals::new(vec![0, 0, 2], vec![2, 2, 4]));
        assert_eq!(*batch.forest.positions, [0, 1, 0, 1]);
        assert_eq!((batch.len(), rows[0].len()), (7, 5));
    }
}
