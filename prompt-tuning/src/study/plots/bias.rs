//! Recency and majority bias.

use super::{Figure, View, calibration_name, key};
use crate::page::axis::{Area, Axis, spread};
use crate::page::svg::{Anchor, Svg};
use crate::study::statistics::Estimate;
use crate::study::summary::Group;

pub(super) fn figure(view: &View) -> Option<Figure> {
    let groups: Vec<&Group> = view.members().filter(|group| group.recency_bias.is_some()).collect();
    let panels = drawing(&groups).map(|svg| (String::new(), svg)).into_iter().collect();
    let caption = format!(
        "How much more often a label is predicted than it is right when it is that of the last demonstration (recency) or \
         the commonest among the demonstrations (majority; only where one is strictly the commonest). Thin lines: 95 % \
         interval ({}).",
        view.family.name()
    );
    Figure::new("Recency and majority bias", caption, panels)
}

fn drawing(groups: &[&Group]) -> Option<String> {
    let bottom = 30.0 + 40.0 * groups.len() as f64;
    let area = Area { left: 170.0, right: 640.0, top: 30.0, bottom };
    let estimates = groups.iter().flat_map(|group| [group.recency_bias, group.majority_bias]).flatten();
    let ends = estimates.flat_map(|bias| [bias.value, bias.low, bias.high]);
    groups.first()?;
    let x = Axis::around(ends.chain([0.0]), area.left, area.right)?;
    let mut svg = Svg::new(700.0, bottom + 48.0);
    area.percent_x(&mut svg, &x, "predicted minus right (percentage points)");
    for (group, y) in groups.iter().zip(spread(area.top, area.bottom, groups.len())) {
        let condition = &group.condition;
        let name = format!("{}, {}", condition.shots, calibration_name(&condition.calibration));
        svg.text("tick", [area.left - 10.0, y + 4.0], Anchor::End, &name);
        for (series, bias) in [group.recency_bias, group.majority_bias].into_iter().enumerate() {
            if let Some(bias) = bias.filter(|bias| bias.value.is_finite()) {
                bar(&mut svg, series, &bias, y - 15.0 + 15.0 * series as f64, &x);
            }
        }
    }
    svg.line("axis", [x.at(0.0), area.top], [x.at(0.0), area.bottom]);
    svg.text("title", [area.left - 10.0, 16.0], Anchor::End, "demonstrations");
    key(&mut svg, area.left, 16.0, &[(0, "recency".into()), (1, "majority".into())]);
    Some(svg.finish("Recency and majority bias by number of demonstrations; the figures are in the table."))
}

fn bar(svg: &mut Svg, series: usize, bias: &Estimate, y: f64, x: &Axis) {
    let text = format!("{:+.1}", 100.0 * bias.value);
    let tip = format!("{text} points, 95 % interval {:.1} to {:.1}", 100.0 * bias.low, 100.0 * bias.high);
    svg.bar(series, [x.at(0.0), y + 1.5], [x.at(bias.value), y + 13.5], &tip);
    if bias.low.is_finite() && bias.high.is_finite() {
        svg.line("whisker", [x.at(bias.low), y + 7.5], [x.at(bias.high), y + 7.5]);
    }
    let is_left = bias.value < 0.0;
    let end = if is_left { bias.low.min(bias.value) } else { bias.high.max(bias.value) };
    let (aside, anchor) = if is_left { (-6.0, Anchor::End) } else { (6.0, Anchor::Start) };
    svg.text("tick", [x.at(end) + aside, y + 11.5], anchor, &text);
}
