//! From logits to the next token.
//!
//! ```text
//! p_i = softmax(logit_i / temperature)   over the top_k largest,   cut where the sum reaches top_p,   normalised again
//! ```
//!
//! Sources: Fan et al. 2018 (top-k), Holtzman et al. 2020 (top-p).

use std::cmp::Ordering;

use crate::{Error, Result};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token (of equal ones, that with the lowest id).
    pub temperature: f32,
    /// Only the `k` most likely tokens, if given.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that together reach this probability, if given.
    pub top_p: Option<f32>,
    /// Seed; every sequence has a stream of its own.
    pub seed: u64,
}

impl Sampling {
    /// Always the most likely token.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: None, top_p: None, seed: 0 };

    /// Whether the numbers are in their ranges.
    ///
    /// # Errors
    /// Names the one that is not.
    pub fn check(&self) -> Result<()> {
        let Sampling { temperature, top_k, top_p, .. } = *self;
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(Error::Option(format!(
                "temperature is {temperature}, but must be 0 (greedy) or more"
            )));
        }
        if top_k == Some(0) {
            return Err(Error::Option("top-k is 0, but must be 1 or more".into()));
        }
        match top_p.filter(|&p| !(p > 0.0 && p <= 1.0)) {
            Some(p) => Err(Error::Option(format!("top-p is {p}, but must be above 0 and at most 1"))),
            None => Ok(()),
        }
    }

    /// The random numbers of sequence `index`.
    pub(crate) fn stream(&self, index: usize) -> Stream {
        let mut seeds = Stream(self.seed);
        let key = seeds.next();
        Stream(key ^ Stream(index as u64).next())
    }

    /// The next token, or `None` when the logits are no distribution (NaN or infinity).
    pub(crate) fn choose(&self, logits: &[f32], random: &mut Stream) -> Option<u32> {
        if !logits.iter().all(|x| x.is_finite()) {
            return None;
        }
        if self.temperature == 0.0 {
            return (0..logits.len() as u32).min_by(|&a, &b| by_rank(logits, a, b));
        }
        let candidates = self.candidates(logits);
        let total: f64 = candidates.iter().map(|(_, p)| p).sum();
        let mut left = random.uniform() * total;
        let hit = candidates.iter().find(|(_, p)| {
            left -= p;
            left < 0.0
        });
        // rounding can leave a crumb of the sum
        hit.or(candidates.last()).map(|&(id, _)| id)
    }

    /// The tokens that may be drawn, the most likely first, with weights in proportion to their probabilities.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        if let Some(k) = self.top_k.filter(|&k| k < ids.len()) {
            ids.select_nth_unstable_by(k - 1, |&a, &b| by_rank(logits, a, b));
            ids.truncate(k);
        }
        ids.sort_unstable_by(|&a, &b| by_rank(logits, a, b));
        let of = |id: u32| f64::from(logits[id as usize]) / f64::from(self.temperature);
        let largest = ids.first().map_or(0.0, |&id| of(id));
        let mut weights: Vec<(u32, f64)> = ids.iter().map(|&id| (id, (of(id) - largest).exp())).collect();
        if let Some(p) = self.top_p {
            let enough = f64::from(p) * weights.iter().map(|(_, w)| w).sum::<f64>();
            let mut sum = 0.0;
            let kept = weights.iter().position(|(_, w)| {
                sum += w;
                sum >= enough
            });
            weights.truncate(kept.map_or(weights.len(), |last| last + 1));
        }
        weights
    }
}

/// Larger logits first, of equal ones the lower id.
fn by_rank(logits: &[f32], a: u32, b: u32) -> Ordering {
    logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b))
}

/// Random numbers of one sequence: SplitMix64 (Steele, Lea & Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::testing::{Tolerance, close};

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, -4.0];

    fn sampling(top_k: Option<usize>, top_p: Option<f32>) -> Sampling {
        Sampling { temperature: 0.8, top_k, top_p, seed: 7 }
    }

    #[test]
    fn greedy_takes_the_first_of_equals_and_refuses_nan() {
        let mut random = Sampling::GREEDY.stream(0);
        assert_eq!(Sampling::GREEDY.choose(&LOGITS, &mut random), Some(1));
        assert_eq!(Sampling::GREEDY.choose(&[0.0, f32::NAN], &mut random), None);
        assert_eq!(Sampling::GREEDY.choose(&[0.0, f32::INFINITY], &mut random), None);
    }

    #[test]
    fn frequencies_are_the_probabilities() {
        let mut random = sampling(None, None).stream(3);
        let mut counts = [0f64; 5];
        let n = 200_000;
        for _ in 0..n {
            counts[sampling(None, None).choose(&LOGITS, &mut random).unwrap() as usize] += 1.0 / f64::from(n);
        }
        let weights = LOGITS.map(|x| (f64::from(x) / 0.8).exp());
        let total: f64 = weights.iter().sum();
        // five standard deviations of a frequency
        close(&counts, &weights.map(|w| w / total), Tolerance { absolute: 0.006, relative: 0.0 }).unwrap();
    }

    #[test]
    fn top_k_and_top_p_keep_the_most_likely() {
        let ids = |s: Sampling| s.candidates(&LOGITS).iter().map(|&(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(sampling(None, None)), [1, 3, 2, 0, 4]);
        assert_eq!(ids(sampling(Some(3), None)), [1, 3, 2]);
        assert_eq!(ids(sampling(Some(99), None)), [1, 3, 2, 0, 4]);
        // the two threes have 0.418 each, the two has 0.120
        assert_eq!(ids(sampling(None, Some(0.4))), [1]);
        assert_eq!(ids(sampling(None, Some(0.5))), [1, 3]);
        assert_eq!(ids(sampling(None, Some(0.9))), [1, 3, 2]);
        assert_eq!(ids(sampling(None, Some(1.0))), [1, 3, 2, 0, 4]);
        assert_eq!(ids(sampling(Some(2), Some(0.5))), [1]);
    }

    #[test]
    fn streams_differ_and_bad_numbers_are_named() {
        let s = sampling(None, None);
        assert_ne!(s.stream(0).next(), s.stream(1).next());
        assert_eq!(s.stream(1).next(), s.stream(1).next());
        assert_ne!(Sampling { seed: 8, ..s }.stream(0).next(), s.stream(0).next());
        let why = |s: Sampling| s.check().unwrap_err().to_string();
        assert!(why(Sampling { temperature: -1.0, ..s }).contains("temperature is -1"));
        assert!(why(Sampling { temperature: f32::NAN, ..s }).contains("NaN"));
        assert!(why(Sampling { top_k: Some(0), ..s }).contains("top-k is 0"));
        assert!(why(Sampling { top_p: Some(1.5), ..s }).contains("top-p is 1.5"));
    }
}
