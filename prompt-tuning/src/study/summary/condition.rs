//! What can differ between runs, beside seeds and orders.

use serde::Serialize;

use crate::study::{Run, Study};

/// What the runs of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Name of the template.
    pub template: String,
    /// Demonstrations that were asked for.
    pub shots: usize,
    /// How they were chosen; empty without demonstrations.
    pub choice: String,
    /// How they were ordered; empty without demonstrations.
    pub ordering: String,
    /// `none`, `contextual` or `pmi`.
    pub calibration: String,
}

/// One thing that makes conditions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Factor {
    /// Number of demonstrations.
    Shots,
    /// Their choice and order.
    Demonstrations,
    /// Calibration.
    Calibration,
    /// Wording.
    Template,
}

impl Factor {
    pub(in crate::study) const ALL: [Factor; 4] =
        [Factor::Shots, Factor::Demonstrations, Factor::Calibration, Factor::Template];
}

impl Condition {
    /// That of a run.
    pub fn of(run: &Run) -> Condition {
        let of_demonstrations = |name: &String| match run.requested_shots {
            0 => String::new(),
            _ => name.clone(),
        };
        Condition {
            template: run.template.clone(),
            shots: run.requested_shots,
            choice: of_demonstrations(&run.choice),
            ordering: of_demonstrations(&run.ordering),
            calibration: run.calibration.clone(),
        }
    }

    /// Whether all but `factor` agrees. The demonstrations of a zero-shot condition agree with any.
    pub(in crate::study) fn agrees_but_for(&self, other: &Condition, factor: Factor) -> bool {
        Factor::ALL.into_iter().all(|f| f == factor || self.agrees(other, f))
    }

    fn agrees(&self, other: &Condition, factor: Factor) -> bool {
        match factor {
            Factor::Template => self.template == other.template,
            Factor::Shots => self.shots == other.shots,
            Factor::Calibration => self.calibration == other.calibration,
            Factor::Demonstrations => {
                let same = self.choice == other.choice && self.ordering == other.ordering;
                same || self.shots == 0 || other.shots == 0
            }
        }
    }

    /// One factor of it, in words; empty for the demonstrations of a zero-shot condition.
    pub(in crate::study) fn phrase(&self, factor: Factor) -> String {
        match factor {
            Factor::Template => format!("template {}", self.template),
            Factor::Shots if self.shots == 0 => "zero-shot".into(),
            Factor::Shots => format!("few-shot {}", self.shots),
            Factor::Calibration if self.calibration == "none" => "uncalibrated".into(),
            Factor::Calibration => format!("{} calibration", self.calibration),
            Factor::Demonstrations if self.shots == 0 => String::new(),
            Factor::Demonstrations if self.ordering.is_empty() => self.choice.clone(),
            Factor::Demonstrations => format!("{}, order {}", self.choice, self.ordering),
        }
    }

    /// These factors in words.
    pub(in crate::study) fn name(&self, factors: &[Factor]) -> String {
        let phrases = factors.iter().map(|&f| self.phrase(f)).filter(|phrase| !phrase.is_empty());
        phrases.collect::<Vec<_>>().join(", ")
    }
}

/// All conditions: templates, demonstrations and calibrations in the order in which they came, shots from few to many.
pub(super) fn conditions(study: &Study) -> Vec<Condition> {
    let mut all: Vec<Condition> = Vec::new();
    for condition in study.runs.iter().map(Condition::of) {
        if !all.contains(&condition) {
            all.push(condition);
        }
    }
    let first = |same: &dyn Fn(&Condition) -> bool| all.iter().position(same);
    let key = |c: &Condition| {
        let template = first(&|other| other.template == c.template);
        let demonstrations = first(&|other| (&other.choice, &other.ordering) == (&c.choice, &c.ordering));
        (template, c.shots, demonstrations, first(&|other| other.calibration == c.calibration))
    };
    let mut keyed: Vec<_> = all.iter().map(|c| (key(c), c.clone())).collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, condition)| condition).collect()
}

/// The factors in which conditions differ: the only ones worth naming. Shots are always named.
pub(super) fn varying<'a>(conditions: impl Iterator<Item = &'a Condition> + Clone) -> Vec<Factor> {
    let differs = |&factor: &Factor| {
        let mut known = conditions.clone().filter(|c| factor != Factor::Demonstrations || c.shots > 0);
        let first = known.next();
        factor == Factor::Shots || first.is_some_and(|first| known.any(|c| !c.agrees(first, factor)))
    };
    Factor::ALL.into_iter().filter(differs).collect()
}
