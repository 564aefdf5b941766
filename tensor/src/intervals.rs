//! Who sees whom in attention: an interval of queries for each key.

use kernels::attention::Mask;

use crate::Indices;

/// Key `j` is seen by exactly the queries in `[begin[j], end[j])`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// First query that sees the key.
    pub begin: Indices,
    /// One past the last query that sees the key.
    pub end: Indices,
}

impl Intervals {
    /// One interval per key. Panics when there are more ends than beginnings, or less.
    pub fn new(begin: impl Into<Indices>, end: impl Into<Indices>) -> Intervals {
        let (begin, end) = (begin.into(), end.into());
        assert_eq!(begin.len(), end.len(), "an end for each beginning");
        Intervals { begin, end }
    }

    /// Everybody before sees everybody after: one plain causal sequence.
    pub fn causal(len: usize) -> Intervals {
        Intervals { begin: (0..len as u32).collect(), end: vec![len as u32; len].into() }
    }

    /// The same mask when only the queries `rows` (ascending) remain.
    pub fn for_queries(&self, rows: &[u32]) -> Intervals {
        let at = |x: &u32| rows.partition_point(|r| r < x) as u32;
        Intervals { begin: self.begin.iter().map(at).collect(), end: self.end.iter().map(at).collect() }
    }

    /// The same mask with `n` keys before the others, seen by all of `n_queries`.
    pub fn behind(&self, n: usize, n_queries: usize) -> Intervals {
        let begin = std::iter::repeat_n(0, n).chain(self.begin.iter().copied());
        let end = std::iter::repeat_n(n_queries as u32, n).chain(self.end.iter().copied());
        Intervals { begin: begin.collect(), end: end.collect() }
    }

    /// As the kernels take it.
    pub fn mask(&self) -> Mask<'_> {
        Mask { begin: &self.begin, end: &self.end }
    }
}
