//! From numbers to places, with ticks at round numbers.

use super::svg::{Anchor, Svg};

/// A stretch of numbers over a stretch of pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    step: f64,
}

impl Axis {
    /// Over all values that are numbers, ends rounded outwards; `None` without any.
    pub(crate) fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Axis> {
        let known = values.filter(|x| x.is_finite());
        let (min, max) = known.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        if min > max {
            return None;
        }
        // one number, or all the same, still gets a stretch around it
        let step = round_step((max - min).max(0.04) / 5.0);
        let (low, high) = ((min / step - 0.1).floor() * step, (max / step + 0.1).ceil() * step);
        Some(Axis { low, high, from, to, step })
    }

    /// The same for shares: not beyond 0 and 1.
    pub(crate) fn of_shares(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Axis> {
        let axis = Axis::around(values, from, to)?;
        Some(Axis { low: axis.low.max(0.0), high: axis.high.min(1.0), ..axis })
    }

    /// Pixels of a number.
    pub(crate) fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        let first = (self.low / self.step).round() as i64;
        let last = (self.high / self.step).round() as i64;
        (first..=last).map(|i| i as f64 * self.step)
    }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|k| k * power).find(|&round| round >= step * 0.999).unwrap_or(step)
}

/// A rectangle to draw in, with numbers along one of its sides.
#[derive(Clone, Copy)]
pub(crate) struct Area {
    pub(crate) left: f64,
    pub(crate) right: f64,
    pub(crate) top: f64,
    pub(crate) bottom: f64,
}

impl Area {
    /// Grid lines and percentages at the left.
    pub(crate) fn percent_y(&self, svg: &mut Svg, axis: &Axis, title: &str) {
        let mut widest = 0;
        for tick in axis.ticks() {
            let (y, label) = (axis.at(tick), format!("{:.0}", 100.0 * tick));
            svg.line("grid", [self.left, y], [self.right, y]);
            svg.text("tick", [self.left - 6.0, y + 4.0], Anchor::End, &label);
            widest = widest.max(label.len());
        }
        // a digit is about 7 wide
        let beside = self.left - 19.0 - 7.0 * widest as f64;
        svg.upright("title", [beside, (self.top + self.bottom) / 2.0], title);
    }

    /// Grid lines and percentages below.
    pub(crate) fn percent_x(&self, svg: &mut Svg, axis: &Axis, title: &str) {
        for tick in axis.ticks() {
            let x = axis.at(tick);
            svg.line("grid", [x, self.top], [x, self.bottom]);
            svg.text("tick", [x, self.bottom + 17.0], Anchor::Middle, &format!("{:.0}", 100.0 * tick));
        }
        svg.text("title", [(self.left + self.right) / 2.0, self.bottom + 36.0], Anchor::Middle, title);
    }

    /// Names behind the right end of what they name, moved apart: height, class and name of each.
    pub(crate) fn label_ends(&self, svg: &mut Svg, ends: &[(f64, String, String)]) {
        let mut places: Vec<f64> = ends.iter().map(|end| end.0).collect();
        apart(&mut places, 15.0, self.bottom);
        for (place, (_, class, name)) in places.iter().zip(ends) {
            svg.text(&format!("label {class}"), [self.right + 8.0, place + 4.0], Anchor::Start, name);
        }
    }

    /// Places along the bottom, one for each name.
    pub(crate) fn names_x(&self, svg: &mut Svg, names: &[String], title: &str) -> Vec<f64> {
        svg.line("axis", [self.left, self.bottom], [self.right, self.bottom]);
        let places = spread(self.left, self.right, names.len());
        for (name, &x) in names.iter().zip(&places) {
            svg.text("tick", [x, self.bottom + 17.0], Anchor::Middle, name);
        }
        svg.text("title", [(self.left + self.right) / 2.0, self.bottom + 36.0], Anchor::Middle, title);
        places
    }
}

/// The middles of `n` equal parts.
pub(crate) fn spread(from: f64, to: f64, n: usize) -> Vec<f64> {
    (0..n).map(|i| from + (to - from) * (i as f64 + 0.5) / n as f64).collect()
}

/// Moves places apart to at least `gap`, in their order, and back up when they run over `end`.
fn apart(places: &mut [f64], gap: f64, end: f64) {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));
    for pair in order.windows(2) {
        places[pair[1]] = places[pair[1]].max(places[pair[0]] + gap);
    }
    let mut limit = end;
    for &i in order.iter().rev() {
        places[i] = places[i].min(limit);
        limit = places[i] - gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_the_numbers() {
        let axis = Axis::around([0.613, f64::NAN, 0.874].into_iter(), 100.0, 0.0).unwrap();
        let ticks: Vec<String> = axis.ticks().map(|t| format!("{t:.1}")).collect();
        assert_eq!(ticks, ["0.6", "0.7", "0.8", "0.9"]);
        assert_eq!((axis.at(0.6).round(), axis.at(0.9).round()), (100.0, 0.0));
        assert!(Axis::around([f64::NAN].into_iter(), 0.0, 1.0).is_none());
    }

    #[test]
    fn one_number_has_an_axis() {
        let axis = Axis::of_shares([1.0].into_iter(), 0.0, 10.0).unwrap();
        assert!(axis.at(1.0).is_finite() && axis.ticks().count() >= 2);
    }

    #[test]
    fn labels_do_not_overlap() {
        let mut places = [50.0, 52.0, 10.0, 51.0];
        apart(&mut places, 14.0, 60.0);
        assert_eq!(places, [32.0, 60.0, 10.0, 46.0]);
    }
}
