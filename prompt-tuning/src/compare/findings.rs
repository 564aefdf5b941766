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
    /// The groups of a kind with so many training rows.
    fn of_kind(&self, kind: Kind, n_train: usize) -> impl Iterator<Item = &Group> {
        self.summary.groups.iter().filter(move |g| g.kind == kind && g.n_train == n_train)
    }

    /// The best prompt and the best training of weights with so many rows.
    fn prompt_and_weights(&self, n: usize) -> Option<(&Group, &Group)> {
        Some((best(self.of_kind(Kind::Prompt, n))?, best(self.of_kind(Kind::Weights, n))?))
    }

    /// Whether a method trains a classifier, which predicts no tokens.
    fn is_classifier(&self, group: &Group) -> bool {
        let mut methods = self.comparison.methods.iter();
        methods.any(|m| m.name == group.method && m.arguments.split_whitespace().any(|word| word == "--head"))
    }

    fn difference(&self, a: &Group, b: &Group) -> Estimate {
        let of = |group: &Group| outcomes(self.comparison, &group.cells);
        statistics::difference(&of(a), &of(b), SEED)
    }

    /// What is right without any training.
    fn asked(&self) -> Option<String> {
        let baselines = Baselines::of(&self.comparison.gold, self.comparison.labels.len());
        let asked = self.summary.groups.iter().filter(|group| group.kind == Kind::Asked);
        let named: Vec<String> = asked
            .map(|group| match group.was_chosen() {
                true => format!("{}, chosen by {} labelled rows", named(group), group.n_train),
                false => named(group),
            })
            .collect();
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
        // the best of several on the very rows that they are compared on looks a little better than it is
        let of = |kind| match self.of_kind(kind, n).count() {
            1 => String::new(),
            many => format!(", best of {many}"),
        };
        let (prompts, trainings) = (of(Kind::Prompt), of(Kind::Weights));
        let (prompt, weights) = (named(prompt), named(weights));
        let points = points(&difference);
        Some(format!(
            "With {n} rows: {prompt}{prompts}, against {weights}{trainings}: {points}.{}",
            self.one_seed()
        ))
    }

    /// What an interval does not know.
    fn one_seed(&self) -> &'static str {
        let first = self.comparison.cells.first().map(|cell| cell.seed);
        match self.comparison.cells.iter().all(|cell| Some(cell.seed) == first) {
            true => " The interval is over rows only: what another seed would give is not known.",
            false => "",
        }
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
            _ if !self.one_seed().is_empty() => "cannot be told from one seed",
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
        let says = match (a.sd, b.sd) {
            (Some(sd_a), Some(sd_b)) => {
                // of a difference of two means over a handful of seeds
                let error = ((sd_a * sd_a + sd_b * sd_b) / a.n.min(b.n) as f64).sqrt();
                match b.mean - a.mean {
                    less if less > 3.0 * error => "the prompt overfits less",
                    less if less < -3.0 * error => "the prompt overfits more",
                    _ => "the seeds differ too much to tell them apart",
                }
            }
            _ => "one seed does not tell whether that is chance",
        };
        Some(format!(
            "Overfitting with {n} rows, accuracy on them less that on unseen rows: {} points for {}, {} for {}: {says}. What has \
             learnt nothing has no gap either: accuracy is {} and {}.",
            gap(a),
            prompt.method,
            gap(b),
            weights.method,
            percent(prompt.accuracy.mean),
            percent(weights.accuracy.mean)
        ))
    }

    /// What a step, the memory and the file cost.
    fn cost(&self, n: usize) -> Option<String> {
        let prompt = best(self.of_kind(Kind::Prompt, n))?;
        // the most of the model itself: what is called fine-tuning
        let trained = |group: &&Group| group.training.as_ref().map_or(0, |t| t.trained);
        let weights = self.of_kind(Kind::Weights, n).max_by_key(|g| (!self.is_classifier(g), trained(g)))?;
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
        let known = |group: &&Group| group.perplexity.is_some() || group.others.is_some();
        let best_known = |kind| best(self.of_kind(kind, n).filter(known));
        let (prompt, weights) = (best_known(Kind::Prompt)?, best_known(Kind::Weights)?);
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

/// The group with the highest mean accuracy.
fn best<'g>(groups: impl Iterator<Item = &'g Group>) -> Option<&'g Group> {
    groups.max_by(|a, b| a.accuracy.mean.total_cmp(&b.accuracy.mean))
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
