//! The groups as rows of text.

use super::{Factor, Group, Summary};
use crate::study::statistics::Spread;

impl Summary {
    /// Heads of the columns: factors that vary, then figures.
    pub(in crate::study) fn columns(&self) -> Vec<&'static str> {
        let factor = |&factor: &Factor| match factor {
            Factor::Shots => "shots",
            Factor::Demonstrations => "demonstrations",
            Factor::Calibration => "calibration",
            Factor::Template => "template",
        };
        let figures =
            ["runs", "accuracy %", "sd", "min", "max", "macro F1 %", "loss", "ECE %", "recency", "majority"];
        self.varying.iter().map(factor).chain(figures).collect()
    }

    /// One row per group.
    pub(in crate::study) fn cells(&self) -> Vec<Vec<String>> {
        self.groups.iter().map(|group| self.cells_of(group)).collect()
    }

    /// How many columns come before the figures.
    pub(in crate::study) fn n_names(&self) -> usize {
        self.varying.len()
    }

    fn cells_of(&self, group: &Group) -> Vec<String> {
        let condition = &group.condition;
        let name = |&factor: &Factor| match factor {
            Factor::Shots => condition.shots.to_string(),
            Factor::Demonstrations => condition.phrase(factor),
            Factor::Calibration => condition.calibration.clone(),
            Factor::Template => condition.template.clone(),
        };
        let Spread { n, mean, sd, min, max, .. } = group.accuracy;
        let bias = |bias: Option<crate::study::statistics::Estimate>| match bias {
            Some(bias) => format!("{:+.1}", 100.0 * bias.value),
            None => dash(),
        };
        let figures = [
            n.to_string(),
            percent(mean),
            sd.map_or_else(dash, percent),
            percent(min),
            percent(max),
            percent(group.macro_f1.mean),
            if group.loss.mean.is_finite() { format!("{:.3}", group.loss.mean) } else { dash() },
            percent(group.ece.mean),
            bias(group.recency_bias),
            bias(group.majority_bias),
        ];
        self.varying.iter().map(name).chain(figures).collect()
    }
}

/// What stands where there is no number.
fn dash() -> String {
    "-".into()
}

fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1}", 100.0 * share) } else { dash() }
}
