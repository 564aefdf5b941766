//! Telling a difference from noise.
//!
//! Two things vary in a study: the rows that happen to be in the file, and the seeds that happen to choose the
//! demonstrations. An interval that ignores one of them is too narrow, so the bootstrap draws both.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::rng::Rng;

/// Some numbers in five.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// How many.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Standard deviation of the sample (`n - 1`); of one number there is none.
    pub sd: Option<f64>,
    /// Least.
    pub min: f64,
    /// Middle one, or the mean of the two.
    pub median: f64,
    /// Greatest.
    pub max: f64,
}

impl Spread {
    /// `None` for no numbers.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let mean = sorted.iter().sum::<f64>() / n as f64;
        let squares: f64 = sorted.iter().map(|x| (x - mean).powi(2)).sum();
        let sd = (n > 1).then(|| (squares / (n as f64 - 1.0)).sqrt());
        let median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
        Some(Spread { n, mean, sd, min, median, max })
    }
}

/// The score interval of a share, `k` of `n`, at 95 % (Wilson 1927). Never leaves `[0, 1]`.
pub fn wilson(k: usize, n: usize) -> [f64; 2] {
    const Z: f64 = 1.959_963_984_540_054;
    let (n, p) = (n as f64, k as f64 / n as f64);
    let centre = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0)]
}

/// McNemar's exact test of two runs over the same rows: the two-sided probability that rows where only one of them is
/// right are shared out as unevenly by fair coins.
///
/// ```text
/// p = min(1, 2 Σ_{i ≤ min(b, c)} C(b + c, i) / 2^(b + c))      b, c  rows where only one is right
/// ```
pub fn mcnemar(pairs: impl Iterator<Item = (bool, bool)>) -> f64 {
    let (mut b, mut c) = (0u64, 0u64);
    for (first, second) in pairs {
        b += u64::from(first && !second);
        c += u64::from(second && !first);
    }
    let n = b + c;
    // ln of a term of the sum: 2^-n alone underflows from n = 1075 on
    let mut term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for i in 0..=b.min(c) {
        sum += term.exp();
        term += ((n - i) as f64 / (i + 1) as f64).ln();
    }
    (2.0 * sum).min(1.0)
}

/// Accuracies without a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Baselines {
    /// The commonest label; the first of equals.
    pub majority_label: usize,
    /// Of always answering it.
    pub majority: f64,
    /// Of drawing a label, all alike.
    pub uniform: f64,
    /// Of drawing a label as often as it is right: the sum of the squared shares.
    pub prior: f64,
}

impl Baselines {
    /// Of rows with these labels. Panics without rows or labels.
    pub fn of(gold: &[usize], n_labels: usize) -> Baselines {
        let mut counts = vec![0usize; n_labels];
        gold.iter().for_each(|&label| counts[label] += 1);
        let share = |label: usize| counts[label] as f64 / gold.len() as f64;
        let better = |best: usize, label| if counts[label] > counts[best] { label } else { best };
        let majority_label = (0..n_labels).fold(0, better);
        Baselines {
            majority_label,
            majority: share(majority_label),
            uniform: 1.0 / n_labels as f64,
            prior: (0..n_labels).map(|label| share(label).powi(2)).sum(),
        }
    }
}

/// A number with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// On the data at hand.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Estimate {
    /// Whether 0 is not outside of the interval.
    pub fn is_noise(&self) -> bool {
        !(self.low > 0.0 || self.high < 0.0)
    }
}

/// A number for each row of each run, as 1 where it is right; runs of one seed share their demonstrations and are drawn
/// together.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcomes {
    n_rows: usize,
    seeds: BTreeMap<u64, Vec<Tally>>,
}

/// Of one row, over the runs of a seed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    sum: f64,
    count: f64,
}

/// Draws of the bootstrap.
const DRAWS: usize = 1000;

impl Outcomes {
    /// Nothing yet, for runs over so many rows.
    pub fn new(n_rows: usize) -> Outcomes {
        Outcomes { n_rows, seeds: BTreeMap::new() }
    }

    /// A run; `None` for a row that does not count. Panics when rows are missing.
    pub fn add(&mut self, seed: u64, rows: impl Iterator<Item = Option<f64>>) {
        let tallies = self.seeds.entry(seed).or_insert_with(|| vec![Tally::default(); self.n_rows]);
        let mut n = 0;
        for (i, value) in rows.enumerate() {
            n += 1;
            tallies[i].sum += value.unwrap_or(0.0);
            tallies[i].count += f64::from(value.is_some());
        }
        assert_eq!(n, self.n_rows, "a value for each row");
    }

    /// Over all runs and rows; NaN for none.
    pub fn mean(&self) -> f64 {
        let seeds: Vec<usize> = (0..self.seeds.len()).collect();
        let rows: Vec<usize> = (0..self.n_rows).collect();
        self.mean_of(&seeds, &rows)
    }

    fn mean_of(&self, seeds: &[usize], rows: &[usize]) -> f64 {
        let all: Vec<&Vec<Tally>> = self.seeds.values().collect();
        let (mut sum, mut count) = (0.0, 0.0);
        for tallies in seeds.iter().map(|&i| all[i]) {
            for tally in rows.iter().map(|&row| tallies[row]) {
                sum += tally.sum;
                count += tally.count;
            }
        }
        sum / count
    }
}

/// `mean(a) - mean(b)` with the percentile interval of 1000 bootstrap draws (Efron 1979).
///
/// Each draw takes rows with replacement, the same for both, and seeds with replacement: the same for both where both
/// have the same seeds (the runs are then pairs), of each its own otherwise. With few seeds the interval is somewhat too
/// narrow, with one it says nothing about others. Panics when the numbers of rows differ.
pub fn difference(a: &Outcomes, b: &Outcomes, seed: u64) -> Estimate {
    assert_eq!(a.n_rows, b.n_rows, "the same rows");
    let is_paired = a.seeds.keys().eq(b.seeds.keys());
    estimate(a.mean() - b.mean(), seed, |rng| {
        let rows = draw(rng, a.n_rows);
        let seeds_a = draw(rng, a.seeds.len());
        let seeds_b = if is_paired { seeds_a.clone() } else { draw(rng, b.seeds.len()) };
        a.mean_of(&seeds_a, &rows) - b.mean_of(&seeds_b, &rows)
    })
}

/// `mean(a)` with its interval, as in [`difference`].
pub fn mean(a: &Outcomes, seed: u64) -> Estimate {
    estimate(a.mean(), seed, |rng| {
        let rows = draw(rng, a.n_rows);
        a.mean_of(&draw(rng, a.seeds.len()), &rows)
    })
}

/// As many of `0..n`, with replacement.
fn draw(rng: &mut Rng, n: usize) -> Vec<usize> {
    (0..n).map(|_| rng.below(n)).collect()
}

fn estimate(value: f64, seed: u64, mut sample: impl FnMut(&mut Rng) -> f64) -> Estimate {
    let mut rng = Rng::new(seed);
    // a draw in which no row counts has no mean
    let mut draws: Vec<f64> = (0..DRAWS).map(|_| sample(&mut rng)).filter(|x| !x.is_nan()).collect();
    draws.sort_by(f64::total_cmp);
    let at = |share: f64| draws.get((share * draws.len() as f64) as usize).copied().unwrap_or(f64::NAN);
    Estimate { value, low: at(0.025), high: at(0.975) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance, "{a} {b}");
    }

    #[test]
    fn spread_by_hand() {
        let spread = Spread::of(&[4.0, 1.0, 2.0, 5.0]).unwrap();
        assert_eq!((spread.n, spread.mean, spread.min, spread.median, spread.max), (4, 3.0, 1.0, 3.0, 5.0));
        // squared distances 1 + 4 + 1 + 4, by 3
        close(spread.sd.unwrap(), (10.0f64 / 3.0).sqrt(), 1e-12);
        let one = Spread::of(&[0.5]).unwrap();
        assert_eq!((one.sd, one.median), (None, 0.5));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn wilson_as_published() {
        // Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
        for (k, n, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let [a, b] = wilson(k, n);
            close(a, low, 5e-5);
            close(b, high, 5e-5);
        }
        assert_eq!(wilson(7, 7)[1], 1.0);
    }

    fn split(b: usize, c: usize) -> f64 {
        let only = |n: usize, pair| std::iter::repeat_n(pair, n);
        mcnemar(only(b, (true, false)).chain(only(c, (false, true))).chain(only(9, (true, true))))
    }

    #[test]
    fn mcnemar_by_hand() {
        // 2 (1 + 6) / 64
        close(split(1, 5), 14.0 / 64.0, 1e-12);
        close(split(5, 1), 14.0 / 64.0, 1e-12);
        // 2 (1 + 10 + 45) / 1024
        close(split(8, 2), 112.0 / 1024.0, 1e-12);
        assert_eq!((split(0, 0), split(3, 3)), (1.0, 1.0));
        // too many for 2^-n; the normal approximation gives 8.6e-6
        let many = split(1100, 900);
        assert!(many > 5e-6 && many < 2e-5, "{many}");
    }

    #[test]
    fn baselines_by_hand() {
        let baselines = Baselines::of(&[1, 1, 2, 0, 1], 4);
        assert_eq!((baselines.majority_label, baselines.majority, baselines.uniform), (1, 0.6, 0.25));
        close(baselines.prior, 0.04 + 0.36 + 0.04, 1e-12);
    }

    fn outcomes(runs: &[(u64, &[f64])]) -> Outcomes {
        let mut all = Outcomes::new(runs[0].1.len());
        runs.iter().for_each(|(seed, rows)| all.add(*seed, rows.iter().map(|&x| Some(x))));
        all
    }

    #[test]
    fn means_by_hand() {
        let all = outcomes(&[(1, &[1.0, 0.0]), (1, &[1.0, 0.0]), (2, &[1.0, 1.0])]);
        close(all.mean(), 4.0 / 6.0, 1e-12);
        let mut some = Outcomes::new(3);
        some.add(1, [Some(1.0), None, Some(0.0)].into_iter());
        assert_eq!(some.mean(), 0.5);
        assert!(Outcomes::new(3).mean().is_nan());
    }

    #[test]
    fn the_interval_of_a_share_is_that_of_the_binomial() {
        let rows: Vec<f64> = (0..400).map(|i| f64::from(i % 4 == 0)).collect();
        let estimate = mean(&outcomes(&[(0, &rows)]), 1);
        // 1.96 sqrt(0.25 · 0.75 / 400) = 0.0424; 1000 draws know an end to about a tenth of that
        close(estimate.value, 0.25, 1e-12);
        close(estimate.low, 0.25 - 0.0424, 0.006);
        close(estimate.high, 0.25 + 0.0424, 0.006);
    }

    #[test]
    fn seeds_widen_the_interval() {
        let (good, bad) = ([1.0; 50], [0.0; 50]);
        let estimate = mean(&outcomes(&[(1, &good), (2, &bad), (3, &good), (4, &bad)]), 1);
        // the rows of a run are all alike: only seeds vary, and all good or all bad come once in 16 draws
        assert_eq!((estimate.value, estimate.low, estimate.high), (0.5, 0.0, 1.0));
    }

    #[test]
    fn pairs_cancel_what_they_share() {
        let rows: Vec<f64> = (0..100).map(|i| f64::from(i % 2 == 0)).collect();
        let same = outcomes(&[(1, &rows), (2, &[1.0; 100])]);
        let estimate = difference(&same, &same, 3);
        assert_eq!((estimate.value, estimate.low, estimate.high), (0.0, 0.0, 0.0));
        assert!(estimate.is_noise());
        // other seeds: no pairs, so the seeds no longer cancel
        let other = outcomes(&[(3, &rows), (4, &[1.0; 100])]);
        let estimate = difference(&same, &other, 3);
        assert!(estimate.low < -0.3 && estimate.high > 0.3, "{estimate:?}");
        assert!(!difference(&outcomes(&[(0, &[1.0; 9])]), &outcomes(&[(0, &[0.0; 9])]), 1).is_noise());
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let rows: Vec<f64> = (0..50).map(|i| f64::from(i).sqrt()).collect();
        let all = outcomes(&[(0, &rows)]);
        assert_eq!(mean(&all, 7), mean(&all, 7));
        assert_ne!(mean(&all, 7), mean(&all, 8));
    }
}
