//! Groups against each other, and the orders of one choice of demonstrations.

use serde::Serialize;

use super::{Condition, Factor, Group};
use crate::study::Study;
use crate::study::statistics::{Estimate, Outcomes, difference, mcnemar};

/// Two groups that differ in one factor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The one.
    pub factor: Factor,
    /// Index of the group in question.
    pub group: usize,
    /// Index of what it is compared with: zero-shot, uncalibrated, or the first template or choice.
    pub reference: usize,
    /// Mean accuracy of the group minus that of the reference.
    pub difference: Estimate,
    /// [`mcnemar`], where both are one run.
    pub mcnemar: Option<f64>,
}

impl Comparison {
    /// Whether the difference may be chance.
    pub fn is_noise(&self) -> bool {
        self.mcnemar.map_or(self.difference.is_noise(), |p| p >= 0.05)
    }
}

pub(super) const SEED: u64 = 0;

/// Each group against its references.
pub(super) fn comparisons(study: &Study, groups: &[Group]) -> Vec<Comparison> {
    let right: Vec<Outcomes> = groups.iter().map(|group| group.right(study)).collect();
    let mut all = Vec::new();
    for factor in Factor::ALL {
        for (i, group) in groups.iter().enumerate() {
            let of = |other: &Group| is_reference(&group.condition, &other.condition, factor);
            let Some(reference) = groups.iter().position(of).filter(|&r| r != i) else { continue };
            all.push(Comparison {
                factor,
                group: i,
                reference,
                difference: difference(&right[i], &right[reference], SEED),
                mcnemar: of_single_runs(study, group, &groups[reference]),
            });
        }
    }
    all
}

/// The first of those that agree but for the factor is the reference, where it is not one of a kind.
fn is_reference(condition: &Condition, other: &Condition, factor: Factor) -> bool {
    let fits = match factor {
        Factor::Shots => other.shots == 0 && condition.shots > 0,
        Factor::Calibration => other.calibration == "none",
        Factor::Demonstrations => condition.shots > 0,
        Factor::Template => true,
    };
    fits && condition.agrees_but_for(other, factor)
}

fn of_single_runs(study: &Study, a: &Group, b: &Group) -> Option<f64> {
    match (&a.runs[..], &b.runs[..]) {
        (&[a], &[b]) => Some(test(study, a, b)),
        _ => None,
    }
}

fn test(study: &Study, a: usize, b: usize) -> f64 {
    mcnemar(study.right(&study.runs[a]).zip(study.right(&study.runs[b])))
}

/// The orders of one choice of demonstrations.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Orders {
    /// Index of the group.
    pub group: usize,
    /// Seed of the choice.
    pub seed: u64,
    /// How many were tried.
    pub n: usize,
    /// Run of the best.
    pub best: usize,
    /// Run of the worst.
    pub worst: usize,
    /// Accuracy of the best minus that of the worst.
    pub range: f64,
    /// [`mcnemar`] of best against worst times the number of pairs they are picked from (Bonferroni).
    pub p: f64,
}

/// Each seed of a group that has several orders.
pub(super) fn orders(study: &Study, groups: &[Group]) -> Vec<Orders> {
    let mut all = Vec::new();
    for (group, runs) in groups.iter().map(|group| &group.runs).enumerate() {
        let mut seeds: Vec<u64> = runs.iter().map(|&run| study.runs[run].seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        for seed in seeds {
            let of_seed: Vec<usize> =
                runs.iter().copied().filter(|&run| study.runs[run].seed == seed).collect();
            if of_seed.len() < 2 || groups[group].condition.shots < 2 {
                continue;
            }
            let (best, worst) = extremes(study, &of_seed);
            let accuracy = |run: usize| study.runs[run].metrics.accuracy;
            let pairs = of_seed.len() * (of_seed.len() - 1) / 2;
            all.push(Orders {
                group,
                seed,
                n: of_seed.len(),
                best,
                worst,
                range: accuracy(best) - accuracy(worst),
                p: (test(study, best, worst) * pairs as f64).min(1.0),
            });
        }
    }
    all
}

/// The first of the best runs and of the worst.
pub(super) fn extremes(study: &Study, runs: &[usize]) -> (usize, usize) {
    let accuracy = |run: usize| study.runs[run].metrics.accuracy;
    let best = runs.iter().copied().reduce(|a, b| if accuracy(b) > accuracy(a) { b } else { a });
    let worst = runs.iter().copied().reduce(|a, b| if accuracy(b) < accuracy(a) { b } else { a });
    (best.expect("a group has runs"), worst.expect("a group has runs"))
}
