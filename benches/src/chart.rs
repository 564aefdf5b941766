//! The roofline: how many operations per second a kernel does over how many it does for each byte it moves, both axes
//! logarithmic. Memory is a slope, arithmetic a flat roof. A point above the slope of memory computes in the caches.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::case::Kind;
use crate::report::{Ceilings, Measurement, Roofline};

const INK: RGBColor = RGBColor(50, 50, 50);
const FAINT: RGBColor = RGBColor(150, 150, 150);
const GRID: RGBColor = RGBColor(236, 236, 236);
const SIZE: (u32, u32) = (1000, 600);
const LEGEND: u32 = 210;
/// Least and most operations per byte.
const INTENSITY: (f64, f64) = (0.03, 10_000.0);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Colours that people with any colour vision can tell apart (Okabe & Ito).
fn colour(kind: Kind) -> RGBColor {
    match kind {
        Kind::Matmul => RGBColor(0, 114, 178),
        Kind::FewRows => RGBColor(86, 180, 233),
        Kind::Attention => RGBColor(213, 94, 0),
        Kind::Norm => RGBColor(0, 158, 115),
        Kind::Activation => RGBColor(204, 121, 167),
        Kind::CrossEntropy => RGBColor(230, 159, 0),
        Kind::Elementwise => RGBColor(0, 0, 0),
        Kind::Optimizer => RGBColor(150, 140, 40),
    }
}

/// The run as an SVG document.
///
/// # Errors
/// Why it could not be drawn.
pub fn svg(run: &Roofline) -> Result<String, String> {
    let mut out = String::new();
    draw(run, &mut out).map_err(|e| e.to_string())?;
    Ok(out)
}

fn draw(run: &Roofline, out: &mut String) -> Drawn {
    let root = SVGBackend::with_string(out, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.margin(10, 0, 0, 0);
    let title = format!("Kernels below the roof of {}, {} threads", run.machine.cpu, run.machine.threads);
    let root = root.titled(&title, ("sans-serif", 18).into_font().color(&INK))?;
    let (plot, legend) = root.split_horizontally(SIZE.0 - LEGEND);
    draw_plot(run, &plot)?;
    draw_legend(run, &legend)?;
    root.present()?;
    Ok(())
}

fn draw_plot(run: &Roofline, area: &Area) -> Drawn {
    let lowest = run.measurements.iter().map(Measurement::gflops).fold(1.0, f64::min);
    let reached = run.measurements.iter().map(Measurement::gflops);
    let highest = run.ceilings.arithmetic.iter().map(|peak| peak.gflops).chain(reached).fold(1.0, f64::max);
    let mut chart =
        ChartBuilder::on(area).margin(12).x_label_area_size(40).y_label_area_size(56).build_cartesian_2d(
            (INTENSITY.0..INTENSITY.1).log_scale(),
            (lowest / 2.0..highest * 2.0).log_scale(),
        )?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_desc("operations per byte")
        .y_desc("GFLOP/s")
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y}"))
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .draw()?;
    for line in ceilings(&run.ceilings) {
        chart.draw_series(LineSeries::new([line.from, line.to], INK.stroke_width(line.width)))?;
        let style = ("sans-serif", 12).into_font().color(&INK);
        let label = Text::new(line.label, line.label_offset, style);
        chart.draw_series([EmptyElement::at(line.label_at) + label])?;
    }
    let best = run.best_tier();
    // the fastest instruction set last, on top
    let (front, back): (Vec<_>, Vec<_>) = run.measurements.iter().partition(|m| is_front(m, best));
    for m in back {
        let style = colour(m.kind).mix(0.55).stroke_width(1);
        chart.draw_series([Circle::new((m.intensity(), m.gflops()), 3, style)])?;
    }
    for m in front {
        let style = colour(m.kind).filled();
        chart.draw_series([Circle::new((m.intensity(), m.gflops()), 4, style)])?;
    }
    Ok(())
}

/// Whether a measurement is drawn filled: of the fastest instruction set, or of code that is the same for all.
fn is_front(m: &Measurement, best: &str) -> bool {
    m.tier == best || m.tier == "any"
}

struct Line {
    from: (f64, f64),
    to: (f64, f64),
    width: u32,
    label: String,
    label_at: (f64, f64),
    /// In pixels.
    label_offset: (i32, i32),
}

/// Slopes up to the highest roof, and roofs from the slope of the caches on.
fn ceilings(c: &Ceilings) -> Vec<Line> {
    let highest = c.arithmetic.iter().map(|peak| peak.gflops).fold(1.0, f64::max);
    let slope = |name: &str, rate: f64, width, label_offset| {
        let label = format!("{name}: {rate:.1} GB/s read");
        let (from, to) = ((INTENSITY.0, rate * INTENSITY.0), (highest / rate, highest));
        Line { from, to, width, label, label_at: from, label_offset }
    };
    let roof = |name: &str, gflops: f64| Line {
        from: (gflops / c.cache.read.max(c.memory.read), gflops),
        to: (INTENSITY.1, gflops),
        width: 2,
        label: format!("{name}: {gflops:.0} GFLOP/s"),
        label_at: (INTENSITY.1, gflops),
        label_offset: (-140, -16),
    };
    let slopes = [
        // below its line, and above it
        slope("memory", c.memory.read, 2, (30, -14)),
        slope("caches", c.cache.read, 1, (6, -170)),
    ];
    let roofs = c.arithmetic.iter().map(|p| roof(&format!("{} {}", p.tier, p.arithmetic), p.gflops));
    slopes.into_iter().chain(roofs).collect()
}

fn draw_legend(run: &Roofline, area: &Area) -> Drawn {
    let text =
        |text: String, y: i32| Text::new(text, (26, y - 7), ("sans-serif", 14).into_font().color(&INK));
    let mut y = 40;
    for kind in Kind::ALL {
        if run.measurements.iter().any(|m| m.kind == kind) {
            area.draw(&Circle::new((14, y), 5, colour(kind).filled()))?;
            area.draw(&text(kind.name().into(), y))?;
            y += 24;
        }
    }
    y += 12;
    area.draw(&Circle::new((14, y), 4, FAINT.filled()))?;
    area.draw(&text(run.best_tier().into(), y))?;
    let others: Vec<&str> = run.ceilings.arithmetic.iter().rev().skip(1).map(|p| &*p.tier).collect();
    if !others.is_empty() {
        y += 24;
        area.draw(&Circle::new((14, y), 3, FAINT.stroke_width(1)))?;
        area.draw(&text(others.join(", "), y))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn every_kernel_and_every_ceiling_is_drawn() {
        let run = example();
        let svg = svg(&run).expect("a drawing");
        let legend = 1 + run.ceilings.arithmetic.len();
        assert_eq!(svg.matches("<circle").count(), run.measurements.len() + legend + 1);
        for label in ["avx2 f32: 150 GFLOP/s", "portable f32: 60 GFLOP/s", "memory: 20.0 GB/s read"] {
            assert!(svg.contains(label), "{label}");
        }
    }
}
