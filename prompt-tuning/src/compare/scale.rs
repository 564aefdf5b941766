//! The same comparison with models of several sizes: what becomes of a method as models grow.
//!
//! "Prompt tuning catches up as models grow" (Lester et al. 2021) and "few-shot ability appears with scale" (Brown et al. 2020)
//! are said of models up to a thousand times larger than what a desk computer trains. What is seen here holds for the sizes that
//! were measured.

use std::collections::BTreeMap;

use serde::Serialize;

use super::plots::{Frame, Points, Series, panel};
use super::summary::{Group, SEED, bytes, count, outcomes};
use super::{Comparison, Kind, Summary, Training};
use crate::error::{Error, Result};
use crate::page::{self, Figure, document, escaped, findings};
use crate::study::statistics::{self, Estimate, Spread};
use crate::text_table::aligned;

/// Heads of the table.
const HEADS: [&str; 10] =
    ["model", "numbers", "method", "rows", "accuracy %", "sd", "trained", "s/step", "TFLOP/step", "memory"];

/// Comparisons of one task, from the smallest model to the largest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scale {
    /// Name of the task.
    pub task: String,
    /// One per model.
    pub models: Vec<OfModel>,
    /// What the numbers show, in sentences.
    pub findings: Vec<String>,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfModel {
    /// As it was given.
    pub model: String,
    /// Numbers in it.
    pub size: u64,
    /// Whether it says nothing but what training costs.
    pub cost_only: bool,
    /// Of every method, with the most training rows.
    pub groups: Vec<Group>,
    /// Of every prompt.
    pub costs: Vec<Costs>,
    /// The best prompt less the best training of weights.
    pub prompt_less_weights: Option<Estimate>,
    /// The best with demonstrations less without.
    pub shots_less_none: Option<Estimate>,
}

/// What training a prompt costs, as shares of what training all weights with the same seed costs; over the seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Costs {
    /// Name of the method.
    pub method: String,
    /// Products with weights.
    pub arithmetic: Option<Spread>,
    /// The middle step.
    pub time: Option<Spread>,
    /// The most the process had.
    pub memory: Option<Spread>,
}

/// One of the [`Costs`].
type Share = fn(&Costs) -> Option<Spread>;

impl Scale {
    /// Of comparisons over the same rows, and of others of which only what training costs is of interest, as models with
    /// random weights.
    ///
    /// # Errors
    /// There are fewer than two of the former, or they are of different rows.
    pub fn of(mut comparisons: Vec<Comparison>, cost_only: &[Comparison]) -> Result<Scale> {
        comparisons.sort_by_key(|comparison| comparison.model_size);
        let [first, _, ..] = &comparisons[..] else {
            return Err(Error::Input(
                "two comparisons at least are needed, of models of different sizes".into(),
            ));
        };
        if let Some(odd) = comparisons.iter().find(|c| c.gold != first.gold || c.labels != first.labels) {
            return Err(Error::Input(format!(
                "the comparison of `{}` is of other rows ({}) than that of `{}` ({})",
                odd.model, odd.data, first.model, first.data
            )));
        }
        for pair in comparisons.windows(2) {
            if let Some(what) = differs(&pair[0], &pair[1]) {
                return Err(Error::Input(format!(
                    "the comparisons of `{}` and `{}` differ in {what}: not only the size of the model would be seen",
                    pair[0].model, pair[1].model
                )));
            }
        }
        let mut models: Vec<OfModel> = comparisons.iter().map(of_model).collect();
        models.extend(cost_only.iter().map(costs_of_model));
        models.sort_by_key(|model| model.size);
        Ok(Scale { task: first.task.clone(), findings: sentences(&models), models })
    }

    /// The table as rows of text.
    fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for model in &self.models {
            for group in &model.groups {
                let training = group.training.as_ref();
                let dash = || "-".to_string();
                let accuracy = (!model.cost_only).then_some(group.accuracy);
                let percent = |x: f64| format!("{:.1}", 100.0 * x);
                rows.push(vec![
                    model.model.clone(),
                    count(model.size),
                    group.method.clone(),
                    group.n_train.to_string(),
                    accuracy.map_or_else(dash, |a| percent(a.mean)),
                    accuracy.and_then(|a| a.sd).map_or_else(dash, percent),
                    training.map_or_else(dash, |t| count(t.trained)),
                    training.map_or_else(dash, |t| format!("{:.2}", t.seconds_per_step)),
                    training.map_or_else(dash, |t| format!("{:.3}", t.flops / t.steps as f64 / 1e12)),
                    training.and_then(|t| t.peak_rss_bytes).map_or_else(dash, bytes),
                ]);
            }
        }
        rows
    }

    /// The table as text.
    pub fn table(&self) -> String {
        aligned(&HEADS, &self.rows(), |column| column > 0)
    }

    /// The page.
    pub fn html(&self) -> String {
        let table = format!(
            "<section>\n<h2>All models</h2>\n<p class=\"note\">Every method with the most training rows it had. accuracy: mean over \
             the seeds. s/step: the middle step. TFLOP/step: their mean, in products with weights. memory: the most the process had.</p>\n{}</section>\n",
            page::table(&HEADS, &self.rows(), &[0, 2])
        );
        let names: Vec<&str> = self.models.iter().map(|m| m.model.as_str()).collect();
        let lead = format!("{} models: {}.", names.len(), escaped(&names.join(", ")));
        let figures = [self.accuracy(), self.costs()].iter().flatten().map(Figure::html).collect();
        document(
            &format!("Methods as the model grows: {}", self.task),
            &lead,
            &[findings(&self.findings), figures, table],
        )
    }

    fn accuracy(&self) -> Option<Figure> {
        let measured: Vec<&OfModel> = self.models.iter().filter(|model| !model.cost_only).collect();
        let series = lines(&measured, |_, group| Some(group.accuracy));
        let svg = against_size(&measured, "accuracy (%)", true, &series)?;
        let caption = "Marks: mean over the seeds. Band: one standard deviation to each side.";
        Figure::new("Accuracy against the size of the model", caption.into(), vec![(String::new(), svg)])
    }

    fn costs(&self) -> Option<Figure> {
        let models: Vec<&OfModel> = self.models.iter().collect();
        let panel = |(name, cost): (&str, Share)| {
            let of = |model: &OfModel, group: &Group| {
                model.costs.iter().find(|costs| costs.method == group.method).and_then(cost)
            };
            Some((name.to_string(), against_size(&models, "of all weights (%)", false, &lines(&models, of))?))
        };
        let caption = "What training the prompt needed, of what training all weights of the same model needed. Band: one standard \
                       deviation to each side.";
        let panels: [(&str, Share); 3] = [
            ("arithmetic in products with weights", |costs| costs.arithmetic),
            ("time of the middle step", |costs| costs.time),
            ("memory of the process", |costs| costs.memory),
        ];
        Figure::new(
            "Cost of a prompt against the size of the model",
            caption.into(),
            panels.into_iter().filter_map(panel).collect(),
        )
    }
}

/// A line for each method, empty where no model has a value.
fn lines(models: &[&OfModel], value: impl Fn(&OfModel, &Group) -> Option<Spread>) -> Vec<Series> {
    let mut methods: Vec<&str> = Vec::new();
    for group in models.iter().flat_map(|model| &model.groups) {
        if !methods.contains(&group.method.as_str()) {
            methods.push(&group.method);
        }
    }
    let of_method = |method: &&str| {
        let group = |model: &OfModel| {
            model.groups.iter().find(|g| g.method == *method).and_then(|group| value(model, group))
        };
        let points = models.iter().enumerate();
        let points = points.filter_map(|(i, model)| Some((i, group(model)?))).collect();
        Series { name: method.to_string(), points: Points::At(points) }
    };
    methods.iter().map(of_method).collect()
}

fn against_size(models: &[&OfModel], beside: &str, shares: bool, series: &[Series]) -> Option<String> {
    let places: Vec<String> = models.iter().map(|model| count(model.size)).collect();
    panel(&Frame { places: &places, below: "numbers in the model", beside, shares }, series)
}

/// What two comparisons that are put side by side must have in common and have not; or the size, which must differ.
fn differs(a: &Comparison, b: &Comparison) -> Option<String> {
    let trained =
        |c: &Comparison| c.cells.iter().filter(|cell| cell.training.is_some()).map(|cell| cell.n_train).max();
    let most = |c: &Comparison| trained(c).unwrap_or(0);
    let pairs = [
        ("steps", a.steps, b.steps),
        ("batch", a.batch as u64, b.batch as u64),
        ("training rows", most(a) as u64, most(b) as u64),
    ];
    let other = pairs.into_iter().find(|(_, a, b)| a != b);
    match other {
        Some((what, a, b)) => Some(format!("{what} ({a} and {b})")),
        None if a.task != b.task => Some(format!("the task (`{}` and `{}`)", a.task, b.task)),
        None if a.model_size == b.model_size => Some("nothing, the models have one size".into()),
        None => None,
    }
}

/// Of every prompt, beside the first method that trained about as many numbers as any: a head in place of words adds a few.
fn costs(comparison: &Comparison, groups: &[Group]) -> Vec<Costs> {
    let trained = |group: &Group| group.training.as_ref().map_or(0, |training| training.trained);
    let most = groups.iter().map(trained).max().unwrap_or(0);
    let all_of_them =
        |group: &&Group| group.kind == Kind::Weights && trained(group) as f64 >= 0.99 * most as f64;
    let weights = groups.iter().find(all_of_them);
    let of_prompt = |(prompt, weights): (&Group, &Group)| {
        let share = |cost| share(comparison, [prompt, weights], cost);
        Costs {
            method: prompt.method.clone(),
            arithmetic: share(|training| Some(training.flops)),
            time: share(|training| Some(training.seconds_per_step)),
            memory: share(|training| training.peak_rss_bytes.map(|bytes| bytes as f64)),
        }
    };
    let prompts = groups.iter().filter(|group| group.kind == Kind::Prompt);
    prompts.filter_map(|prompt| Some(of_prompt((prompt, weights?)))).collect()
}

/// Of a cost, what one group needed of what another did with the same seed.
fn share(
    comparison: &Comparison,
    [part, whole]: [&Group; 2],
    cost: fn(&Training) -> Option<f64>,
) -> Option<Spread> {
    let of_seeds = |group: &Group| -> BTreeMap<u64, f64> {
        let cells = group.cells.iter().map(|&cell| &comparison.cells[cell]);
        cells.filter_map(|cell| Some((cell.seed, cost(cell.training.as_ref()?)?))).collect()
    };
    let whole = of_seeds(whole);
    let shares: Vec<f64> =
        of_seeds(part).iter().filter_map(|(seed, part)| Some(part / whole.get(seed)?)).collect();
    Spread::of(&shares)
}

fn of_model(comparison: &Comparison) -> OfModel {
    let summary = Summary::of(comparison);
    let most = summary.sizes().last().copied().unwrap_or(0);
    let groups: Vec<Group> = summary
        .groups
        .into_iter()
        .filter(|group| group.kind == Kind::Asked && !group.was_chosen() || group.n_train == most)
        .collect();
    let best = |wanted: &dyn Fn(&&Group) -> bool| {
        groups.iter().filter(wanted).max_by(|a, b| a.accuracy.mean.total_cmp(&b.accuracy.mean))
    };
    let difference = |a: Option<&Group>, b: Option<&Group>| {
        let of = |group: &Group| outcomes(comparison, &group.cells);
        Some(statistics::difference(&of(a?), &of(b?), SEED))
    };
    let asked = |group: &&Group| group.kind == Kind::Asked && !group.was_chosen();
    OfModel {
        model: comparison.model.clone(),
        size: comparison.model_size,
        cost_only: false,
        costs: costs(comparison, &groups),
        prompt_less_weights: difference(
            best(&|group| group.kind == Kind::Prompt),
            best(&|group| group.kind == Kind::Weights),
        ),
        shots_less_none: difference(
            best(&|group| asked(group) && group.n_train > 0),
            best(&|group| asked(group) && group.n_train == 0),
        ),
        groups,
    }
}

fn costs_of_model(comparison: &Comparison) -> OfModel {
    let mut model = of_model(comparison);
    model.groups.retain(|group| group.training.is_some());
    OfModel { cost_only: true, prompt_less_weights: None, shots_less_none: None, ..model }
}

/// What is said, which difference tells, and the difference.
type Claim = (&'static str, &'static str, fn(&OfModel) -> Option<Estimate>);

/// What is said of scale, and what is seen here.
fn sentences(models: &[OfModel]) -> Vec<String> {
    let claims: [Claim; 2] = [
        ("Prompt tuning catches up as models grow", "best prompt less best weights", |m| {
            m.prompt_less_weights
        }),
        ("Few-shot ability appears with scale", "best with demonstrations less without", |m| {
            m.shots_less_none
        }),
    ];
    claims.into_iter().filter_map(|claim| sentence(models, claim)).collect()
}

fn sentence(models: &[OfModel], (claim, what, of): Claim) -> Option<String> {
    let known: Vec<(&OfModel, Estimate)> = models.iter().filter_map(|m| Some((m, of(m)?))).collect();
    let [(_, small), .., (_, large)] = &known[..] else { return None };
    let each: Vec<String> = known
        .iter()
        .map(|(model, Estimate { value, low, high })| {
            format!(
                "{} {:+.1} ({:+.1} to {:+.1})",
                count(model.size),
                100.0 * value,
                100.0 * low,
                100.0 * high
            )
        })
        .collect();
    let seen = match () {
        () if large.low > small.high => "seen here",
        () if large.high < small.low => "the opposite is seen here",
        () => "cannot be told here: the intervals of the smallest and the largest model overlap",
    };
    Some(format!("\"{claim}\": {seen}. Points, {what}, by numbers in the model: {}.", each.join("; ")))
}
