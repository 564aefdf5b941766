//! A batch is a forest of tokens without padding.
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
//!
//! Where every token of a row sees every other, two rows share a token only if they are the same row. Each distinct row
//! is then a segment, and who sees one of its tokens is the segment.

use std::collections::HashMap;
use std::sync::Arc;

use autograd::ops::{Intervals, Source};

/// Rows merged by what they share, laid out as one run of tokens.
#[derive(Clone, Debug)]
pub struct Forest {
    /// Where the embedding of each token comes from.
    pub sources: Arc<[Source]>,
    /// Place of each token in its row.
    pub positions: Arc<[u32]>,
    /// Which tokens see each token.
    pub mask: Arc<Intervals>,
    /// The tokens of each row in order, by row.
    paths: Vec<Vec<u32>>,
}

impl Forest {
    /// Causal rows: common prefixes are merged.
    pub fn from_rows<'a>(rows: impl IntoIterator<Item = &'a [Source]>) -> Forest {
        Forest::trees(rows.into_iter().map(|row| (None, row)))
    }

    /// Causal rows of several groups: common prefixes are merged within a group, and the trees of a group are
    /// neighbours, the groups in ascending order.
    pub fn trees<'a>(rows: impl IntoIterator<Item = (Option<u32>, &'a [Source])>) -> Forest {
        let mut trie = Trie::default();
        let mut paths: Vec<Vec<u32>> = rows.into_iter().map(|(group, row)| trie.insert(group, row)).collect();
        let (order, ends) = trie.depth_first();
        let mut flat = vec![0; order.len()];
        order.iter().enumerate().for_each(|(i, &node)| flat[node as usize] = i as u32);
        paths.iter_mut().flatten().for_each(|node| *node = flat[*node as usize]);
        let nodes = || order.iter().map(|&node| &trie.nodes[node as usize]);
        Forest {
            sources: nodes().map(|n| n.source).collect(),
            positions: nodes().map(|n| n.depth).collect(),
            mask: Arc::new(Intervals::new((0..order.len() as u32).collect::<Vec<u32>>(), ends)),
            paths,
        }
    }

    /// Rows in which every token sees every other: identical rows are merged. A row without tokens takes no place.
    pub fn segments<'a>(rows: impl IntoIterator<Item = &'a [Source]>) -> Forest {
        let (mut sources, mut positions) = (Vec::new(), Vec::new());
        let mut mask = Intervals::new(Vec::new(), Vec::new());
        let mut starts: HashMap<&[Source], u32> = HashMap::new();
        let mut paths = Vec::new();
        for row in rows {
            let n = row.len() as u32;
            let start = *starts.entry(row).or_insert_with(|| {
                let start = sources.len() as u32;
                sources.extend_from_slice(row);
                positions.extend(0..n);
                mask.begin.numbers_mut().extend(row.iter().map(|_| start));
                mask.end.numbers_mut().extend(row.iter().map(|_| start + n));
                start
            });
            paths.push((start..start + n).collect());
        }
        Forest { sources: sources.into(), positions: positions.into(), mask: Arc::new(mask), paths }
    }

    /// Positions and mask when `n` keys that everybody sees come before the tokens.
    pub fn behind(&self, n: usize) -> (Arc<[u32]>, Arc<Intervals>) {
        if n == 0 {
            return (self.positions.clone(), self.mask.clone());
        }
        let positions = self.positions.iter().map(|position| position + n as u32).collect();
        (positions, Arc::new(self.mask.behind(n, self.len())))
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

    /// The token each row ends at, by row. Panics when a row has none.
    pub fn ends(&self) -> impl Iterator<Item = u32> + '_ {
        self.paths.iter().map(|path| *path.last().expect("a row has a token"))
    }
}

#[derive(Default)]
struct Trie {
    nodes: Vec<Node>,
    /// Group and node of each root.
    roots: Vec<(Option<u32>, u32)>,
    children: HashMap<(Parent, Source), u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Parent {
    /// None: the node is a root of this group.
    Group(Option<u32>),
    Node(u32),
}

struct Node {
    source: Source,
    depth: u32,
    children: Vec<u32>,
}

impl Trie {
    /// The nodes of `row`, made where they are not there yet.
    fn insert(&mut self, group: Option<u32>, row: &[Source]) -> Vec<u32> {
        let mut parent = Parent::Group(group);
        let mut path = Vec::with_capacity(row.len());
        for (depth, &source) in row.iter().enumerate() {
            let node = match self.children.get(&(parent, source)) {
                Some(&node) => node,
                None => self.add(parent, source, depth as u32),
            };
            path.push(node);
            parent = Parent::Node(node);
        }
        path
    }

    fn add(&mut self, parent: Parent, source: Source, depth: u32) -> u32 {
        let node = self.nodes.len() as u32;
        self.nodes.push(Node { source, depth, children: Vec::new() });
        self.children.insert((parent, source), node);
        match parent {
            Parent::Node(parent) => self.nodes[parent as usize].children.push(node),
            Parent::Group(group) => self.roots.push((group, node)),
        }
        node
    }

    /// Nodes in depth-first order, and for each the end of its subtree in that order.
    fn depth_first(&mut self) -> (Vec<u32>, Vec<u32>) {
        self.roots.sort_unstable();
        let mut order: Vec<u32> = Vec::with_capacity(self.nodes.len());
        let mut stack: Vec<u32> = self.roots.iter().rev().map(|&(_, node)| node).collect();
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
        assert_eq!(*forest.mask.end, [5, 5, 4, 4, 5, 6]);
        assert_eq!(forest.ends().collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(forest.path(1), [0, 1, 4]);
    }

    #[test]
    fn segments_are_whole_rows() {
        let rows = [text(&[1, 2, 3]), text(&[1, 2]), text(&[1, 2, 3]), text(&[])];
        let forest = Forest::segments(rows.iter().map(Vec::as_slice));
        assert_eq!(*forest.sources, *text(&[1, 2, 3, 1, 2]));
        assert_eq!(*forest.positions, [0, 1, 2, 0, 1]);
        assert_eq!(
            (&forest.mask.begin[..], &forest.mask.end[..]),
            (&[0, 0, 0, 3, 3][..], &[3, 3, 3, 5, 5][..])
        );
        assert_eq!((forest.path(1), forest.path(2), forest.path(3)), (&[3, 4][..], &[0, 1, 2][..], &[][..]));
    }

    #[test]
    fn every_row_sees_exactly_itself() {
        let mut rng = kernels::testing::Rng(5);
        for _ in 0..200 {
            let rows: Vec<_> = (0..1 + rng.below(8))
                .map(|_| (0..1 + rng.below(6)).map(|_| Source::Text(rng.below(3) as u32)).collect::<Vec<_>>())
                .collect();
            let groups: Vec<_> = rows.iter().map(|_| Some(rng.below(2) as u32)).collect();
            let slices = || rows.iter().map(Vec::as_slice);
            check(&Forest::from_rows(slices()), &rows, true);
            check(&Forest::trees(groups.iter().copied().zip(slices())), &rows, true);
            check(&Forest::segments(slices()), &rows, false);
        }
    }

    /// Every row is there, and each of its tokens sees those of the row (before it, if causal) and no other.
    fn check(forest: &Forest, rows: &[Vec<Source>], causal: bool) {
        for (i, row) in rows.iter().enumerate() {
            let path = forest.path(i);
            let sources: Vec<_> = path.iter().map(|&t| forest.sources[t as usize]).collect();
            assert_eq!(&sources, row);
            for (p, &t) in path.iter().enumerate() {
                let sees =
                    |j: &u32| (forest.mask.begin[*j as usize]..forest.mask.end[*j as usize]).contains(&t);
                let seen: Vec<u32> = (0..forest.len() as u32).filter(sees).collect();
                assert_eq!(seen, if causal { &path[..=p] } else { path });
                assert_eq!(forest.positions[t as usize], p as u32);
            }
        }
    }
}
