//! What a label gets for where it stands among the demonstrations, or for its name.
//!
//! ```text
//! bias = share of rows where the label is predicted - share of rows where it is right
//! ```
//! for the label of the last demonstration (recency) or the commonest label among them (majority). Source: Zhao et al.
//! 2021.

use crate::study::statistics::Outcomes;
use crate::study::{Run, Study};

/// Over the rows of these runs that have a last demonstration.
pub(super) fn recency(study: &Study, runs: &[usize]) -> Option<Outcomes> {
    outcomes(study, runs, |run, i| run.demonstration_labels.of_row(i).last().copied())
}

/// Over the rows of these runs where one label is strictly the commonest.
pub(super) fn majority(study: &Study, runs: &[usize]) -> Option<Outcomes> {
    outcomes(study, runs, |run, i| commonest(run.demonstration_labels.of_row(i), study.labels.len()))
}

/// Of one label, over all rows.
pub(super) fn of_label(study: &Study, runs: &[usize], label: usize) -> Option<Outcomes> {
    outcomes(study, runs, |_, _| Some(label))
}

/// `None` where no row has a label to look at.
fn outcomes(study: &Study, runs: &[usize], label: impl Fn(&Run, usize) -> Option<usize>) -> Option<Outcomes> {
    let mut all = Outcomes::new(study.n());
    for run in runs.iter().map(|&run| &study.runs[run]) {
        let of_row = |i: usize| {
            let label = label(run, i)?;
            Some(f64::from(run.predicted[i] == label) - f64::from(study.gold[i] == label))
        };
        all.add(run.seed, (0..study.n()).map(of_row));
    }
    (!all.mean().is_nan()).then_some(all)
}

fn commonest(labels: &[usize], n_labels: usize) -> Option<usize> {
    let mut counts = vec![0usize; n_labels];
    labels.iter().for_each(|&label| counts[label] += 1);
    let most = counts.iter().copied().max().filter(|&most| most > 0)?;
    let mut those = (0..n_labels).filter(|&label| counts[label] == most);
    let first = those.next();
    if those.next().is_none() { first } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_strict_majority_counts() {
        assert_eq!(commonest(&[0, 1, 1], 3), Some(1));
        assert_eq!(commonest(&[0, 1, 1, 0, 2], 3), None);
        assert_eq!(commonest(&[], 3), None);
    }
}
