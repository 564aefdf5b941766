use super::*;

/// Two methods of two sizes and two seeds over four rows. `full` is right everywhere with many rows, `soft` half of the time.
fn example() -> Comparison {
    let gold = vec![0, 1, 0, 1];
    let cell = |method: &str, n_train: usize, seed: u64, predicted: [usize; 4]| Cell {
        method: method.into(),
        n_train,
        seed,
        predicted: predicted.to_vec(),
        train_accuracy: (n_train > 0).then_some(1.0),
        wording: None,
        training: (n_train > 0).then(|| Training {
            steps: 10,
            trained: if method == "full" { 1000 } else { 20 },
            stored_bytes: if method == "full" { 4000 } else { 80 },
            seconds: 5.0,
            seconds_per_step: if method == "full" { 0.4 } else { 0.2 },
            flops: if method == "full" { 3e12 } else { 2e12 },
            peak_rss_bytes: Some(if method == "full" { 9_000_000 } else { 3_000_000 }),
        }),
        after: Side { perplexity: Some(if method == "full" { 30.0 } else { 22.0 }), others: vec![0.5] },
        seconds: 6.0,
    };
    let mut cells = vec![cell("zero-shot", 0, 0, [0, 0, 0, 0])];
    for seed in 0..2 {
        cells.push(cell("soft", 10, seed, [0, 1, 0, 0]));
        cells.push(cell("soft", 100, seed, [0, 1, 1, 0]));
        cells.push(cell("full", 10, seed, [1, 1, 1, 1]));
        cells.push(cell("full", 100, seed, [0, 1, 0, 1]));
    }
    let method = |name: &str, kind| Method { name: name.into(), kind, arguments: "x < y".into() };
    Comparison {
        task: "t".into(),
        model: "m".into(),
        model_size: 1000,
        data: "dev.jsonl".into(),
        train: "train.jsonl".into(),
        n_train: 100,
        labels: vec!["a".into(), "b".into()],
        gold,
        steps: 10,
        batch: 8,
        general: Some("text.txt".into()),
        others: vec!["topics".into()],
        before: Side { perplexity: Some(20.0), others: vec![0.75] },
        methods: vec![
            method("zero-shot", Kind::Asked),
            method("soft", Kind::Prompt),
            method("full", Kind::Weights),
        ],
        command: "prompt-tuning compare".into(),
        machine: "a machine".into(),
        seconds: 60.0,
        cells,
    }
}

#[test]
fn groups_by_hand() {
    let summary = Summary::of(&example());
    let of = |method: &str, n: usize| {
        summary.groups.iter().find(|g| g.method == method && g.n_train == n).expect("a group")
    };
    assert_eq!(summary.groups.len(), 5);
    assert_eq!((of("full", 100).accuracy.mean, of("soft", 10).accuracy.mean), (1.0, 0.75));
    assert_eq!(of("soft", 10).gap.unwrap().mean, 0.25);
    assert!((of("full", 10).perplexity.unwrap().mean - 0.5).abs() < 1e-12);
    assert!((of("full", 10).others.unwrap().mean + 0.25).abs() < 1e-12);
    assert!(of("zero-shot", 0).training.is_none() && of("zero-shot", 0).gap.is_none());
    assert_eq!(summary.sizes(), [10, 100]);
}

#[test]
fn findings_say_what_the_numbers_are() {
    let findings = Summary::of(&example()).findings.join("\n");
    for part in [
        "Without training: zero-shot 50.0 %",
        "With 100 rows: soft 50.0 %, sd 0.0, against full 100.0 %, sd 0.0: -50.0 points",
        "2.0000 % of the numbers trained, 0 kB kept against 4 kB, 0.50 of the time of a step and 0.67 of its arithmetic",
        "soft: perplexity on general text +10.0 %, accuracy on other tasks -25.0 points; full: perplexity on general text +50.0 %",
        "the prompt overfits less",
        "bit for bit",
    ] {
        assert!(findings.contains(part), "{part}\nis not in\n{findings}");
    }
}

#[test]
fn a_comparison_is_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("compare.json");
    example().write(&path).unwrap();
    assert_eq!(Comparison::read(&path).unwrap(), example());
    let mut broken = example();
    broken.cells[0].predicted.pop();
    assert!(broken.write(&path).unwrap_err().to_string().contains("label per row"));
}

#[test]
fn the_page_has_every_method_and_nothing_unescaped() {
    let comparison = example();
    let page = report::html(&comparison, &Summary::of(&comparison));
    for part in ["zero-shot", "Accuracy against training rows", "Overfitting", "x &lt; y", "<svg"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("x < y") && !page.contains("NaN") && !page.contains("http"));
}

#[test]
fn the_table_has_a_line_for_each_group() {
    let table = Summary::of(&example()).table();
    assert_eq!(table.lines().count(), 6);
    assert!(table.lines().all(|line| line.chars().count() == table.lines().next().unwrap().chars().count()));
}

#[test]
fn models_of_several_sizes() {
    let small = example();
    let mut large = example();
    (large.model, large.model_size) = ("large".into(), 1_000_000);
    let scale = scale::Scale::of(vec![large.clone(), small.clone()], &[]).unwrap();
    assert_eq!(scale.models.iter().map(|m| m.size).collect::<Vec<_>>(), [1000, 1_000_000]);
    // of each model zero-shot, and both trained methods with the most rows
    assert_eq!(scale.table().lines().count(), 1 + 2 * 3);
    assert!(scale.findings[0].contains("cannot be told here"), "{:?}", scale.findings);
    assert!(scale.html().contains("1.0 M") && !scale.html().contains("NaN"));
    assert!(scale::Scale::of(vec![small], &[]).is_err());
    large.gold[0] = 1;
    let why = scale::Scale::of(vec![large, example()], &[]).unwrap_err().to_string();
    assert!(why.contains("other rows"), "{why}");
}

#[test]
fn of_random_weights_only_the_cost_is_shown() {
    let small = example();
    let (mut large, mut random) = (example(), example());
    (large.model, large.model_size) = ("large".into(), 1_000_000);
    (random.model, random.model_size) = ("random".into(), 10_000);
    // of other rows, which is no hindrance
    random.gold[0] = 1;
    let of_two = scale::Scale::of(vec![large.clone(), small.clone()], &[]).unwrap();
    let scale = scale::Scale::of(vec![large, small], &[random]).unwrap();
    assert_eq!(scale.models.iter().map(|m| m.size).collect::<Vec<_>>(), [1000, 10_000, 1_000_000]);
    assert_eq!(scale.findings, of_two.findings);
    let table = scale.table();
    let lines: Vec<&str> = table.lines().filter(|line| line.contains("random")).collect();
    assert_eq!(lines.len(), 2, "soft and full: {table}");
    // rows, no accuracy, no deviation
    assert!(lines.iter().all(|line| line.replace(' ', "").contains("100--")), "{table}");
    let html = scale.html();
    let (_, costs) = html.split_once("Cost of a prompt").unwrap();
    // 2e12 of 3e12, 0.2 of 0.4 and 3 of 9 MB, at each of three sizes
    for share in ["soft: 66.7", "soft: 50.0", "soft: 33.3"] {
        assert_eq!(costs.matches(share).count(), 3, "{share}");
    }
}
