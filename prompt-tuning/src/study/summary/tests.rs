use super::*;
use crate::study::{DemonstrationLabels, Run, RunMetrics, example};

/// A run over four rows whose right labels are 0 0 1 1.
fn run(shots: usize, [seed, order]: [u64; 2], demonstrations: Vec<usize>, predicted: Vec<usize>) -> Run {
    let right = predicted.iter().zip([0, 0, 1, 1]).filter(|(p, g)| **p == *g).count();
    Run {
        template: "plain".into(),
        shots,
        requested_shots: shots,
        seed,
        order: order as usize,
        permutation: (0..shots).collect(),
        choice: "random".into(),
        ordering: "random".into(),
        calibration: "none".into(),
        demonstration_labels: DemonstrationLabels::Shared(demonstrations),
        predicted,
        probability: vec![0.75; 4],
        metrics: RunMetrics {
            accuracy: right as f64 / 4.0,
            ci95: [0.0, 1.0],
            macro_f1: 0.5,
            loss: 0.5,
            ece: 0.1,
        },
    }
}

fn study(runs: Vec<Run>) -> Study {
    let study = Study { gold: vec![0, 0, 1, 1], runs, ..example::study() };
    study.check().unwrap();
    study
}

#[test]
fn a_group_by_hand() {
    let summary = Summary::of(&study(vec![
        run(0, [0, 0], vec![], vec![0, 0, 0, 0]),
        run(3, [0, 0], vec![0, 1, 0], vec![0, 0, 0, 1]),
        run(3, [0, 1], vec![0, 0, 1], vec![1, 0, 1, 1]),
        run(3, [1, 0], vec![1, 1, 1], vec![1, 1, 1, 1]),
    ]));
    assert_eq!(summary.groups.len(), 2);
    let [zero, few] = &summary.groups[..] else { panic!("two groups") };
    assert_eq!((&zero.runs[..], zero.recency_bias, zero.majority_bias), (&[0][..], None, None));
    assert_eq!((few.accuracy.n, few.best, few.worst), (3, 1, 3));
    assert!((few.accuracy.mean - (0.75 + 0.75 + 0.5) / 3.0).abs() < 1e-12);
    // last 0: 3/4 predicted; last 1: 3/4; last 1: 4/4; each is right for 2/4
    assert!((few.recency_bias.unwrap().value - (0.25 + 0.25 + 0.5) / 3.0).abs() < 1e-12);
    // commonest 0: 3/4; 0: 1/4; 1: 4/4
    assert!((few.majority_bias.unwrap().value - (0.25 - 0.25 + 0.5) / 3.0).abs() < 1e-12);
    // label 0 is predicted 3 + 1 + 0 times of 12 and right 6 times
    assert!((few.label_bias[0] + 2.0 / 12.0).abs() < 1e-12 && (few.label_bias[1] - 2.0 / 12.0).abs() < 1e-12);
    assert_eq!((zero.label_bias[0], zero.label_bias[1]), (0.5, -0.5));
}

#[test]
fn rows_with_demonstrations_of_their_own_count_one_by_one() {
    let mut per_row = run(2, [0, 0], vec![], vec![0, 0, 0, 1]);
    let demonstrations = vec![vec![0, 0], vec![0, 1], vec![1, 0], vec![1, 1]];
    per_row.demonstration_labels = DemonstrationLabels::PerRow(demonstrations);
    let summary = Summary::of(&study(vec![per_row]));
    // last labels 0 1 0 1: predicted is 0 0 0 1, right is 0 0 1 1: (1 + 0 + 1 + 1) / 4 - (1 + 0 + 0 + 1) / 4
    assert_eq!(summary.groups[0].recency_bias.unwrap().value, 0.25);
    // only the first and the last have a commonest label: 2/2 - 2/2
    assert_eq!(summary.groups[0].majority_bias.unwrap().value, 0.0);
}

#[test]
fn without_a_commonest_label_there_is_no_majority_bias() {
    let summary = Summary::of(&study(vec![run(2, [0, 0], vec![0, 1], vec![0, 0, 0, 1])]));
    assert!(summary.groups[0].majority_bias.is_none() && summary.groups[0].recency_bias.is_some());
}

#[test]
fn single_runs_are_compared_by_the_exact_test() {
    let summary = Summary::of(&study(vec![
        run(0, [0, 0], vec![], vec![0, 0, 0, 0]),
        run(2, [0, 0], vec![0, 1], vec![0, 0, 1, 0]),
    ]));
    let [comparison] = &summary.comparisons[..] else { panic!("one comparison") };
    assert_eq!((comparison.factor, comparison.group, comparison.reference), (Factor::Shots, 1, 0));
    assert_eq!((comparison.difference.value, comparison.mcnemar), (0.25, Some(1.0)));
    let sentence = summary.sentence(comparison);
    assert!(sentence.starts_with("few-shot 2 against zero-shot: +25.0 points, 95 % interval "), "{sentence}");
    assert!(sentence.ends_with("McNemar p = 1.000: within noise."), "{sentence}");
    assert!(summary.findings.contains(&sentence));
}

#[test]
fn orders_are_tested_against_what_picking_does() {
    let orders = |n: u64| {
        let runs = (0..n).map(|order| {
            let predicted = if order == 1 { vec![1, 1, 0, 0] } else { vec![0, 0, 1, 1] };
            run(2, [7, order], vec![0, 1], predicted)
        });
        Summary::of(&study(runs.collect())).orders
    };
    let [two] = &orders(2)[..] else { panic!("one seed") };
    assert_eq!((two.seed, two.best, two.worst, two.range), (7, 0, 1, 1.0));
    // four rows go one way: 2 / 16; of three orders there are three pairs
    assert_eq!((two.p, orders(3)[0].p), (0.125, 0.375));
    assert!(orders(1).is_empty());
}

#[test]
fn each_group_has_one_reference_per_factor() {
    let summary = Summary::of(&example::study());
    // template x shots x calibration: 2 x 2 x 2
    assert_eq!(summary.groups.len(), 8);
    for factor in [Factor::Shots, Factor::Calibration, Factor::Template] {
        let of_factor: Vec<&Comparison> = summary.comparisons.iter().filter(|c| c.factor == factor).collect();
        assert_eq!(of_factor.len(), 4, "{factor:?}");
        for c in of_factor {
            let [a, b] = [c.group, c.reference].map(|g| &summary.groups[g].condition);
            assert!(a != b && a.agrees_but_for(b, factor));
        }
    }
    assert_eq!(summary.comparisons.len(), 12);
    assert_eq!(summary.varying, [Factor::Shots, Factor::Calibration, Factor::Template]);
    assert_eq!(summary.name(0), "zero-shot, uncalibrated, template plain");
}

#[test]
fn zero_shot_runs_are_one_group_whatever_the_choice() {
    let mut nearest = run(0, [0, 1], vec![], vec![0, 0, 1, 1]);
    nearest.choice = "nearest".into();
    let summary = Summary::of(&study(vec![run(0, [0, 0], vec![], vec![0, 0, 0, 0]), nearest]));
    assert_eq!((summary.groups.len(), summary.groups[0].accuracy.n), (1, 2));
}

#[test]
fn fewer_demonstrations_than_asked_for_are_told() {
    let mut short = run(4, [0, 0], vec![0, 1], vec![0, 0, 1, 1]);
    short.shots = 2;
    let summary = Summary::of(&study(vec![short]));
    assert_eq!((summary.groups[0].condition.shots, summary.groups[0].shortened), (4, 1));
    assert!(summary.findings.last().unwrap().starts_with("In 1 of 1 runs the context window"));
}

#[test]
fn the_table_has_a_line_per_group() {
    let summary = Summary::of(&example::study());
    let table = summary.table();
    assert_eq!(table.lines().count(), 9);
    assert!(table.lines().next().unwrap().starts_with("shots  calibration  template  runs  accuracy %"));
    assert!(table.lines().all(|line| line.chars().count() < 120), "{table}");
}
