//! The findings of a study in plain sentences, each with what could be chance named as such.

use super::{Comparison, Factor, Group, Orders, Summary, bias, compare};
use crate::page::percent;
use crate::study::Study;
use crate::study::statistics::{self, Estimate, Outcomes};

/// Most important first.
pub(super) fn findings(study: &Study, summary: &Summary) -> Vec<String> {
    let mut all = best(study, summary);
    let of_best = |c: &&Comparison| [c.group, c.reference].iter().all(|&g| is_beside(summary, g, c.factor));
    all.extend(summary.comparisons.iter().filter(of_best).map(|c| sentence(summary, c)));
    all.extend(order(study, summary));
    let recency = "recency bias (the label of the last demonstration, predicted minus right)";
    let majority = "majority bias (the commonest label among the demonstrations, predicted minus right)";
    all.extend(demonstration_bias(summary, recency, |group| group.recency_bias));
    all.extend(demonstration_bias(summary, majority, |group| group.majority_bias));
    all.extend(label_bias(study, summary));
    all.extend(shortened(summary));
    all
}

/// Whether a group is the best one, or differs from it in this factor alone.
fn is_beside(summary: &Summary, group: usize, factor: Factor) -> bool {
    summary.groups[group].condition.agrees_but_for(&summary.groups[summary.best].condition, factor)
}

fn best(study: &Study, summary: &Summary) -> Vec<String> {
    let group = &summary.groups[summary.best];
    let accuracy = &group.accuracy;
    let runs = match accuracy.sd {
        Some(sd) => format!(
            "sd {:.1}, {} to {} over {} runs",
            100.0 * sd,
            percent(accuracy.min),
            percent(accuracy.max),
            accuracy.n
        ),
        None => {
            let [low, high] = study.runs[group.best].metrics.ci95;
            format!("one run, 95 % interval {} to {}", percent(low), percent(high))
        }
    };
    let mut first = format!(
        "Highest mean accuracy: {} ({runs}) with {}.",
        percent(accuracy.mean),
        summary.name(summary.best)
    );
    if summary.groups.len() > 1 {
        let picked = format!(" It is the best of {} conditions on these same rows,", summary.groups.len());
        first.push_str(&picked);
        first.push_str(" so the figure is somewhat too high for new ones.");
    }
    vec![first, baseline(study, summary)]
}

/// The best group against the commonest label, and what guessing gives.
fn baseline(study: &Study, summary: &Summary) -> String {
    let baselines = &summary.baselines;
    let mut majority = Outcomes::new(study.n());
    majority.add(0, study.gold.iter().map(|&gold| Some(f64::from(gold == baselines.majority_label))));
    let right = summary.groups[summary.best].right(study);
    let difference = statistics::difference(&right, &majority, compare::SEED);
    format!(
        "Against always answering `{}` ({}): {}. Guessing is right for {} of the rows, by the shares of the labels for {}.",
        study.labels[baselines.majority_label],
        percent(baselines.majority),
        in_points(&difference, None, difference.is_noise()),
        percent(baselines.uniform),
        percent(baselines.prior),
    )
}

pub(super) fn sentence(summary: &Summary, comparison: &Comparison) -> String {
    let [group, reference, both] = summary.names(comparison);
    let both = if both.is_empty() { both } else { format!(" ({both})") };
    let difference = in_points(&comparison.difference, comparison.mcnemar, comparison.is_noise());
    format!("{group} against {reference}{both}: {difference}.")
}

/// The widest spread that the order alone makes.
fn order(study: &Study, summary: &Summary) -> Option<String> {
    let wider = |a: &Orders, b: &Orders| a.range.total_cmp(&b.range);
    let widest = summary.orders.iter().max_by(|a, b| wider(a, b))?;
    let accuracy = |run: usize| percent(study.runs[run].metrics.accuracy);
    let is_noise = if widest.p >= 0.05 { "within noise" } else { "more than noise" };
    Some(format!(
        "The order of the same demonstrations moves accuracy by up to {:.1} points: {} to {} over {} orders of seed {} ({}); {is_noise} (best against worst, McNemar p {}, corrected for the {} pairs they are picked from).",
        100.0 * widest.range,
        accuracy(widest.worst),
        accuracy(widest.best),
        widest.n,
        widest.seed,
        summary.name(widest.group),
        probability(widest.p),
        widest.n * (widest.n - 1) / 2,
    ))
}

/// The group with the largest bias, among those where it is more than noise if there are any.
fn demonstration_bias(
    summary: &Summary,
    what: &str,
    bias: impl Fn(&Group) -> Option<Estimate>,
) -> Option<String> {
    let all = summary.groups.iter().enumerate().filter_map(|(i, group)| Some((i, bias(group)?)));
    let size = |(_, bias): &(usize, Estimate)| (!bias.is_noise(), bias.value.abs());
    let by_size = |a: &(usize, Estimate), b: &(usize, Estimate)| {
        size(a).0.cmp(&size(b).0).then(size(a).1.total_cmp(&size(b).1))
    };
    let (group, largest) = all.max_by(by_size)?;
    let difference = in_points(&largest, None, largest.is_noise());
    Some(format!("Largest {what}: {difference} ({}).", summary.name(group)))
}

fn label_bias(study: &Study, summary: &Summary) -> Option<String> {
    let group = &summary.groups[summary.best];
    let by_size = |a: &(usize, &f64), b: &(usize, &f64)| a.1.total_cmp(b.1);
    let (label, _) = group.label_bias.iter().enumerate().max_by(by_size)?;
    let bias = statistics::mean(&bias::of_label(study, &group.runs, label)?, compare::SEED);
    let right = study.gold.iter().filter(|&&gold| gold == label).count() as f64 / study.n() as f64;
    let noise = if bias.is_noise() { ": within noise" } else { "" };
    Some(format!(
        "In the best condition `{}` is predicted for {} of the rows and right for {}{noise}.",
        study.labels[label],
        percent(right + bias.value),
        percent(right)
    ))
}

fn shortened(summary: &Summary) -> Option<String> {
    let shortened: usize = summary.groups.iter().map(|group| group.shortened).sum();
    let all: usize = summary.groups.iter().map(|group| group.runs.len()).sum();
    let some =
        format!("In {shortened} of {all} runs the context window held fewer demonstrations than asked for.");
    (shortened > 0).then_some(some)
}

/// `+3.1 points, 95 % interval -0.4 to 6.6: within noise`.
fn in_points(estimate: &Estimate, mcnemar: Option<f64>, is_noise: bool) -> String {
    let Estimate { value, low, high } = *estimate;
    let p = mcnemar.map_or_else(String::new, |p| format!(", McNemar p {}", probability(p)));
    let noise = if is_noise { ": within noise" } else { "" };
    format!("{:+.1} points, 95 % interval {:.1} to {:.1}{p}{noise}", 100.0 * value, 100.0 * low, 100.0 * high)
}

fn probability(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("= {p:.3}") }
}
