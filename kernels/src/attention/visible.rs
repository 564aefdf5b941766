//! Who sees whom, brought into the shapes the products want: tiles of queries, and blocks of the keys they see.
//!
//! A tile holds up to [`TILE`] consecutive queries and ends, where it can, where some keys are seen for the last time:
//! at the end of a sequence or of a branch of the forest. Tiles that see many of the same keys form a chunk. A chunk
//! meets exactly the keys that one of its queries sees, gathered into blocks of [`KEYS`], and of every block a tile
//! knows which range of it each query sees. So work follows the visible pairs, whatever lies between them.

use std::ops::Range;

use super::Mask;

/// Most queries of a tile: whole vectors of any tier, in the numbers that a product takes at a time.
pub(super) const TILE: usize = 48;
/// Fewest queries of a tile, where there are more: a tile costs something whatever it holds.
const SMALL_TILE: usize = 16;
/// Keys of a block, a multiple of the 2, 6 or 8 that a product takes at a time. A tile of scores leaves room for its
/// operands in the nearest cache.
pub(super) const KEYS: usize = 72;
/// Tiles that see so many keys in common are worth a chunk, which copies the keys once for all of them.
const COMMON: usize = 256;

/// Bounds on which keys a range of queries can see, so that nobody looks through all of them.
pub(super) struct Bounds {
    /// For each key, the largest `end` up to it.
    ends: Vec<usize>,
    /// For each key, the smallest `begin` from it on.
    begins: Vec<usize>,
    n_queries: usize,
}

/// Queries and keys that have nothing to do with the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Island {
    pub queries: Range<usize>,
    pub keys: Range<usize>,
}

impl<'a> Mask<'a> {
    /// First query that sees key `j`, and one past the last; nothing where that is no query.
    fn interval(self, j: usize, n_queries: usize) -> Option<(usize, usize)> {
        let (begin, end) = (self.begin[j] as usize, (self.end[j] as usize).min(n_queries));
        (begin < end).then_some((begin, end))
    }
}

impl Bounds {
    pub(super) fn new(mask: Mask, n_queries: usize) -> Bounds {
        // f32 holds every integer up to here, and vectors compare the mask as f32
        assert!(n_queries <= 1 << 24, "{n_queries} queries in one batch; the mask counts up to {}", 1 << 24);
        let intervals = || (0..mask.begin.len()).map(|j| mask.interval(j, n_queries));
        let (mut largest, mut smallest) = (0, n_queries);
        let ends = intervals().map(|i| {
            largest = i.map_or(largest, |(_, end)| largest.max(end));
            largest
        });
        let ends = ends.collect();
        let begins = intervals().rev().map(|i| {
            smallest = i.map_or(smallest, |(begin, _)| smallest.min(begin));
            smallest
        });
        let mut begins: Vec<usize> = begins.collect();
        begins.reverse();
        Bounds { ends, begins, n_queries }
    }

    /// Keys outside of this range are seen by none of `queries`.
    fn keys(&self, queries: &Range<usize>) -> Range<usize> {
        let first = self.ends.partition_point(|&end| end <= queries.start);
        let end = self.begins.partition_point(|&begin| begin < queries.end);
        first..end.max(first)
    }

    /// Cuts queries and keys where no interval crosses, into pieces of at least [`TILE`] queries if they allow it.
    pub(super) fn islands(&self) -> Vec<Island> {
        let n_keys = self.ends.len();
        let (mut islands, mut query, mut key) = (Vec::new(), 0, 0);
        for j in 1..n_keys {
            let cut = self.begins[j];
            if self.ends[j - 1] <= cut && cut >= query + TILE {
                islands.push(Island { queries: query..cut, keys: key..j });
                (query, key) = (cut, j);
            }
        }
        islands.push(Island { queries: query..self.n_queries, keys: key..n_keys });
        islands
    }

    /// Tiles of `queries`, in chunks of up to `most` tiles.
    pub(super) fn chunks(&self, mask: Mask, queries: Range<usize>, most: usize) -> Vec<Vec<Range<usize>>> {
        let mut last_seen = vec![false; self.n_queries + 1];
        for j in self.keys(&queries) {
            if let Some((_, end)) = mask.interval(j, self.n_queries) {
                last_seen[end] = true;
            }
        }
        last_seen[queries.end] = true;
        let mut chunks: Vec<Vec<Range<usize>>> = Vec::new();
        let mut first = queries.start;
        while first < queries.end {
            let tile = first..tile_end(&last_seen[..=queries.end], first);
            first = tile.end;
            match chunks.last_mut() {
                Some(chunk) if chunk.len() < most && self.have_common(mask, &chunk[0], &tile) => {
                    chunk.push(tile);
                }
                _ => chunks.push(vec![tile]),
            }
        }
        chunks
    }

    /// Whether there are [`COMMON`] keys that all of two tiles see.
    fn have_common(&self, mask: Mask, first: &Range<usize>, last: &Range<usize>) -> bool {
        let all_see = |&j: &usize| mask.begin[j] as usize <= first.start && mask.end[j] as usize >= last.end;
        self.keys(&(first.start..last.end)).filter(all_see).nth(COMMON - 1).is_some()
    }

    /// The keys that some of `queries` see.
    pub(super) fn seen_keys(&self, mask: Mask, queries: &Range<usize>, seen: &mut Vec<u32>) {
        seen.clear();
        let sees = |&j: &usize| {
            let interval = mask.interval(j, self.n_queries);
            interval.is_some_and(|(begin, end)| begin < queries.end && end > queries.start)
        };
        seen.extend(self.keys(queries).filter(sees).map(|j| j as u32));
    }
}

/// Where the tile that begins at `first` ends: at the last place within reach where keys are seen for the last time.
/// If there is none, the queries up to the next such place are shared out evenly.
fn tile_end(last_seen: &[bool], first: usize) -> usize {
    let n = last_seen.len() - 1;
    let reach = (first + SMALL_TILE).min(n)..=(first + TILE).min(n);
    if let Some(end) = reach.rev().find(|&i| last_seen[i]) {
        return end;
    }
    let next = (first + TILE..=n).find(|&i| last_seen[i]).unwrap_or(n);
    let n_tiles = (next - first).div_ceil(TILE);
    first + (next - first).div_ceil(n_tiles).next_multiple_of(8)
}

/// Up to [`KEYS`] keys that some query of a chunk sees, with the mask as f32, which vectors compare.
pub(super) struct Block {
    /// Where its keys lie in the list of the chunk.
    pub keys: Range<usize>,
    /// Beyond the last key: seen by nobody.
    pub begin: [f32; KEYS],
    pub end: [f32; KEYS],
}

/// Which keys of a block each query of a tile sees: those in `from[i]..to[i]` and no others, maybe not all of them.
pub(super) struct View {
    pub from: [u8; TILE],
    pub to: [u8; TILE],
}

impl Block {
    pub(super) fn new(mask: Mask, list: &[u32], keys: Range<usize>) -> Block {
        let mut block = Block { begin: [f32::INFINITY; KEYS], end: [0.0; KEYS], keys };
        for (i, &j) in list[block.keys.clone()].iter().enumerate() {
            (block.begin[i], block.end[i]) = (mask.begin[j as usize] as f32, mask.end[j as usize] as f32);
        }
        block
    }

    pub(super) fn view(&self, tile: &Range<usize>) -> View {
        let mut view = View { from: [0; TILE], to: [0; TILE] };
        for (i, query) in tile.clone().enumerate() {
            let sees = |&j: &usize| self.seen(query, j);
            let Some(first) = (0..self.keys.len()).find(sees) else { continue };
            let last = (first..self.keys.len()).rfind(sees).unwrap_or(first);
            (view.from[i], view.to[i]) = (first as u8, last as u8 + 1);
        }
        view
    }

    /// Whether the query sees key `j` of the block.
    #[inline(always)]
    pub(super) fn seen(&self, query: usize, j: usize) -> bool {
        self.begin[j] <= query as f32 && (query as f32) < self.end[j]
    }

    /// Whether each of `queries` sees each of `keys`.
    #[inline(always)]
    pub(super) fn all_see(&self, queries: &Range<usize>, keys: Range<usize>) -> bool {
        let (first, last) = (queries.start as f32, queries.end as f32);
        let mut all = true;
        for j in keys {
            all &= self.begin[j] <= first && self.end[j] >= last;
        }
        all
    }

    /// The part of a tile that sees one of `keys` lies in here, counted from the first of the tile.
    #[inline(always)]
    pub(super) fn seeing(&self, tile: &Range<usize>, keys: Range<usize>) -> Range<usize> {
        let (mut first, mut end) = (f32::INFINITY, 0f32);
        for j in keys {
            first = first.min(self.begin[j]);
            end = end.max(self.end[j]);
        }
        let within = |query: f32| (query as usize).clamp(tile.start, tile.end) - tile.start;
        within(first)..within(end)
    }
}

impl View {
    /// The keys that `queries` of the tile see lie in here. Empty if they see none.
    #[inline(always)]
    pub(super) fn keys_of(&self, queries: Range<usize>) -> Range<usize> {
        let (mut from, mut to) = (u8::MAX, 0);
        for i in queries {
            if self.from[i] < self.to[i] {
                from = from.min(self.from[i]);
                to = to.max(self.to[i]);
            }
        }
        usize::from(from.min(to))..usize::from(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    /// Rows of random lengths after a prefix: `(begin, end)` of each key.
    fn forest(rng: &mut Rng) -> (Vec<u32>, Vec<u32>) {
        let shared = rng.below(2) * rng.below(400);
        let mut end = vec![0; shared];
        for _ in 0..1 + rng.below(20) {
            let len = 1 + rng.below(80);
            end.extend(vec![(end.len() + len) as u32; len]);
        }
        let n = end.len() as u32;
        end[..shared].fill(n);
        ((0..n).collect(), end)
    }

    #[test]
    fn tiles_cover_the_queries_and_views_the_visible_pairs() {
        for seed in 0..200 {
            let (begin, end) = forest(&mut Rng(seed));
            let (mask, n) = (Mask { begin: &begin, end: &end }, begin.len());
            let bounds = Bounds::new(mask, n);
            let mut next = 0;
            for tiles in bounds.chunks(mask, 0..n, 4) {
                assert!(tiles.len() <= 4);
                let mut keys = Vec::new();
                bounds.seen_keys(mask, &(tiles[0].start..tiles[tiles.len() - 1].end), &mut keys);
                for tile in tiles {
                    assert!(tile.start == next && !tile.is_empty() && tile.len() <= TILE, "{tile:?}");
                    next = tile.end;
                    assert_eq!(visible_in_views(mask, &keys, &tile), visible(mask, &tile));
                }
            }
            assert_eq!(next, n);
        }
    }

    fn sees(mask: Mask, query: usize, key: usize) -> bool {
        (mask.begin[key] as usize..mask.end[key] as usize).contains(&query)
    }

    fn visible(mask: Mask, tile: &Range<usize>) -> usize {
        tile.clone().map(|i| (0..mask.begin.len()).filter(|&j| sees(mask, i, j)).count()).sum()
    }

    /// Visible pairs in the ranges of the views; checks that the ranges are as small as can be.
    fn visible_in_views(mask: Mask, keys: &[u32], tile: &Range<usize>) -> usize {
        let mut pairs = 0;
        for first in (0..keys.len()).step_by(KEYS) {
            let block = Block::new(mask, keys, first..(first + KEYS).min(keys.len()));
            let view = block.view(tile);
            for (i, query) in tile.clone().enumerate() {
                let range = view.keys_of(i..i + 1);
                let seen: Vec<usize> =
                    range.clone().filter(|&j| sees(mask, query, keys[first + j] as usize)).collect();
                assert!(range.is_empty() || (seen[0], seen[seen.len() - 1]) == (range.start, range.end - 1));
                pairs += seen.len();
            }
        }
        pairs
    }

    #[test]
    fn tiles_end_with_sequences() {
        // 45 tokens each, after nothing; then one long sequence
        let end: Vec<u32> = (0..90).map(|j| (j / 45 + 1) * 45).chain((90..200).map(|_| 200)).collect();
        let begin: Vec<u32> = (0..200).collect();
        let mask = Mask { begin: &begin, end: &end };
        let bounds = Bounds::new(mask, 200);
        let tiles: Vec<_> = bounds.chunks(mask, 0..200, 8).into_iter().flatten().collect();
        assert_eq!(tiles, [0..45, 45..90, 90..130, 130..170, 170..200]);
    }

    #[test]
    fn islands_are_cut_where_no_interval_crosses() {
        // two sequences of 60, one key that nobody sees, and two sequences too short to stand alone
        let mut end: Vec<u32> = (0..120).map(|j| (j / 60 + 1) * 60).collect();
        let mut begin: Vec<u32> = (0..120).collect();
        begin.push(500);
        end.push(3);
        for first in [120, 130] {
            begin.extend(first..first + 10);
            end.extend([first + 10; 10]);
        }
        let bounds = Bounds::new(Mask { begin: &begin, end: &end }, 140);
        let island = |queries, keys| Island { queries, keys };
        assert_eq!(
            bounds.islands(),
            [island(0..60, 0..60), island(60..120, 60..120), island(120..140, 120..141)]
        );
    }
}
