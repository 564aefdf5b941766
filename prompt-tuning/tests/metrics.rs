//! Metrics of texts against sacrebleu and rouge_score, of labels against scikit-learn.

use prompt_tuning::metrics;
use prompt_tuning::study::metrics::scored;
use prompt_tuning::verbalizer::Answer;
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    pairs: Vec<(String, String)>,
    bleu: f64,
    chrf: f64,
    rouge_l: f64,
}

#[test]
fn the_numbers_of_the_reference_programs() {
    let cases: Vec<Recorded> =
        serde_json::from_str(include_str!("fixtures/metrics.json")).expect("recorded by the script");
    assert!(cases.iter().filter(|case| case.bleu > 0.0).count() > 20);
    for (i, case) in cases.iter().enumerate() {
        let pairs: Vec<(&str, &str)> = case.pairs.iter().map(|(t, r)| (t.as_str(), r.as_str())).collect();
        for (name, ours, theirs) in [
            ("BLEU", metrics::bleu(&pairs), case.bleu),
            ("chrF", metrics::chrf(&pairs), case.chrf),
            ("ROUGE-L", metrics::rouge_l(&pairs), case.rouge_l),
        ] {
            assert!((ours - theirs).abs() < 1e-9, "case {i}, {name}: {ours}, but {theirs} is recorded");
        }
    }
}

#[derive(Deserialize)]
struct Labelled {
    n_labels: usize,
    gold: Vec<usize>,
    predicted: Vec<usize>,
    accuracy: f64,
    macro_f1: f64,
}

#[test]
fn the_numbers_of_scikit_learn() {
    let cases: Vec<Labelled> =
        serde_json::from_str(include_str!("fixtures/f1.json")).expect("recorded by the script");
    assert!(cases.iter().filter(|case| case.macro_f1 < case.accuracy).count() > 5);
    for (i, case) in cases.iter().enumerate() {
        let sure = |&label: &usize| Answer {
            log_probs: (0..case.n_labels).map(|l| if l == label { 0.0 } else { -9.0 }).collect(),
        };
        let ours = scored(&case.gold, &case.predicted.iter().map(sure).collect::<Vec<_>>());
        assert_eq!(ours.predicted, case.predicted);
        for (name, ours, theirs) in [
            ("accuracy", ours.metrics.accuracy, case.accuracy),
            ("macro F1", ours.metrics.macro_f1, case.macro_f1),
        ] {
            assert!((ours - theirs).abs() < 1e-12, "case {i}, {name}: {ours}, but {theirs} is recorded");
        }
    }
}
