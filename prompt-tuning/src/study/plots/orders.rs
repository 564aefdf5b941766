//! What the order of the same demonstrations does.

use super::{Figure, View, calibration_name, demonstrations, distinct_shots, jitter, key, tip};
use crate::page::axis::{Area, Axis};
use crate::page::svg::Svg;
use crate::study::Run;
use crate::study::summary::Group;

const AREA: Area = Area { left: 60.0, right: 680.0, top: 34.0, bottom: 280.0 };

pub(super) fn figure(view: &View) -> Option<Figure> {
    let with_orders =
        |group: &&Group| view.summary.orders.iter().any(|o| &view.summary.groups[o.group] == *group);
    let groups: Vec<&Group> = view.members().filter(with_orders).collect();
    let panel = |shots: usize| {
        let of_panel: Vec<&Group> =
            groups.iter().copied().filter(|group| group.condition.shots == shots).collect();
        Some((demonstrations(shots), panel(view, &of_panel)?))
    };
    let panels = distinct_shots(groups.iter().copied()).into_iter().filter_map(panel).collect();
    let caption = format!(
        "Each dot is one order of the same demonstrations, each column of dots one choice of them; the line goes from \
         the worst order to the best, the mark is their mean ({}).",
        view.family.name()
    );
    Figure::new("Spread over orders", caption, panels)
}

fn panel(view: &View, groups: &[&Group]) -> Option<String> {
    let accuracies = groups.iter().flat_map(|group| view.runs(group)).map(|run| run.metrics.accuracy);
    let y = Axis::of_shares(accuracies, AREA.bottom, AREA.top)?;
    let mut seeds: Vec<u64> = groups.iter().flat_map(|group| view.runs(group)).map(|run| run.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let mut svg = Svg::new(700.0, 330.0);
    AREA.percent_y(&mut svg, &y, "accuracy (%)");
    let names: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let places = AREA.names_x(&mut svg, &names, "seed of the choice");
    let column = ((AREA.right - AREA.left) / seeds.len() as f64 / (groups.len() as f64 + 0.6)).min(48.0);
    for (k, group) in groups.iter().enumerate() {
        let aside = (k as f64 - (groups.len() as f64 - 1.0) / 2.0) * column;
        for (seed, place) in seeds.iter().zip(&places) {
            let runs: Vec<&Run> = view.runs(group).filter(|run| run.seed == *seed).collect();
            strip(&mut svg, &runs, view.series(group), (place + aside, column * 0.55), &y);
        }
    }
    let name = |group: &&Group| (view.series(group), calibration_name(&group.condition.calibration));
    key(&mut svg, AREA.left, 16.0, &groups.iter().map(name).collect::<Vec<_>>());
    Some(svg.finish("Accuracy of each order of the demonstrations, by the seed that chose them."))
}

fn strip(svg: &mut Svg, runs: &[&Run], series: usize, (x, width): (f64, f64), y: &Axis) {
    let accuracies = || runs.iter().map(|run| run.metrics.accuracy);
    if runs.is_empty() {
        return;
    }
    let [min, max] = [accuracies().fold(f64::INFINITY, f64::min), accuracies().fold(0.0, f64::max)];
    svg.line(&format!("range {}", crate::page::svg::class(series)), [x, y.at(min)], [x, y.at(max)]);
    for (i, run) in runs.iter().enumerate() {
        svg.dot(series, [x + jitter(i, width), y.at(run.metrics.accuracy)], &tip(run));
    }
    let mean = accuracies().sum::<f64>() / runs.len() as f64;
    svg.mark(series, [x, y.at(mean)], 4.0, &format!("mean {:.1} % of {} orders", 100.0 * mean, runs.len()));
}
