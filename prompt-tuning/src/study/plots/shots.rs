//! Accuracy against the number of demonstrations.

use super::{Family, Figure, View, calibration_name, distinct_shots, jitter, tip};
use crate::page::axis::{Area, Axis};
use crate::page::svg::{Svg, class};
use crate::study::summary::Group;

const AREA: Area = Area { left: 60.0, right: 540.0, top: 16.0, bottom: 290.0 };

pub(super) fn figure(view: &View) -> Option<Figure> {
    let conditions = || view.summary.groups.iter().map(|group| &group.condition);
    let mut families: Vec<Family> = Vec::new();
    for condition in conditions() {
        let family = Family::of(condition);
        // zero-shot groups are in the panels of their template, and have one of their own only where there is no other
        let is_shown =
            condition.shots > 0 || !conditions().any(|c| c.template == condition.template && c.shots > 0);
        if is_shown && !families.contains(&family) {
            families.push(family);
        }
    }
    let panels = families.iter().filter_map(|family| Some((family.name(), panel(view, family)?))).collect();
    let caption = "Line and mark: mean over seeds and orders. Band: one standard deviation of the runs to each side. \
                   Dots: single runs. Dashed: the commonest label always, and guessing.";
    Figure::new("Accuracy against demonstrations", caption.into(), panels)
}

fn panel(view: &View, family: &Family) -> Option<String> {
    let groups: Vec<&Group> =
        view.summary.groups.iter().filter(|group| family.has(&group.condition)).collect();
    let baselines = [view.summary.baselines.majority, view.summary.baselines.uniform];
    let spreads = groups.iter().map(|group| group.accuracy);
    let bands =
        spreads.flat_map(|s| [s.min, s.max, s.mean + s.sd.unwrap_or(0.0), s.mean - s.sd.unwrap_or(0.0)]);
    let y = Axis::of_shares(bands.chain(baselines), AREA.bottom, AREA.top)?;
    let shots = distinct_shots(groups.iter().copied());
    let mut svg = Svg::new(700.0, 340.0);
    AREA.percent_y(&mut svg, &y, "accuracy (%)");
    let names: Vec<String> = shots.iter().map(usize::to_string).collect();
    let places = AREA.names_x(&mut svg, &names, "demonstrations");
    let x = |group: &Group| places[shots.iter().position(|&k| k == group.condition.shots).unwrap_or(0)];
    let mut ends: Vec<(f64, String, String)> = Vec::new();
    for (series, calibration) in view.calibrations.iter().enumerate() {
        let of_series: Vec<&Group> =
            groups.iter().copied().filter(|group| group.condition.calibration == *calibration).collect();
        let Some(last) = of_series.last() else { continue };
        draw_series(&mut svg, view, (series, &of_series), x, &y);
        ends.push((y.at(last.accuracy.mean), class(series), calibration_name(calibration)));
    }
    for (share, name) in baseline_names(view) {
        svg.line("baseline", [AREA.left, y.at(share)], [AREA.right, y.at(share)]);
        ends.push((y.at(share), "muted".into(), name));
    }
    AREA.label_ends(&mut svg, &ends);
    Some(svg.finish("Accuracy against the number of demonstrations; the figures are in the table."))
}

fn draw_series(
    svg: &mut Svg,
    view: &View,
    (series, groups): (usize, &[&Group]),
    x: impl Fn(&Group) -> f64,
    y: &Axis,
) {
    let edge = |group: &&Group, sign: f64| {
        let sd = group.accuracy.sd.unwrap_or(0.0);
        [x(group), y.at((group.accuracy.mean + sign * sd).clamp(0.0, 1.0))]
    };
    let upper = groups.iter().map(|group| edge(group, 1.0));
    let lower = groups.iter().rev().map(|group| edge(group, -1.0));
    svg.area(series, &upper.chain(lower).collect::<Vec<_>>());
    // series side by side, so that the dots of one do not hide those of the other
    let aside = (series as f64 - (view.calibrations.len() as f64 - 1.0) / 2.0) * 12.0;
    for group in groups {
        for (i, run) in view.runs(group).enumerate() {
            svg.dot(series, [x(group) + aside + jitter(i, 9.0), y.at(run.metrics.accuracy)], &tip(run));
        }
    }
    let means: Vec<[f64; 2]> = groups.iter().map(|group| [x(group), y.at(group.accuracy.mean)]).collect();
    svg.path(series, &means);
    for (group, mean) in groups.iter().zip(means) {
        svg.mark(series, mean, 4.5, &format!("mean {:.1} %", 100.0 * group.accuracy.mean));
    }
}

/// One line where both are the same.
fn baseline_names(view: &View) -> Vec<(f64, String)> {
    let baselines = &view.summary.baselines;
    let label: String = view.study.labels[baselines.majority_label].chars().take(12).collect();
    let majority = (baselines.majority, format!("always {label}"));
    let guessing = (baselines.uniform, "guessing".to_string());
    if (baselines.majority - baselines.uniform).abs() < 0.002 {
        vec![majority]
    } else {
        vec![majority, guessing]
    }
}
