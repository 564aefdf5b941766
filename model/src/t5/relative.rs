//! Relative positions of T5: how far a query is behind a key decides a bucket, and a bucket has a number per head.
//!
//! ```text
//! encoder   half of the buckets for keys behind the query, half for keys ahead; per half as follows
//! decoder   keys ahead are not seen; for the n others
//!   bucket = distance                                                                distance < n/2
//!          = n/2 + ⌊ln(distance / (n/2)) / ln(max_distance / (n/2)) · (n - n/2)⌋      else, at most n - 1
//! ```
//!
//! The logarithm is taken in f32 and cut off, as transformers does: in f64 some distances would change their bucket.
//! From `max_distance` on all distances share one bucket, so a table over `-max_distance..=max_distance` says everything.
//!
//! Source: Raffel et al. 2020, section 2.1.

use std::sync::Arc;

/// How distances become buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Rows of the table of weights.
    pub n: usize,
    /// The distance from which on all distances are one.
    pub max_distance: usize,
    /// Whether keys ahead of the query have buckets of their own (the encoder) or none (the decoder).
    pub bidirectional: bool,
}

impl Buckets {
    /// The bucket of a key at position `key - query`.
    pub fn of(self, relative: i64) -> usize {
        let n = if self.bidirectional { self.n / 2 } else { self.n };
        let first = if self.bidirectional && relative > 0 { n } else { 0 };
        let distance = if self.bidirectional { relative.abs() } else { (-relative).max(0) };
        let exact = n / 2;
        if distance < exact as i64 {
            return first + distance as usize;
        }
        let share =
            (distance as f32 / exact as f32).ln() / (self.max_distance as f64 / exact as f64).ln() as f32;
        first + (exact + (share * (n - exact) as f32) as usize).min(n - 1)
    }

    /// The bucket of each distance `query - key` from `-max_distance` to `max_distance`.
    pub(super) fn by_distance(self) -> Arc<[usize]> {
        let reach = self.max_distance as i64;
        (-reach..=reach).map(|behind| self.of(-behind)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against transformers, from -200 to 200.
    #[test]
    fn buckets_of_transformers() {
        let text = include_str!("../../tests/fixtures/t5-buckets.json");
        let cases: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
        assert_eq!(cases.len(), 6);
        for case in cases {
            let number = |key: &str| case[key].as_i64().unwrap();
            let buckets = Buckets {
                n: number("n") as usize,
                max_distance: number("max_distance") as usize,
                bidirectional: case["bidirectional"].as_bool().unwrap(),
            };
            let expected: Vec<usize> =
                case["buckets"].as_array().unwrap().iter().map(|b| b.as_u64().unwrap() as usize).collect();
            assert_eq!(expected.len(), 401);
            let actual: Vec<usize> = (0..401).map(|i| buckets.of(number("first") + i)).collect();
            assert_eq!(actual, expected, "{buckets:?}");
        }
    }

    #[test]
    fn a_table_says_everything() {
        let buckets = Buckets { n: 8, max_distance: 12, bidirectional: true };
        let table = buckets.by_distance();
        assert_eq!(table.len(), 25);
        for behind in -200i64..=200 {
            assert_eq!(table[(behind.clamp(-12, 12) + 12) as usize], buckets.of(-behind));
        }
    }
}
