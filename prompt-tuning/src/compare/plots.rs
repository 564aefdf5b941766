//! The drawings of the report: how accuracy, overfitting and forgetting go with the number of training rows.

use super::summary::Group;
use super::{Comparison, Kind, Summary};
use crate::page::Figure;
use crate::page::axis::{Area, Axis, apart};
use crate::page::svg::{Anchor, Svg, class};

const AREA: Area = Area { left: 60.0, right: 520.0, top: 16.0, bottom: 290.0 };
const WIDTH: f64 = 720.0;

/// Value of a group, and how far its band goes to each side.
type Value = fn(&Group) -> Option<(f64, f64)>;

pub(super) fn figures(comparison: &Comparison, summary: &Summary) -> Vec<Figure> {
    let view = View { summary, sizes: summary.sizes() };
    let accuracy: Value = |group| Some((group.accuracy.mean, group.accuracy.sd.unwrap_or(0.0)));
    let gap: Value = |group| group.gap.as_ref().map(|s| (s.mean, s.sd.unwrap_or(0.0)));
    let perplexity: Value = |group| group.perplexity.as_ref().map(|s| (s.mean, s.sd.unwrap_or(0.0)));
    let others: Value = |group| group.others.as_ref().map(|s| (s.mean, s.sd.unwrap_or(0.0)));
    let band = "Marks: mean over the seeds. Band: one standard deviation to each side.";
    let n = comparison.n();
    let all = [
        (
            "Accuracy against training rows",
            format!("{band} Dashed: asked without training. Accuracy on {n} rows that no method has seen."),
            "accuracy (%)",
            accuracy,
        ),
        (
            "Overfitting",
            format!("Accuracy on the training rows less that on the measured rows. {band}"),
            "points",
            gap,
        ),
        (
            "Forgetting: general text",
            format!(
                "Change of perplexity on general text with the adapted model, a prompt in front of it. {band}"
            ),
            "change (%)",
            perplexity,
        ),
        (
            "Forgetting: other tasks",
            format!("Change of accuracy on tasks that were not trained. {band}"),
            "points",
            others,
        ),
    ];
    let figure = |(title, caption, unit, value): (&'static str, String, &str, Value)| {
        Figure::new(
            title,
            caption,
            view.panel(unit, value).map(|svg| (String::new(), svg)).into_iter().collect(),
        )
    };
    all.into_iter().filter_map(figure).collect()
}

struct View<'a> {
    summary: &'a Summary,
    sizes: Vec<usize>,
}

impl View<'_> {
    fn panel(&self, unit: &str, value: Value) -> Option<String> {
        let trained = || self.summary.groups.iter().filter(|group| group.kind != Kind::Asked);
        let shown =
            || self.summary.groups.iter().filter_map(value).flat_map(|(mean, sd)| [mean - sd, mean + sd]);
        trained().find_map(value)?;
        let y = match unit {
            "accuracy (%)" => Axis::of_shares(shown(), AREA.bottom, AREA.top)?,
            _ => Axis::around(shown().chain([0.0]), AREA.bottom, AREA.top)?,
        };
        let mut svg = Svg::new(WIDTH, 340.0);
        AREA.percent_y(&mut svg, &y, unit);
        let names: Vec<String> = self.sizes.iter().map(usize::to_string).collect();
        let places = AREA.names_x(&mut svg, &names, "training rows");
        let x = |n: usize| places[self.sizes.iter().position(|&size| size == n).unwrap_or(0)];
        let mut ends: Vec<(f64, String, String)> = Vec::new();
        for (series, method) in self.summary.methods().into_iter().enumerate() {
            let of_method = self.summary.groups.iter().filter(|group| group.method == method);
            let points: Vec<(&Group, (f64, f64))> =
                of_method.filter_map(|group| Some((group, value(group)?))).collect();
            let Some(&(last, (mean, _))) = points.last() else { continue };
            if last.kind == Kind::Asked && last.training.is_none() && !self.sizes.contains(&last.n_train) {
                svg.line("baseline", [AREA.left, y.at(mean)], [AREA.right, y.at(mean)]);
                ends.push((y.at(mean), "muted".into(), method.into()));
                continue;
            }
            draw(&mut svg, series, &points, x, &y);
            ends.push((y.at(mean), class(series), method.into()));
        }
        label_ends(&mut svg, &ends);
        Some(
            svg.finish(&format!("{unit} against the number of training rows; the figures are in the table.")),
        )
    }
}

fn draw(svg: &mut Svg, series: usize, points: &[(&Group, (f64, f64))], x: impl Fn(usize) -> f64, y: &Axis) {
    let edge = |sign: f64| {
        let x = &x;
        move |(group, (mean, sd)): &(&Group, (f64, f64))| [x(group.n_train), y.at(mean + sign * sd)]
    };
    let upper = points.iter().map(edge(1.0));
    let lower = points.iter().rev().map(edge(-1.0));
    svg.area(series, &upper.chain(lower).collect::<Vec<_>>());
    let means: Vec<[f64; 2]> =
        points.iter().map(|(group, (mean, _))| [x(group.n_train), y.at(*mean)]).collect();
    svg.path(series, &means);
    for ((group, (mean, _)), place) in points.iter().zip(means) {
        svg.mark(series, place, 4.5, &format!("{}: {:.1}", group.method, 100.0 * mean));
    }
}

/// Names behind the right ends, moved apart.
fn label_ends(svg: &mut Svg, ends: &[(f64, String, String)]) {
    let mut places: Vec<f64> = ends.iter().map(|end| end.0).collect();
    apart(&mut places, 15.0, AREA.bottom + 20.0);
    for ((_, class, name), y) in ends.iter().zip(places) {
        svg.text(&format!("label {class}"), [AREA.right + 10.0, y + 4.0], Anchor::Start, name);
    }
}
