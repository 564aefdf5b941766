//! A batch is a prefix forest.
//!
//! In a causal model the hidden states of a prefix do not depend on what follows, so a prefix that several rows share
//! (the soft prompt, an instruction, demonstrations, the text before two candidate answers) is stored and computed
//! once. Rows are merged into a trie, and the trie is laid out depth first as one flat run of tokens without padding:
//!
//! ```text
//! rows  P P a b      trie  P-P-a-b      flat      P  P  a  b  c
//!       P P c                 \-c       position  0  1  2  3  2
//!                                       mask      [0,5) [1,5) [2,4) [3,4) [4,5)
//! ```
//!
//! The descendants of a token are contiguous, so who sees it is one interval: from itself to the end of its subtree.
//! Two rows share a token when its source and everything before it are the same. What a row computes therefore does
//! not depend on what else is in the batch.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use autograd::ops::{Intervals, Source};
use kernels::cross_entropy::Target;

/// Rows merged by common prefixes, laid out depth first.
#[derive(Clone, Debug)]
pub struct Forest {
    /// Where the embedding of each token comes from.
    pub sources: Arc<[Source]>,
    /// Depth of each token in its row.
    pub positions: Arc<[u32]>,
    /// Which later tokens see each token.
    pub mask: Arc<Intervals>,
    /// The token each row ends at, by row.
    pub ends: Vec<u32>,
    /// The tokens of each row in order, by row.
    paths: Vec<Vec<u32>>,
}

impl Forest {
    /// Merges `rows`, none of which may be empty.
    pub fn from_rows<'a>(rows: impl IntoIterator<Item = &'a [Source]>) -> Forest {
        let mut trie = Trie::default();
        let mut paths: Vec<Vec<u32>> = rows.into_iter().map(|row| trie.insert(row)).collect();
        let (order, ends) = trie.depth_first();
        let mut flat = vec![0; order.len()];
        order.iter().enumerate().for_each(|(i, &node)| flat[node as usize] = i as u32);
        paths.iter_mut().flatten().for_each(|node| *node = flat[*node as usize]);
        let nodes = || order.iter().map(|&node| &trie.nodes[node as usize]);
        Forest {
            sources: nodes().map(|n| n.source).collect(),
            positions: nodes().map(|n| n.depth).collect(),
            mask: Arc::new(Intervals { begin: (0..order.len() as u32).collect(), end: ends }),
            ends: paths.iter().map(|path| *path.last().expect("a row has a token")).collect(),
            paths,
        }
    }

    /// Tokens stored, each of them once.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The tokens of row `row`, in order.
    pub fn path(&self, row: usize) -> &[u32] {
        &self.paths[row]
    }
}

#[derive(Default)]
struct Trie {
    nodes: Vec<Node>,
    roots: Vec<u32>,
    /// `(parent, source) -> child`; a root's parent is `None`.
    children: HashMap<(Option<u32>, Source), u32>,
}

struct Node {
    source: Source,
    depth: u32,
    children: Vec<u32>,
}

impl Trie {
    /// The nodes of `row`, made where they are not there yet.
    fn insert(&mut self, row: &[Source]) -> Vec<u32> {
        let mut parent = None;
        let mut path = Vec::with_capacity(row.len());
        for (depth, &source) in row.iter().enumerate() {
            let node = match self.children.get(&(parent, source)) {
                Some(&node) => node,
                None => self.add(parent, source, depth as u32),
            };
            path.push(node);
            parent = Some(node);
        }
        path
    }

    fn add(&mut self, parent: Option<u32>, source: Source, depth: u32) -> u32 {
        let node = self.nodes.len() as u32;
        self.nodes.push(Node { source, depth, children: Vec::new() });
        self.children.insert((parent, source), node);
        match parent {
            Some(parent) => self.nodes[parent as usize].children.push(node),
            None => self.roots.push(node),
        }
        node
    }

    /// Nodes in depth-first order, and for each the end of its subtree in that order.
    fn depth_first(&self) -> (Vec<u32>, Vec<u32>) {
        let mut order: Vec<u32> = Vec::with_capacity(self.nodes.len());
        let mut stack: Vec<u32> = self.roots.iter().rev().copied().collect();
        while let Some(node) = stack.pop() {
            order.push(node);
            stack.extend(self.nodes[node as usize].children.iter().rev());
        }
        // the subtree of i ends at the next node that is not deeper
        let mut ends = vec![order.len() as u32; order.len()];
        let mut open: Vec<usize> = Vec::new();
        for (i, &node) in order.iter().enumerate() {
            let depth = self.nodes[node as usize].depth;
            while let Some(&last) = open.last().filter(|&&j| self.nodes[order[j] as usize].depth >= depth) {
                ends[last] = i as u32;
                open.pop();
            }
            open.push(i);
        }
        (order, ends)
    }
}

/// A sequence of which some tokens are scored.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The whole sequence: prompt and completion.
    pub tokens: Vec<Source>,
    /// The scored tokens: text tokens, not the first of the row.
    pub scored: Range<usize>,
    /// What each of them weighs in the loss.
    pub weight: f32,
}

/// Rows ready to be computed: a forest, and the few tokens where the next token is scored.
#[derive(Clone, Debug)]
pub struct PackedBatch {
    /// The tokens. The last token of a row is only predicted, so it is not among them unless another row goes on.
    pub forest: Forest,
    /// Tokens of the forest whose final hidden state is needed, ascending.
    pub outputs: Arc<[u32]>,
    /// What is scored, sorted by row; `row` counts `outputs`. Targets of identical rows are one, their weights added.
    pub targets: Vec<Target>,
    /// Index into `targets` of each scored token, by row.
    pub row_targets: Vec<Vec<u32>>,
}

impl PackedBatch {
    /// Packs `rows`. Panics when a row scores its first token, a soft token or nothing: the data reader checks that.
    pub fn from_rows(rows: &[Row]) -> PackedBatch {
        let forest = Forest::from_rows(rows.iter().map(|row| {
            assert!(row.scored.start > 0 && !row.scored.is_empty(), "a row scores tokens after its first");
            &row.tokens[..row.scored.end - 1]
        }));
        let mut scored: Vec<(u32, u32)> = Vec::new();
        rows.iter().enumerate().for_each(|(i, row)| scored.extend(scored_tokens(&forest, i, row)));
        let mut unique = scored;
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
        for (i, row) in rows.iter().enumerate() {
            let index = |key| unique.binary_search(&key).expect("every scored token is in the list") as u32;
            let indices: Vec<u32> = scored_tokens(&forest, i, row).map(index).collect();
            indices.iter().for_each(|&t| targets[t as usize].weight += row.weight);
            row_targets.push(indices);
        }
        PackedBatch { forest, outputs: outputs.into(), targets, row_targets }
    }
}

/// Of each scored token of a row: the token of the forest that predicts it, and its id.
fn scored_tokens<'a>(forest: &'a Forest, i: usize, row: &'a Row) -> impl Iterator<Item = (u32, u32)> + 'a {
    row.scored.clone().map(move |p| match row.tokens[p] {
        Source::Text(id) => (forest.path(i)[p - 1], id),
        Source::Soft(_) => panic!("a soft token cannot be scored"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ids: &[u32]) -> Vec<Source> {
        ids.iter().map(|&id| Source::Text(id)).collect()
    }

    #[test]
    fn shared_prefixes_are_stored_once() {
        let rows = [text(&[1, 2, 3, 4]), text(&[1, 2, 5]), text(&[9])];
        let forest = Forest::from_rows(rows.iter().map(Vec::as_slice));
        assert_eq!(*forest.sources, *text(&[1, 2, 3, 4, 5, 9]));
        assert_eq!(*forest.positions, [0, 1, 2, 3, 2, 0]);
        assert_eq!(forest.mask.end, [5, 5, 4, 4, 5, 6]);
        assert_eq!(forest.ends, [3, 4, 5]);
        assert_eq!(forest.path(1), [0, 1, 4]);
    }

    #[test]
    fn targets_of_identical_rows_add_and_candidates_share_their_row() {
        let row =
            |ids: &[u32], start: usize| Row { tokens: text(ids), scored: start..ids.len(), weight: 0.5 };
        let batch = PackedBatch::from_rows(&[row(&[1, 2, 3], 2), row(&[1, 2, 3], 2), row(&[1, 2, 7, 8], 2)]);
        assert_eq!(*batch.forest.sources, *text(&[1, 2, 7]));
        assert_eq!(*batch.outputs, [1, 2]);
        let t = |row, token, weight| Target { row, token, weight };
        assert_eq!(batch.targets, [t(0, 3, 1.0), t(0, 7, 0.5), t(1, 8, 0.5)]);
        assert_eq!(batch.row_targets, [vec![0], vec![0], vec![1, 2]]);
    }

    #[test]
    fn every_row_sees_exactly_itself() {
        let mut rng = kernels::testing::Rng(5);
        for _ in 0..200 {
            let rows: Vec<_> = (0..1 + rng.below(8))
                .map(|_| (0..1 + rng.below(6)).map(|_| Source::Text(rng.below(3) as u32)).collect::<Vec<_>>())
                .collect();
            let forest = Forest::from_rows(rows.iter().map(Vec::as_slice));
            for (i, row) in rows.iter().enumerate() {
                let path = forest.path(i);
                let sources: Vec<_> = path.iter().map(|&t| forest.sources[t as usize]).collect();
                assert_eq!(&sources, row);
                for (p, &t) in path.iter().enumerate() {
                    let sees =
                        |j: &u32| (forest.mask.begin[*j as usize]..forest.mask.end[*j as usize]).contains(&t);
                    let seen: Vec<u32> = (0..forest.len() as u32).filter(sees).collect();
                    assert_eq!(seen, path[..=p]);
                }
            }
        }
    }
}
