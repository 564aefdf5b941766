//! What the runs of a study say: groups of runs, differences between them, and sentences.

mod bias;
mod compare;
mod condition;
mod findings;
mod table;

use serde::Serialize;

pub use self::compare::{Comparison, Orders};
pub use self::condition::{Condition, Factor};
use super::Study;
use super::statistics::{self, Baselines, Estimate, Outcomes, Spread};
use crate::text_table::{aligned, is_number};

/// Runs that differ in seed and order alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// What they share.
    pub condition: Condition,
    /// Indices of the runs.
    pub runs: Vec<usize>,
    /// Accuracy of the runs.
    pub accuracy: Spread,
    /// Macro F1 of the runs.
    pub macro_f1: Spread,
    /// Loss of the runs.
    pub loss: Spread,
    /// Expected calibration error of the runs.
    pub ece: Spread,
    /// The most accurate run.
    pub best: usize,
    /// The least accurate run.
    pub worst: usize,
    /// Runs with fewer demonstrations than asked for.
    pub shortened: usize,
    /// How much more often the label of the last demonstration is predicted than it is right.
    pub recency_bias: Option<Estimate>,
    /// The same for the commonest label of the demonstrations; of rows where one is strictly the commonest.
    pub majority_bias: Option<Estimate>,
    /// The same for each label.
    pub label_bias: Vec<f64>,
}

impl Group {
    fn of(study: &Study, condition: Condition) -> Group {
        let belongs = |&i: &usize| Condition::of(&study.runs[i]) == condition;
        let runs: Vec<usize> = (0..study.runs.len()).filter(belongs).collect();
        let spread = |value: &dyn Fn(usize) -> f64| {
            let values: Vec<f64> = runs.iter().map(|&run| value(run)).collect();
            Spread::of(&values).expect("a condition is that of a run")
        };
        let metrics = |run: usize| &study.runs[run].metrics;
        let (best, worst) = compare::extremes(study, &runs);
        let estimate = |outcomes: Outcomes| statistics::mean(&outcomes, compare::SEED);
        let shortened = |&&run: &&usize| study.runs[run].shots < study.runs[run].requested_shots;
        let of_label = |label| bias::of_label(study, &runs, label).map_or(f64::NAN, |bias| bias.mean());
        Group {
            accuracy: spread(&|run| metrics(run).accuracy),
            macro_f1: spread(&|run| metrics(run).macro_f1),
            loss: spread(&|run| metrics(run).loss),
            ece: spread(&|run| metrics(run).ece),
            best,
            worst,
            shortened: runs.iter().filter(shortened).count(),
            recency_bias: bias::recency(study, &runs).map(estimate),
            majority_bias: bias::majority(study, &runs).map(estimate),
            label_bias: (0..study.labels.len()).map(of_label).collect(),
            condition,
            runs,
        }
    }

    fn right(&self, study: &Study) -> Outcomes {
        let mut right = Outcomes::new(study.n());
        for run in self.runs.iter().map(|&run| &study.runs[run]) {
            right.add(run.seed, study.right(run).map(|right| Some(f64::from(right))));
        }
        right
    }
}

/// What the runs of a study say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Accuracies without a model.
    pub baselines: Baselines,
    /// Templates in the order in which they came, shots from few to many.
    pub groups: Vec<Group>,
    /// Index of the group of the highest mean accuracy; the first of equals.
    pub best: usize,
    /// Groups against zero-shot, uncalibrated, and the first template or choice.
    pub comparisons: Vec<Comparison>,
    /// The orders of each choice of demonstrations.
    pub orders: Vec<Orders>,
    /// In sentences.
    pub findings: Vec<String>,
    /// Factors in which conditions differ.
    pub varying: Vec<Factor>,
}

impl Summary {
    /// Panics for a study that [`Study::check`] refuses.
    pub fn of(study: &Study) -> Summary {
        let groups: Vec<Group> =
            condition::conditions(study).into_iter().map(|condition| Group::of(study, condition)).collect();
        let mean = |group: usize| groups[group].accuracy.mean;
        let better = |best: usize, group| if mean(group) > mean(best) { group } else { best };
        let mut summary = Summary {
            baselines: Baselines::of(&study.gold, study.labels.len()),
            best: (0..groups.len()).fold(0, better),
            comparisons: compare::comparisons(study, &groups),
            orders: compare::orders(study, &groups),
            findings: Vec::new(),
            varying: condition::varying(groups.iter().map(|group| &group.condition)),
            groups,
        };
        summary.findings = findings::findings(study, &summary);
        summary
    }

    /// The groups as a table for a terminal, one line each.
    pub fn table(&self) -> String {
        let rows = self.cells();
        aligned(&self.columns(), &rows, |column| is_number(&rows, column))
    }

    /// Name of a group by what it has for itself.
    pub fn name(&self, group: usize) -> String {
        self.groups[group].condition.name(&self.varying)
    }

    /// What a comparison is about: the group by its factor, the reference by its, and what both share.
    pub fn names(&self, comparison: &Comparison) -> [String; 3] {
        let [group, reference] = [comparison.group, comparison.reference].map(|i| &self.groups[i].condition);
        let others: Vec<Factor> = self.varying.iter().copied().filter(|&f| f != comparison.factor).collect();
        [group.phrase(comparison.factor), reference.phrase(comparison.factor), group.name(&others)]
    }

    /// A comparison in one sentence.
    pub fn sentence(&self, comparison: &Comparison) -> String {
        findings::sentence(self, comparison)
    }
}

#[cfg(test)]
mod tests;
