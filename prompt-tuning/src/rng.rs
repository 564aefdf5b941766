//! Random numbers that can be written to a checkpoint and continued: a counter-based generator.
//!
//! The i-th number of a generator is `mix(key + i * golden)`, SplitMix64's output function (Steele, Lea & Flood 2014)
//! of a counter. Its state is two integers, and [`Rng::fork`] gives independent generators for numbered purposes
//! (epochs, for instance) without drawing anything.

use serde::{Deserialize, Serialize};

/// A deterministic generator. The same seed gives the same numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rng {
    /// Which sequence.
    pub key: u64,
    /// How many numbers of it were drawn.
    pub counter: u64,
}

/// 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Rng {
        // mixed, so that the sequences of neighbouring seeds are not shifts of each other
        Rng { key: mix(seed.wrapping_add(GOLDEN)), counter: 0 }
    }

    /// The generator of purpose `stream`: independent of this one and of what was drawn from it.
    pub fn fork(&self, stream: u64) -> Rng {
        Rng { key: mix(self.key ^ mix(stream.wrapping_mul(GOLDEN).wrapping_add(1))), counter: 0 }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        mix(self.key.wrapping_add(self.counter.wrapping_mul(GOLDEN)))
    }

    /// Uniform in `0..n`, without bias (Lemire 2019). Panics when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "there is no number below 0");
        let n = n as u64;
        let rejected = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= rejected {
                return (product >> 64) as usize;
            }
        }
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Mean 0, variance 1 (Box & Muller 1958; the second number of the pair is not kept, so the state stays small).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// All orders equally likely (Fisher & Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// `k` numbers of `0..n`, none twice before every one was drawn once.
    pub fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut drawn = Vec::with_capacity(k);
        while drawn.len() < k {
            let mut all: Vec<usize> = (0..n).collect();
            self.shuffle(&mut all);
            drawn.extend(all.into_iter().take(k - drawn.len()));
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // SplitMix64 with state 0, as published (Vigna's splitmix64.c)
        let mut rng = Rng { key: 0, counter: 0 };
        assert_eq!(rng.next_u64(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(rng.next_u64(), 0x6E78_9E6A_A1B9_65F4);
        assert_eq!(rng.next_u64(), 0x06C4_5D18_8009_454F);
    }

    #[test]
    fn a_saved_state_continues() {
        let mut rng = Rng::new(3);
        rng.normal();
        let text = serde_json::to_string(&rng).unwrap();
        let mut again: Rng = serde_json::from_str(&text).unwrap();
        assert_eq!(rng.next_u64(), again.next_u64());
    }

    #[test]
    fn forks_do_not_depend_on_what_was_drawn_and_differ() {
        let mut rng = Rng::new(3);
        let fork = rng.fork(1);
        rng.next_u64();
        assert_eq!(fork, rng.fork(1));
        let firsts: std::collections::HashSet<u64> = (0..1000).map(|i| rng.fork(i).next_u64()).collect();
        assert_eq!(firsts.len(), 1000);
        assert_ne!(Rng::new(0).next_u64(), Rng::new(1).next_u64());
    }

    #[test]
    fn moments() {
        let mut rng = Rng::new(11);
        let n = 100_000;
        let moments = |xs: &[f64]| {
            let mean = xs.iter().sum::<f64>() / n as f64;
            (mean, xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64)
        };
        // bounds are five standard errors
        let (mean, var) = moments(&(0..n).map(|_| rng.normal()).collect::<Vec<_>>());
        assert!(mean.abs() < 0.016 && (var - 1.0).abs() < 0.023, "{mean} {var}");
        let (mean, var) = moments(&(0..n).map(|_| rng.uniform()).collect::<Vec<_>>());
        assert!((mean - 0.5).abs() < 0.0046 && (var - 1.0 / 12.0).abs() < 0.0013, "{mean} {var}");
    }

    #[test]
    fn every_order_and_number_is_equally_likely() {
        let mut rng = Rng::new(5);
        let mut orders = std::collections::BTreeMap::new();
        let mut counts = [0u32; 7];
        for _ in 0..60_000 {
            let mut items = [0, 1, 2];
            rng.shuffle(&mut items);
            *orders.entry(items).or_insert(0u32) += 1;
            counts[rng.below(7)] += 1;
        }
        assert_eq!(orders.len(), 6);
        assert!(orders.values().all(|&c| c.abs_diff(10_000) < 500), "{orders:?}");
        assert!(counts.iter().all(|&c| c.abs_diff(60_000 / 7) < 450), "{counts:?}");
    }

    #[test]
    fn samples_are_without_replacement_until_all_were_drawn() {
        let mut drawn = Rng::new(1).sample(10, 25);
        drawn[..10].sort_unstable();
        drawn[10..20].sort_unstable();
        let all: Vec<usize> = (0..10).collect();
        assert_eq!((&drawn[..10], &drawn[10..20], drawn.len()), (&all[..], &all[..], 25));
    }
}
