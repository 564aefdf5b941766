//! Made-up results for tests: accuracy grows with shots, orders that end in label 1 lean towards it.

use super::{DemonstrationLabels, Run, Study, metrics};
use crate::rng::Rng;
use crate::verbalizer::Answer;

/// How many of each.
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) labels: Vec<String>,
    pub(super) templates: Vec<&'static str>,
    pub(super) shots: Vec<usize>,
    pub(super) seeds: u64,
    pub(super) orders: usize,
    pub(super) calibrations: Vec<&'static str>,
}

/// Small enough for any test.
pub(super) fn study() -> Study {
    of(&Size {
        rows: 60,
        labels: ["positive", "negative"].map(String::from).to_vec(),
        templates: vec!["plain", "question"],
        shots: vec![0, 4],
        seeds: 2,
        orders: 3,
        calibrations: vec!["none", "contextual"],
    })
}

pub(super) fn of(size: &Size) -> Study {
    let mut rng = Rng::new(5);
    let gold: Vec<usize> = (0..size.rows).map(|_| rng.below(size.labels.len())).collect();
    let mut study = Study {
        task: "sst2".into(),
        model: "SmolLM2-135M".into(),
        data: "dev.jsonl".into(),
        train: "train.jsonl".into(),
        n_train: 1000,
        labels: size.labels.clone(),
        gold,
        command: "prompt-tuning few-shot --model SmolLM2-135M --task sst2.toml --train train.jsonl --data dev.jsonl \
                  --shots 0 1 2 4 8 --seeds 5 --orders all"
            .into(),
        machine: "made up, 2 threads".into(),
        seconds: 812.4,
        computed_tokens: 1_234_567,
        plain_tokens: 23_456_789,
        runs: Vec::new(),
    };
    for (i, &template) in size.templates.iter().enumerate() {
        for &shots in &size.shots {
            let (seeds, orders) = if shots == 0 { (1, 1) } else { (size.seeds, size.orders) };
            for seed in 0..seeds {
                for order in 0..if shots < 2 { 1 } else { orders } {
                    for &calibration in &size.calibrations {
                        let run = run(&study, template, shots, [seed, order as u64], calibration, i as f64);
                        study.runs.push(run);
                    }
                }
            }
        }
    }
    study
}

fn run(study: &Study, template: &str, shots: usize, place: [u64; 2], calibration: &str, worse: f64) -> Run {
    let [seed, order] = place;
    let mut rng = Rng::new(shots as u64).fork(seed).fork(order);
    let n = study.labels.len();
    let mut permutation: Vec<usize> = (0..shots).collect();
    rng.shuffle(&mut permutation);
    let demonstrations: Vec<usize> = permutation.iter().map(|&i| (i + seed as usize) % n).collect();
    let lean = if calibration == "none" { 1.0 } else { 0.2 };
    let skill = 1.0 + 0.35 * (1.0 + shots as f64).ln() - 0.3 * worse;
    let answer = |gold: usize| {
        let score = |label: usize| {
            let last = f64::from(demonstrations.last() == Some(&label));
            skill * f64::from(label == gold) + lean * (last + 0.8 * f64::from(label == 0))
        };
        let noise: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        Answer { log_probs: (0..n).map(|label| 1.5 * (score(label) + noise[label])).collect() }
    };
    let answers: Vec<Answer> = study.gold.iter().copied().map(answer).collect();
    let metrics::Scored { predicted, probability, metrics } = metrics::scored(&study.gold, &answers);
    Run {
        template: template.into(),
        shots,
        requested_shots: shots,
        seed,
        order: order as usize,
        permutation,
        choice: "random".into(),
        ordering: "all".into(),
        calibration: calibration.into(),
        demonstration_labels: DemonstrationLabels::Shared(demonstrations),
        predicted,
        probability,
        metrics,
    }
}
