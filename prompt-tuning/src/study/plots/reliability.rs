//! Whether a probability is a share: the reliability diagram.

use super::{Figure, View, calibration_name, key};
use crate::page::axis::{Area, Axis};
use crate::page::svg::Svg;
use crate::study::metrics::{Bin, ece, reliability};
use crate::study::summary::{Factor, Group};

const AREA: Area = Area { left: 60.0, right: 440.0, top: 34.0, bottom: 414.0 };

pub(super) fn figure(view: &View) -> Option<Figure> {
    let best = &view.summary.groups[view.summary.best].condition;
    let beside = |group: &&Group| group.condition.agrees_but_for(best, Factor::Calibration);
    let series: Vec<(usize, [Bin; 10])> = view
        .summary
        .groups
        .iter()
        .filter(beside)
        .map(|group| (view.series(group), bins(view, group)))
        .filter(|(_, bins)| bins.iter().any(|bin| bin.n > 0))
        .collect();
    let panels = drawing(view, &series).map(|svg| (String::new(), svg)).into_iter().collect();
    let others: Vec<Factor> =
        view.summary.varying.iter().copied().filter(|&factor| factor != Factor::Calibration).collect();
    let caption = format!(
        "Predictions of about the same probability, in ten bins: on the dashed line they are right as often as they say, \
         below it they say too much. Larger marks stand for more predictions. ECE is the mean distance from the line, \
         all runs together ({}).",
        best.name(&others)
    );
    Figure::new("Reliability", caption, panels)
}

fn bins(view: &View, group: &Group) -> [Bin; 10] {
    let of_run = |run| view.study.right(run).zip(run.probability.iter().copied());
    reliability(view.runs(group).flat_map(of_run))
}

fn drawing(view: &View, series: &[(usize, [Bin; 10])]) -> Option<String> {
    series.first()?;
    let x = Axis::of_shares([0.0, 1.0].into_iter(), AREA.left, AREA.right)?;
    let y = Axis::of_shares([0.0, 1.0].into_iter(), AREA.bottom, AREA.top)?;
    let mut svg = Svg::new(700.0, 462.0);
    AREA.percent_x(&mut svg, &x, "probability of the prediction (%)");
    AREA.percent_y(&mut svg, &y, "right (%)");
    svg.line("baseline", [x.at(0.0), y.at(0.0)], [x.at(1.0), y.at(1.0)]);
    for (series, bins) in series {
        let n: usize = bins.iter().map(|bin| bin.n).sum();
        let place = |bin: &Bin| [x.at(bin.confidence), y.at(bin.accuracy)];
        let known = || bins.iter().filter(|bin| bin.n > 0);
        svg.path(*series, &known().map(place).collect::<Vec<_>>());
        for bin in known() {
            let size = 3.0 + 9.0 * (bin.n as f64 / n as f64).sqrt();
            svg.mark(
                *series,
                place(bin),
                size,
                &format!("{} of {n} predictions, {:.1} % right", bin.n, 100.0 * bin.accuracy),
            );
        }
    }
    let name = |(series, bins): &(usize, [Bin; 10])| {
        let calibration = calibration_name(view.calibrations[*series]);
        (*series, format!("{calibration}: ECE {:.1} %", 100.0 * ece(bins)))
    };
    for (i, entry) in series.iter().map(name).enumerate() {
        key(&mut svg, AREA.right + 24.0, AREA.top + 14.0 + 22.0 * i as f64, &[entry]);
    }
    Some(svg.finish("Share of right predictions against their probability."))
}
