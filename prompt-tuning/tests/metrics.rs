//! Metrics of texts against sacrebleu and rouge_score.

use prompt_tuning::metrics;
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
