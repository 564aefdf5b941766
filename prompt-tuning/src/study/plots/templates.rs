//! What the wording of the template does.

use super::{Figure, View, calibration_name, demonstrations, distinct_shots, jitter, key, tip};
use crate::page::axis::{Area, Axis, spread};
use crate::page::svg::{Anchor, Svg};
use crate::study::summary::Group;

pub(super) fn figure(view: &View) -> Option<Figure> {
    let groups: Vec<&Group> =
        view.summary.groups.iter().filter(|group| view.family.picks(&group.condition)).collect();
    let panel = |shots: usize| {
        let of_panel: Vec<&Group> =
            groups.iter().copied().filter(|group| group.condition.shots == shots).collect();
        Some((demonstrations(shots), panel(view, &of_panel)?))
    };
    let panels = distinct_shots(groups.iter().copied()).into_iter().filter_map(panel).collect();
    let caption = "Mark: mean over seeds and orders. Dots: single runs.";
    Figure::new("Sensitivity to the wording of the template", caption.into(), panels)
}

/// `None` where there is but one template.
fn panel(view: &View, groups: &[&Group]) -> Option<String> {
    let mut templates: Vec<&str> = groups.iter().map(|group| group.condition.template.as_str()).collect();
    templates.dedup();
    if templates.len() < 2 {
        return None;
    }
    let lane = 16.0;
    let row = lane * view.calibrations.len() as f64 + 14.0;
    let bottom = 30.0 + row * templates.len() as f64;
    let area = Area { left: 200.0, right: 680.0, top: 30.0, bottom };
    let accuracies = groups.iter().flat_map(|group| view.runs(group)).map(|run| run.metrics.accuracy);
    let x = Axis::of_shares(accuracies, area.left, area.right)?;
    let mut svg = Svg::new(700.0, bottom + 48.0);
    area.percent_x(&mut svg, &x, "accuracy (%)");
    let places = spread(area.top, area.bottom, templates.len());
    for (template, place) in templates.iter().zip(&places) {
        svg.text("tick", [area.left - 10.0, place + 4.0], Anchor::End, &short(template));
        for group in groups.iter().filter(|group| group.condition.template == *template) {
            let series = view.series(group);
            let y = place + (series as f64 - (view.calibrations.len() as f64 - 1.0) / 2.0) * lane;
            for (i, run) in view.runs(group).enumerate() {
                svg.dot(series, [x.at(run.metrics.accuracy), y + jitter(i, lane * 0.5)], &tip(run));
            }
            let mean = group.accuracy.mean;
            svg.mark(series, [x.at(mean), y], 4.5, &format!("mean {:.1} %", 100.0 * mean));
        }
    }
    let names = view.calibrations.iter().map(|name| calibration_name(name)).enumerate();
    key(&mut svg, area.left, 16.0, &names.collect::<Vec<_>>());
    Some(svg.finish("Accuracy by template; the figures are in the table."))
}

/// A name that fits beside the drawing.
fn short(name: &str) -> String {
    if name.chars().count() <= 26 { name.into() } else { name.chars().take(25).chain(['…']).collect() }
}
