//! What the numbers show, beside what is commonly said of prompt tuning: in sentences, with what could be chance named as
//! such.

use super::summary::{Group, SEED, bytes, outcomes};
use super::{Comparison, Kind, Summary, Training};
use crate::page::percent;
use crate::study::statistics::{self, Baselines, Estimate, Spread};

pub(super) fn findings(comparison: &Comparison, summary: &Summary) -> Vec<String> {
    let view = View { comparison, summary };
    let sizes = summary.sizes();
    let mut all: Vec<String> = view.asked().into_iter().collect();
    all.extend(sizes.iter().filter_map(|&n| view.prompt_beside_weights(n)));
    all.extend(view.turn(&sizes));
    all.extend(sizes.first().and_then(|&n| view.overfitting(n)));
    all.extend(sizes.last().and_then(|&n| view.cost(n)));
    all.extend(sizes.last().and_then(|&n| view.forgetting(n)));
    all
}

struct View<'a> {
    comparison: &'a Comparison,
    summary: &'a Summary,
}

impl View<'_> {
    /// The group with the highest mean accuracy of a kind, with so many training rows.
    fn best(&self, kind: Kind, n_train: usize) -> Option<&Group> {
        let all = self.summary.groups.iter();
        let of_kind = all.filter(|g| g.kind == kind && g.n_train == n_train);
        of_kind.max_by(|a, b| a.accuracy.mean.total_cmp(&b.accuracy.mean))
    }

    /// The best prompt and the best training of weights with so many rows.
    fn prompt_and_weights(&self, n: usize) -> Option<(&Group, &Group)> {
        Some((self.best(Kind::Prompt, n)?, self.best(Kind::Weights, n)?))
    }

    fn difference(&self, a: &Group, b: &Group) -> Estimate {
        let of = |group: &Group| outcomes(self.comparison, &group.cells);
        statistics::difference(&of(a), &of(b), SEED)
    }

    /// What is right without any training.
    fn asked(&self) -> Option<String> {
        let baselines = Baselines::of(&self.comparison.gold, self.comparison.labels.len());
        let asked = self.summary.groups.iter().filter(|group| group.kind == Kind::Asked);
        let named: Vec<String> = asked.map(named).collect();
        (!named.is_empty()).then(|| {
            format!(
                "Without training: {}. Always answering `{}` is right for {}.",
                named.join(", "),
                self.comparison.labels[baselines.majority_label],
                percent(baselines.majority)
            )
        })
    }

    /// The best prompt and the best training of weights, with the same rows.
    fn prompt_beside_weights(&self, n: usize) -> Option<String> {
        let (prompt, weights) = self.prompt_and_weights(n)?;
        let difference = self.difference(prompt, weights);
        Some(format!("With {n} rows: {} against {}: {}.", named(prompt), named(weights), points(&difference)))
    }

    /// "With few examples prompts win, with many the weights do."
    fn turn(&self, sizes: &[usize]) -> Option<String> {
        let (&few, &many) = (sizes.first()?, sizes.last()?);
        if few == many {
            return None;
        }
        let at = |n| {
            let (prompt, weights) = self.prompt_and_weights(n)?;
            Some(self.difference(prompt, weights))
        };
        let (few_rows, many_rows) = (at(few)?, at(many)?);
        let says = match (side(&few_rows), side(&many_rows)) {
            (1, -1) => "holds here",
            (-1, 1) => "is reversed here",
            (a, b) if a == b && a != 0 => "does not hold here: the same side is ahead at both ends",
            _ => "cannot be told here: at one end at least the difference is within noise",
        };
        Some(format!("That prompts are better with few rows ({few}) and weights with many ({many}) {says}."))
    }

    /// "A prompt has too few numbers to overfit."
    fn overfitting(&self, n: usize) -> Option<String> {
        let (prompt, weights) = self.prompt_and_weights(n)?;
        let (a, b) = (prompt.gap.as_ref()?, weights.gap.as_ref()?);
        let gap = |spread: &Spread| match spread.sd {
            Some(sd) => format!("{:+.1} (sd {:.1})", 100.0 * spread.mean, 100.0 * sd),
            None => format!("{:+.1}", 100.0 * spread.mean),
        };
        let says = if a.mean < b.mean { "overfits less" } else { "does not overfit less" };
        Some(format!(
            "Overfitting with {n} rows, accuracy on them less that on unseen rows: {} points for {}, {} for {}: the prompt \
             {says}.",
            gap(a),
            prompt.method,
            gap(b),
            weights.method
        ))
    }

    /// What a step, the memory and the file cost.
    fn cost(&self, n: usize) -> Option<String> {
        let prompt = self.best(Kind::Prompt, n)?;
        let of_size = self.summary.groups.iter().filter(|g| g.kind == Kind::Weights && g.n_train == n);
        // the most that can be trained: what is called fine-tuning
        let weights = of_size.max_by_key(|g| g.training.as_ref().map_or(0, |t| t.trained))?;
        let (a, b) = (prompt.training.as_ref()?, weights.training.as_ref()?);
        let ratio = |of: &dyn Fn(&Training) -> f64| of(a) / of(b);
        let memory = match (a.peak_rss_bytes, b.peak_rss_bytes) {
            (Some(a), Some(b)) => format!(", {} of memory against {}", bytes(a), bytes(b)),
            _ => String::new(),
        };
        Some(format!(
            "Cost, {} beside {}: {:.4} % of the numbers trained, {} kept against {}, {:.2} of the time of a step and {:.2} of \
             its arithmetic{memory}.",
            prompt.method,
            weights.method,
            100.0 * ratio(&|t| t.trained as f64),
            bytes(a.stored_bytes),
            bytes(b.stored_bytes),
            ratio(&|t| t.seconds_per_step),
            ratio(&|t| t.flops / t.steps as f64),
        ))
    }

    /// What is lost elsewhere.
    fn forgetting(&self, n: usize) -> Option<String> {
        let (prompt, weights) = self.prompt_and_weights(n)?;
        let lost = |group: &Group| {
            let perplexity = group
                .perplexity
                .as_ref()
                .map(|p| format!("perplexity on general text {:+.1} %", 100.0 * p.mean));
            let others = group
                .others
                .as_ref()
                .map(|o| format!("accuracy on other tasks {:+.1} points", 100.0 * o.mean));
            let both: Vec<String> = perplexity.into_iter().chain(others).collect();
            (!both.is_empty()).then(|| format!("{}: {}", group.method, both.join(", ")))
        };
        let both = [lost(prompt)?, lost(weights)?].join("; ");
        Some(format!(
            "Forgetting after {n} rows: {both}. A prompt does this only while it stands in front of the text: without it the \
             model is what it was, bit for bit."
        ))
    }
}

fn named(group: &Group) -> String {
    let sd = group.accuracy.sd.map_or_else(String::new, |sd| format!(", sd {:.1}", 100.0 * sd));
    format!("{} {}{sd}", group.method, percent(group.accuracy.mean))
}

/// Which of the two is ahead: 0 for neither.
fn side(difference: &Estimate) -> i32 {
    match difference.is_noise() {
        true => 0,
        false => difference.value.signum() as i32,
    }
}

fn points(difference: &Estimate) -> String {
    let Estimate { value, low, high } = difference;
    let noise = if difference.is_noise() { ", within noise" } else { "" };
    format!("{:+.1} points (95 % interval {:+.1} to {:+.1}{noise})", 100.0 * value, 100.0 * low, 100.0 * high)
}
