//! The drawing to look at first: every method with the most training rows it had, each with its interval.

use super::Summary;
use super::summary::Group;
use crate::page::Figure;
use crate::page::axis::{Area, Axis, spread};
use crate::page::svg::{Anchor, Svg};

/// Pixels of a method.
const ROW: f64 = 24.0;

/// `None` without methods.
pub(super) fn figure(summary: &Summary) -> Option<Figure> {
    let groups: Vec<&Group> =
        summary.methods().into_iter().filter_map(|name| most_rows(summary, name)).collect();
    let area = Area { left: 170.0, right: 620.0, top: 10.0, bottom: 10.0 + ROW * groups.len() as f64 };
    let ends = groups.iter().flat_map(|group| [group.interval.low, group.accuracy.mean, group.interval.high]);
    let x = Axis::of_shares(ends, area.left, area.right)?;
    let mut svg = Svg::new(720.0, area.bottom + 50.0);
    area.percent_x(&mut svg, &x, "accuracy (%)");
    for (i, (group, y)) in groups.iter().zip(spread(area.top, area.bottom, groups.len())).enumerate() {
        let name = match group.n_train {
            0 => group.method.clone(),
            n => format!("{} ({n} rows)", group.method),
        };
        let accuracy = format!("{:.1}", 100.0 * group.accuracy.mean);
        svg.text("tick", [area.left - 10.0, y + 4.0], Anchor::End, &name);
        svg.path(i, &[[x.at(group.interval.low), y], [x.at(group.interval.high), y]]);
        svg.mark(i, [x.at(group.accuracy.mean), y], 4.5, &format!("{name}: {accuracy}"));
        svg.text("tick", [area.right + 12.0, y + 4.0], Anchor::Start, &accuracy);
    }
    let alt = "Accuracy of every method with its interval; the figures are in the table.";
    let caption = "Every method with the most labelled rows it had. Marks: mean over the seeds. Lines: 95 % intervals over rows \
                   and seeds.";
    Figure::new("Accuracy", caption.into(), vec![(String::new(), svg.finish(alt))])
}

/// The last group of a method: its rows go from few to many.
fn most_rows<'s>(summary: &'s Summary, method: &str) -> Option<&'s Group> {
    summary.groups.iter().rfind(|group| group.method == method)
}
