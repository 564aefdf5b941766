//! The drawings: how accuracy, overfitting and forgetting go with the number of training rows, and with the size of the model.

use super::summary::Group;
use super::{Comparison, Kind, Summary};
use crate::page::Figure;
use crate::page::axis::{Area, Axis};
use crate::page::svg::{Svg, class};
use crate::study::statistics::Spread;

const AREA: Area = Area { left: 66.0, right: 520.0, top: 16.0, bottom: 290.0 };
const WIDTH: f64 = 720.0;

/// What a drawing shows of each group.
type Value = fn(&Group) -> Option<Spread>;

/// One line of a drawing.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Points,
}

/// Means with standard deviations.
pub(super) enum Points {
    /// At some of the places along the bottom.
    At(Vec<(usize, Spread)>),
    /// The same everywhere.
    Everywhere(Spread),
}

/// How a drawing reads.
pub(super) struct Frame<'a> {
    /// Names of the places along the bottom.
    pub(super) places: &'a [String],
    pub(super) below: &'a str,
    pub(super) beside: &'a str,
    /// Whether values are shares, between 0 and 1, or changes around 0.
    pub(super) shares: bool,
}

/// How the methods go with the number of training rows.
pub(super) fn figures(comparison: &Comparison, summary: &Summary) -> Vec<Figure> {
    let accuracy: Value = |group| Some(group.accuracy);
    let band = "Marks: mean over the seeds. Band: one standard deviation to each side.";
    let n = comparison.n();
    let all: [(&str, String, &str, Value); 4] = [
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
            |group| group.gap,
        ),
        (
            "Forgetting: general text",
            format!(
                "Change of perplexity on general text with the adapted model, a prompt in front of it. {band}"
            ),
            "change (%)",
            |group| group.perplexity,
        ),
        (
            "Forgetting: other tasks",
            format!("Change of accuracy on tasks that were not trained. {band}"),
            "points",
            |group| group.others,
        ),
    ];
    let sizes = summary.sizes();
    if sizes.len() < 2 {
        // of one number of rows there are no lines
        return Vec::new();
    }
    let places: Vec<String> = sizes.iter().map(usize::to_string).collect();
    let figure = |(title, caption, beside, value): (&'static str, String, &str, Value)| {
        let frame =
            Frame { places: &places, below: "training rows", beside, shares: beside == "accuracy (%)" };
        let svg = panel(&frame, &series(summary, &sizes, value));
        Figure::new(title, caption, svg.map(|svg| (String::new(), svg)).into_iter().collect())
    };
    all.into_iter().filter_map(figure).collect()
}

/// A line for each method that is trained on numbers of rows, a level for each that is only asked; a method without a value has an
/// empty line, so that each has the same colour in every drawing.
fn series(summary: &Summary, sizes: &[usize], value: Value) -> Vec<Series> {
    let of_method = |method: &str| {
        let groups = summary.groups.iter().filter(|group| group.method == method);
        let known: Vec<(&Group, Spread)> = groups.filter_map(|group| Some((group, value(group)?))).collect();
        let place = |n: usize| sizes.iter().position(|&size| size == n);
        let points = match known[..] {
            [(group, spread)] if group.kind == Kind::Asked => Points::Everywhere(spread),
            _ => Points::At(
                known.iter().filter_map(|(group, spread)| Some((place(group.n_train)?, *spread))).collect(),
            ),
        };
        Series { name: method.into(), points }
    };
    summary.methods().into_iter().map(of_method).collect()
}

/// One drawing; `None` where no line has a value.
pub(super) fn panel(frame: &Frame, series: &[Series]) -> Option<String> {
    series.iter().find(|series| matches!(&series.points, Points::At(points) if !points.is_empty()))?;
    let y = axis(frame, series)?;
    let mut svg = Svg::new(WIDTH, 340.0);
    AREA.percent_y(&mut svg, &y, frame.beside);
    let places = AREA.names_x(&mut svg, frame.places, frame.below);
    let mut ends: Vec<(f64, String, String)> = Vec::new();
    for (i, Series { name, points }) in series.iter().enumerate() {
        match points {
            Points::Everywhere(spread) => {
                let height = y.at(spread.mean);
                svg.line("baseline", [AREA.left, height], [AREA.right, height]);
                ends.push((height, "muted".into(), name.clone()));
            }
            Points::At(points) => {
                let Some((_, last)) = points.last() else { continue };
                draw(&mut svg, (i, name), points, (&places, &y));
                ends.push((y.at(last.mean), class(i), name.clone()));
            }
        }
    }
    AREA.label_ends(&mut svg, &ends);
    Some(svg.finish(&format!("{} against {}; the figures are in the table.", frame.beside, frame.below)))
}

/// Over everything that is drawn.
fn axis(frame: &Frame, series: &[Series]) -> Option<Axis> {
    let ends = |spread: &Spread| {
        let sd = spread.sd.unwrap_or(0.0);
        [spread.mean - sd, spread.mean + sd]
    };
    let shown: Vec<f64> = series
        .iter()
        .flat_map(|series| match &series.points {
            Points::At(points) => points.iter().flat_map(|(_, spread)| ends(spread)).collect::<Vec<_>>(),
            Points::Everywhere(spread) => vec![spread.mean],
        })
        .collect();
    match frame.shares {
        true => Axis::of_shares(shown.into_iter(), AREA.bottom, AREA.top),
        false => Axis::around(shown.into_iter().chain([0.0]), AREA.bottom, AREA.top),
    }
}

fn draw(
    svg: &mut Svg,
    (series, name): (usize, &str),
    points: &[(usize, Spread)],
    (places, y): (&[f64], &Axis),
) {
    let edge = |(place, spread): &(usize, Spread), sign: f64| {
        [places[*place], y.at(spread.mean + sign * spread.sd.unwrap_or(0.0))]
    };
    let upper = points.iter().map(|point| edge(point, 1.0));
    let lower = points.iter().rev().map(|point| edge(point, -1.0));
    svg.area(series, &upper.chain(lower).collect::<Vec<_>>());
    let means: Vec<[f64; 2]> =
        points.iter().map(|(place, spread)| [places[*place], y.at(spread.mean)]).collect();
    svg.path(series, &means);
    for ((_, spread), mark) in points.iter().zip(means) {
        svg.mark(series, mark, 4.5, &format!("{name}: {:.1}", 100.0 * spread.mean));
    }
}
