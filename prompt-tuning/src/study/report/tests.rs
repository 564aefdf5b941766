use super::*;
use crate::study::{DemonstrationLabels, example};

fn page(study: &Study) -> String {
    html(study, &Summary::of(study))
}

/// Panics at the first tag that is not closed by its own kind, with what stands around it.
fn check_tags(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html.strip_prefix("<!DOCTYPE html>").expect("a document type");
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag that ends");
        let tag = &rest[start + 1..end];
        assert!(tag.matches('"').count().is_multiple_of(2) && !tag.contains('<'), "{tag}");
        match (tag.strip_prefix('/'), tag.ends_with('/')) {
            (Some(name), _) => assert_eq!(open.pop(), Some(name), "before {}", &rest[..end + 1]),
            (None, true) => {}
            (None, false) => open.push(tag.split_whitespace().next().expect("a name")),
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty() && !rest.contains('>'), "{open:?}");
}

fn check(html: &str) {
    check_tags(html);
    for word in ["NaN", "inf\"", "inf,", "http", "src=", "url(", "@import", "<script"] {
        assert!(
            !html.contains(word),
            "{word}: {:?}",
            html.find(word).map(|i| &html[i.saturating_sub(80)..i + 20])
        );
    }
}

#[test]
fn a_full_page_is_well_formed_and_alone() {
    let study = example::study();
    let html = page(&study);
    check(&html);
    for section in [
        "Findings",
        "All conditions",
        "Accuracy against demonstrations",
        "Spread over orders",
        "Sensitivity to the wording",
        "Recency and majority bias",
        "Reliability",
        "Confusion",
        "All comparisons",
        "What was run",
    ] {
        assert!(html.contains(&format!("<h2>{section}")), "{section}");
    }
    assert!(html.contains("1 234 567 computed") && html.contains("(19.0 times as many)"));
    // two templates × (zero-shot, 2 seeds of 3 orders) × two calibrations, in the panel of their template
    let shots = &html[html.find("Accuracy against").unwrap()..html.find("Spread over").unwrap()];
    assert_eq!(shots.matches("class=\"dot").count(), 2 * (1 + 2 * 3) * 2);
}

#[test]
fn texts_are_escaped() {
    let mut study = example::study();
    let evil = "<script>alert(\"1\")</script>&'\u{1}";
    study.labels[0] = evil.into();
    study.task = evil.into();
    study.command = evil.into();
    study.machine = evil.into();
    for run in &mut study.runs {
        run.template = format!("{} {evil}", run.template);
        run.calibration = format!("{} {evil}", run.calibration);
        run.choice = evil.into();
    }
    let html = page(&study);
    check(&html);
    assert!(html.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;\u{fffd}"));
}

#[test]
fn a_single_zero_shot_run_makes_a_page() {
    let mut study = example::study();
    study.runs.truncate(1);
    assert_eq!(study.runs[0].shots, 0);
    let html = page(&study);
    check(&html);
    for section in ["Spread over orders", "Sensitivity", "Recency and majority bias", "All comparisons"] {
        assert!(!html.contains(section), "{section}");
    }
    assert!(html.contains("Highest mean accuracy") && html.contains("one run, 95 % interval"));
}

#[test]
fn numbers_that_are_none_do_not_break_it() {
    let mut study = example::study();
    study.seconds = f64::NAN;
    study.computed_tokens = 0;
    for run in &mut study.runs {
        run.probability.fill(f64::NAN);
        run.metrics.loss = f64::NAN;
        run.metrics.ece = f64::NAN;
        run.metrics.macro_f1 = f64::NAN;
    }
    let html = page(&study);
    check(&html);
    assert!(!html.contains("<h2>Reliability"));
}

#[test]
fn demonstrations_that_differ_by_row_make_a_page() {
    let mut study = example::study();
    let n = study.n();
    for run in study.runs.iter_mut().filter(|run| run.shots > 0) {
        run.demonstration_labels =
            DemonstrationLabels::PerRow((0..n).map(|i| vec![i % 2, 1, 0, i % 2]).collect());
        run.permutation.clear();
    }
    study.check().unwrap();
    check(&page(&study));
}

#[test]
fn many_labels_leave_the_confusion_out() {
    let labels = (0..40).map(|i| format!("label {i}")).collect();
    let study = example::of(&example::Size {
        rows: 80,
        labels,
        templates: vec!["plain"],
        shots: vec![0, 2],
        seeds: 1,
        orders: 2,
        calibrations: vec!["none"],
    });
    let html = page(&study);
    check(&html);
    assert!(html.contains("40 labels are too many"));
}

#[test]
fn the_page_is_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let study = example::study();
    let summary = Summary::of(&study);
    write(&study, &summary, &path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), html(&study, &summary));
}

#[test]
fn numbers_in_words() {
    let all = [0, 12, 999, 1000, 12_345, 123_456, 1_234_567].map(thousands);
    assert_eq!(all, ["0", "12", "999", "1 000", "12 345", "123 456", "1 234 567"]);
    assert_eq!([5.04, 812.4, f64::NAN].map(duration), ["5.0 s", "13 min 32 s", "unknown"]);
}

#[test]
#[ignore = "writes pages to look at into the folder for temporary files"]
fn pages_to_look_at() {
    let labels = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let sst2 = example::of(&example::Size {
        rows: 200,
        labels: labels(&["positive", "negative"]),
        templates: vec!["plain", "question", "instruction with a rather long name"],
        shots: vec![0, 1, 2, 4, 8],
        seeds: 5,
        orders: 24,
        calibrations: vec!["none", "contextual", "pmi"],
    });
    let trec = example::of(&example::Size {
        rows: 150,
        labels: labels(&["abbreviation", "entity", "description", "human", "location", "number"]),
        templates: vec!["plain"],
        shots: vec![4],
        seeds: 1,
        orders: 1,
        calibrations: vec!["none"],
    });
    for (name, study) in [("sst2", sst2), ("trec", trec)] {
        let summary = Summary::of(&study);
        let path = std::env::temp_dir().join(format!("study-{name}.html"));
        write(&study, &summary, &path).unwrap();
        println!("{}\n{}\n{}", path.display(), summary.table(), summary.findings.join("\n"));
    }
}
