//! The drawings of the report. Each is left out where there is nothing to show.

mod bias;
mod orders;
mod reliability;
mod shots;
mod templates;

use super::summary::{Condition, Group, Summary};
use super::{Run, Study};
use crate::page::Figure;
use crate::page::svg::{Anchor, Svg};

/// All of them, in the order of the page.
pub(super) fn figures(study: &Study, summary: &Summary) -> Vec<Figure> {
    let view = View::new(study, summary);
    let all = [
        shots::figure(&view),
        orders::figure(&view),
        templates::figure(&view),
        bias::figure(&view),
        reliability::figure(&view),
    ];
    all.into_iter().flatten().collect()
}

/// What the drawings look at: calibrations are series, the best group says which template and demonstrations.
struct View<'a> {
    study: &'a Study,
    summary: &'a Summary,
    calibrations: Vec<&'a str>,
    family: Family<'a>,
}

/// Groups of one template and one way to pick demonstrations.
#[derive(Clone, Copy, PartialEq)]
struct Family<'a> {
    template: &'a str,
    choice: &'a str,
    ordering: &'a str,
}

impl<'a> Family<'a> {
    fn of(condition: &'a Condition) -> Family<'a> {
        Family { template: &condition.template, choice: &condition.choice, ordering: &condition.ordering }
    }

    /// Zero-shot groups have no demonstrations and belong to all families of their template.
    fn has(&self, condition: &Condition) -> bool {
        condition.template == self.template && self.picks(condition)
    }

    fn picks(&self, condition: &Condition) -> bool {
        condition.shots == 0 || (condition.choice == self.choice && condition.ordering == self.ordering)
    }

    fn name(&self) -> String {
        let parts = [self.choice, self.ordering].into_iter().filter(|part| !part.is_empty());
        let picked = parts.collect::<Vec<_>>().join(", order ");
        let template = format!("template {}", self.template);
        if picked.is_empty() { template } else { format!("{template}, demonstrations {picked}") }
    }
}

impl<'a> View<'a> {
    fn new(study: &'a Study, summary: &'a Summary) -> View<'a> {
        let mut calibrations: Vec<&str> = Vec::new();
        for group in &summary.groups {
            if !calibrations.contains(&group.condition.calibration.as_str()) {
                calibrations.push(&group.condition.calibration);
            }
        }
        let best = &summary.groups[summary.best].condition;
        // a zero-shot winner has no demonstrations to say: the first of its template that has
        let with_shots =
            |group: &&Group| group.condition.shots > 0 && group.condition.template == best.template;
        let first = summary.groups.iter().find(with_shots).map_or(best, |group| &group.condition);
        let family = Family::of(if best.shots > 0 { best } else { first });
        View { study, summary, calibrations, family }
    }

    fn series(&self, group: &Group) -> usize {
        self.calibrations.iter().position(|name| *name == group.condition.calibration).unwrap_or(0)
    }

    fn runs<'b>(&'b self, group: &'b Group) -> impl Iterator<Item = &'b Run> {
        group.runs.iter().map(|&run| &self.study.runs[run])
    }

    /// The groups of the family at hand.
    fn members(&self) -> impl Iterator<Item = &'a Group> + use<'_, 'a> {
        self.summary.groups.iter().filter(|group| self.family.has(&group.condition))
    }
}

/// Numbers of demonstrations that occur, from few to many.
fn distinct_shots<'a>(groups: impl Iterator<Item = &'a Group>) -> Vec<usize> {
    let mut shots: Vec<usize> = groups.map(|group| group.condition.shots).collect();
    shots.sort_unstable();
    shots.dedup();
    shots
}

/// `none` alone says too little.
fn calibration_name(name: &str) -> String {
    if name == "none" { "uncalibrated".into() } else { name.into() }
}

/// `4 demonstrations`, as a heading.
fn demonstrations(shots: usize) -> String {
    match shots {
        0 => "zero-shot".into(),
        1 => "1 demonstration".into(),
        _ => format!("{shots} demonstrations"),
    }
}

/// Marks and names of series in a line.
fn key(svg: &mut Svg, left: f64, y: f64, names: &[(usize, String)]) {
    let mut x = left;
    for (series, name) in names {
        svg.mark(*series, [x + 5.0, y - 4.0], 4.5, name);
        svg.text("label", [x + 14.0, y], Anchor::Start, name);
        x += 14.0 + 7.2 * name.chars().count() as f64 + 18.0;
    }
}

/// What to say of a run when it is pointed at.
fn tip(run: &Run) -> String {
    let accuracy = format!("{:.1} %", 100.0 * run.metrics.accuracy);
    match run.permutation.len() {
        0 => format!("{accuracy}, seed {}", run.seed),
        _ => {
            let places: Vec<String> = run.permutation.iter().map(usize::to_string).collect();
            format!("{accuracy}, seed {}, order {}", run.seed, places.join(" "))
        }
    }
}

/// Sideways steps that keep dots of equal value apart: the same for the same run.
fn jitter(i: usize, width: f64) -> f64 {
    ((i * 7 % 11) as f64 / 10.0 - 0.5) * width
}
