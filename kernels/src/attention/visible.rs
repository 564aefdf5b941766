//! Blocks of keys and who sees them: decides which tiles are computed and which of those need the mask.

use std::ops::Range;

use super::Mask;

/// Keys of a tile: a multiple of every vector, so that a row of scores has no ragged end.
pub(super) const KEYS: usize = 64;
/// Queries of a tile. With [`KEYS`] and a head of 64 the tile and its operands stay in the nearest caches.
pub(super) const QUERIES: usize = 32;

/// Up to [`KEYS`] consecutive keys.
pub(super) struct KeyBlock {
    /// Which keys.
    pub keys: Range<usize>,
    /// The queries that see at least one of the keys lie in here.
    pub some: Range<usize>,
    /// The queries in here see all [`KEYS`] keys. Empty for the last, incomplete block.
    pub all: Range<usize>,
    /// The mask as f32, which vectors compare. Keys beyond the last are seen by nobody.
    pub begin: [f32; KEYS],
    pub end: [f32; KEYS],
}

impl KeyBlock {
    fn new(mask: Mask, keys: Range<usize>, n_queries: usize) -> KeyBlock {
        let (begin, end) = (&mask.begin[keys.clone()], &mask.end[keys.clone()]);
        let intervals = || begin.iter().zip(end).map(|(&b, &e)| (b as usize, (e as usize).min(n_queries)));
        let seen = || intervals().filter(|(b, e)| b < e);
        let mut block = KeyBlock {
            some: seen().map(|(b, _)| b).min().unwrap_or(0)..seen().map(|(_, e)| e).max().unwrap_or(0),
            all: 0..0,
            begin: [f32::INFINITY; KEYS],
            end: [0.0; KEYS],
            keys,
        };
        for (j, (b, e)) in intervals().enumerate() {
            (block.begin[j], block.end[j]) = (b as f32, e as f32);
        }
        if block.keys.len() == KEYS {
            block.all = intervals().map(|(b, _)| b).max().unwrap_or(0)
                ..intervals().map(|(_, e)| e).min().unwrap_or(0);
        }
        block
    }

    /// The tiles of this block that hold a visible pair of one of `queries`.
    pub(super) fn tiles(&self, queries: Range<usize>) -> impl Iterator<Item = Tile> {
        let (first, end) = (self.some.start.max(queries.start), self.some.end.min(queries.end));
        let all = self.all.clone();
        (first..end.max(first)).step_by(QUERIES).map(move |i| {
            let queries = i..(i + QUERIES).min(end);
            Tile { masked: queries.start < all.start || queries.end > all.end, queries }
        })
    }
}

/// The queries that meet one block of keys.
pub(super) struct Tile {
    pub queries: Range<usize>,
    /// Whether some pair may be invisible.
    pub masked: bool,
}

/// All keys in blocks.
pub(super) fn key_blocks(mask: Mask, n_queries: usize) -> Vec<KeyBlock> {
    // f32 holds every integer up to here
    assert!(n_queries <= 1 << 24, "{n_queries} queries in one batch; the mask counts up to {}", 1 << 24);
    let n_keys = mask.begin.len();
    let blocks = (0..n_keys).step_by(KEYS);
    blocks.map(|first| KeyBlock::new(mask, first..(first + KEYS).min(n_keys), n_queries)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_visible_pairs_and_only_full_ones_are_unmasked() {
        let n = 200u32;
        // causal, with one key that nobody sees
        let begin: Vec<u32> = (0..n).map(|j| if j == 70 { n } else { j }).collect();
        let end: Vec<u32> = (0..n).map(|j| n.min(j + 100)).collect();
        let blocks = key_blocks(Mask { begin: &begin, end: &end }, n as usize);
        assert_eq!(blocks.len(), 4);
        for block in &blocks {
            let tiles: Vec<Tile> = block.tiles(0..n as usize).collect();
            for i in 0..n as usize {
                let sees = |j: usize| (begin[j] as usize) <= i && i < end[j] as usize;
                let visible = block.keys.clone().filter(|&j| sees(j)).count();
                let tile = tiles.iter().find(|t| t.queries.contains(&i));
                assert!(visible == 0 || tile.is_some());
                assert!(tile.is_none_or(|t| t.masked) || visible == KEYS);
            }
        }
        assert!(blocks[0].tiles(0..200).any(|t| !t.masked));
        assert!(blocks[0].tiles(164..200).next().is_none());
    }
}
