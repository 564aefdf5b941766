//! Drawings as SVG inside a page. Colours are classes of the page's style sheet, so that a drawing follows it into the
//! dark and onto paper.

use std::fmt::{Display, Write};

use super::escaped;

/// A drawing in the making. The origin is at the top left, lengths are in CSS pixels.
pub(crate) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

/// Which end of a text its position is.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// Colours and shapes of series; they come again after that.
const SERIES: usize = 6;

impl Svg {
    pub(crate) fn new(width: f64, height: f64) -> Svg {
        Svg { width, height, body: String::new() }
    }

    fn push(&mut self, element: impl Display) {
        // a String takes everything
        let _ = writeln!(self.body, "{element}");
    }

    pub(crate) fn line(&mut self, class: &str, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        self.push(format_args!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        ));
    }

    pub(crate) fn text(&mut self, class: &str, [x, y]: [f64; 2], anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        self.push(format_args!(
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    /// A text that runs upwards, for the axis at the left.
    pub(crate) fn upright(&mut self, class: &str, [x, y]: [f64; 2], text: &str) {
        let text = escaped(text);
        let turn = format!(r#"transform="translate({x:.1} {y:.1}) rotate(-90)""#);
        self.push(format_args!(r#"<text class="{class}" {turn} text-anchor="middle">{text}</text>"#));
    }

    /// A path through points in the colour of a series.
    pub(crate) fn path(&mut self, series: usize, points: &[[f64; 2]]) {
        let points = joined(points);
        self.push(format_args!(r#"<polyline class="path {}" points="{points}"/>"#, class(series)));
    }

    /// A faint area in the colour of a series.
    pub(crate) fn area(&mut self, series: usize, points: &[[f64; 2]]) {
        let points = joined(points);
        self.push(format_args!(r#"<polygon class="area {}" points="{points}"/>"#, class(series)));
    }

    /// A bar in the colour of a series.
    pub(crate) fn bar(&mut self, series: usize, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], tip: &str) {
        let (x, y, width, height) = (x1.min(x2), y1.min(y2), (x2 - x1).abs(), (y2 - y1).abs());
        self.push(format_args!(
            r#"<rect class="bar {}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"><title>{}</title></rect>"#,
            class(series),
            escaped(tip),
        ));
    }

    /// A small faint dot: one run.
    pub(crate) fn dot(&mut self, series: usize, [x, y]: [f64; 2], tip: &str) {
        self.push(format_args!(
            r#"<circle class="dot {}" cx="{x:.1}" cy="{y:.1}" r="2.6"><title>{}</title></circle>"#,
            class(series),
            escaped(tip),
        ));
    }

    /// A mark of the shape of a series, so that colour is not all that tells series apart.
    pub(crate) fn mark(&mut self, series: usize, [x, y]: [f64; 2], size: f64, tip: &str) {
        let around = |corners: &[[f64; 2]]| {
            joined(&corners.iter().map(|[dx, dy]| [x + dx * size, y + dy * size]).collect::<Vec<_>>())
        };
        let corners = match series % SERIES {
            0 => None,
            1 => Some(around(&[[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]])),
            2 => Some(around(&[[0.0, -1.2], [1.1, 0.9], [-1.1, 0.9]])),
            3 => Some(around(&[[0.0, -1.3], [1.3, 0.0], [0.0, 1.3], [-1.3, 0.0]])),
            4 => Some(around(&[[0.0, 1.2], [1.1, -0.9], [-1.1, -0.9]])),
            _ => Some(around(&[[-0.5, -1.2], [0.5, -1.2], [0.5, 1.2], [-0.5, 1.2]])),
        };
        let (class, tip) = (class(series), escaped(tip));
        match corners {
            None => self.push(format_args!(
                r#"<circle class="mark {class}" cx="{x:.1}" cy="{y:.1}" r="{size:.1}"><title>{tip}</title></circle>"#
            )),
            Some(points) => self.push(format_args!(
                r#"<polygon class="mark {class}" points="{points}"><title>{tip}</title></polygon>"#
            )),
        }
    }

    /// The drawing; `alt` says what is seen to who does not see it.
    pub(crate) fn finish(self, alt: &str) -> String {
        let Svg { width, height, body } = self;
        let alt = escaped(alt);
        format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" style=\"max-width:{width:.0}px\" role=\"img\" aria-label=\"{alt}\">\n{body}</svg>\n"
        )
    }
}

/// Class of the texts and shapes of a series.
pub(crate) fn class(series: usize) -> String {
    format!("s{}", series % SERIES)
}

fn joined(points: &[[f64; 2]]) -> String {
    points.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
}
