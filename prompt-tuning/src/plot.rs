//! A picture of a training run: loss over steps, and the dev metric where there is one.

use plotters::prelude::*;
use plotters::style::FontTransform;

/// Points of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// What the picture shows, one line.
    pub title: String,
    /// `(step, loss)` of each training step.
    pub loss: Vec<(u64, f64)>,
    /// Name of the dev metric, as `accuracy`.
    pub metric_name: String,
    /// `(step, value)` of each dev evaluation.
    pub metric: Vec<(u64, f64)>,
}

const BLUE_LINE: RGBColor = RGBColor(31, 119, 180);
const ORANGE_LINE: RGBColor = RGBColor(214, 105, 10);
const INK: RGBColor = RGBColor(60, 60, 60);

/// The run as an SVG document, or why it could not be drawn.
pub fn svg(curves: &Curves) -> Result<String, String> {
    let mut out = String::new();
    draw(curves, &mut out).map_err(|e| e.to_string())?;
    Ok(out)
}

fn draw(curves: &Curves, out: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(out, (800, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let last = curves.loss.last().map_or(1, |p| p.0).max(1);
    let top = curves.loss.iter().map(|p| p.1).fold(0.0, f64::max).max(1e-6) * 1.05;
    let has_metric = !curves.metric.is_empty();
    let metric_top = curves.metric.iter().map(|p| p.1 * 1.05).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption(&curves.title, ("sans-serif", 18).into_font().color(&INK))
        .margin(14)
        .x_label_area_size(38)
        .y_label_area_size(52)
        .right_y_label_area_size(if has_metric { 52 } else { 0 })
        .build_cartesian_2d(0..last, 0.0..top)?
        .set_secondary_coord(0..last, 0.0..metric_top);
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(232, 232, 232))
        .axis_style(INK)
        .x_desc("step")
        .y_desc("training loss")
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .draw()?;
    let faint = BLUE_LINE.mix(0.3);
    chart.draw_series(LineSeries::new(curves.loss.iter().copied(), faint.stroke_width(1)))?;
    let smooth = LineSeries::new(smoothed(&curves.loss), BLUE_LINE.stroke_width(2));
    chart
        .draw_series(smooth)?
        .label("training loss (running mean)")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLUE_LINE.stroke_width(2)));
    if has_metric {
        chart.configure_secondary_axes().y_desc(format!("dev {}", curves.metric_name)).draw()?;
        let line = LineSeries::new(curves.metric.iter().copied(), ORANGE_LINE.stroke_width(2)).point_size(3);
        chart
            .draw_secondary_series(line)?
            .label(format!("dev {}", curves.metric_name))
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], ORANGE_LINE.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(210, 210, 210))
        .label_font(("sans-serif", 13).into_font().transform(FontTransform::None).color(&INK))
        .draw()?;
    root.present()?;
    Ok(())
}

/// A running mean over a twentieth of the run.
fn smoothed(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let window = (points.len() / 20).max(1);
    let mean = |i: usize| {
        let part = &points[i.saturating_sub(window - 1)..=i];
        part.iter().map(|p| p.1).sum::<f64>() / part.len() as f64
    };
    (0..points.len()).map(|i| (points[i].0, mean(i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_both_curves() {
        let curves = Curves {
            title: "tiny run".into(),
            loss: (1..=40).map(|i| (i, 4.0 / i as f64)).collect(),
            metric_name: "accuracy".into(),
            metric: vec![(20, 0.5), (40, 0.75)],
        };
        let svg = svg(&curves).expect("a drawing");
        assert!(svg.starts_with("<svg") && svg.contains("dev accuracy") && svg.contains("tiny run"));
        assert!(svg.matches("<polyline").count() >= 3);
    }

    #[test]
    fn an_empty_run_is_drawn_too() {
        assert!(svg(&Curves::default()).is_ok());
    }
}
