//! What a task file can say, and what it is told when it says something else.

use super::*;
use crate::verbalizer::Combine;

const SST2: &str = r#"
name = "sst2"
template = "{soft:20}Review: {text}\nSentiment:{label}"
metric = "accuracy"
[labels]                       # the verbalizer
positive = [" positive", " great"]
negative = [" negative", " terrible"]
"#;

#[test]
fn the_example_of_the_documentation() {
    let task = Task::parse(SST2).unwrap();
    assert_eq!((task.name.as_str(), task.metric), ("sst2", Metric::Accuracy));
    assert_eq!(task.template.fields().collect::<Vec<_>>(), ["text"]);
    assert_eq!(task.label_names(), "positive, negative");
    assert_eq!(task.labels()[1].answers, [" negative", " terrible"]);
    assert_eq!((task.label("negative"), task.label("no")), (Some(1), None));
}

#[test]
fn numeric_labels_single_answers_and_file_order() {
    let text = "name = \"n\"\ntemplate = \"{text}{label}\"\nmetric = \"macro_f1\"\n[labels]\n1 = \" good\"\n0 = [\" bad\"]";
    let task = Task::parse(&format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
    assert_eq!(task.label_names(), "1, 0");
    assert_eq!(task.labels()[0].answers, [" good"]);
    assert_eq!(task.metric.name(), "macro_f1");
    assert_eq!(serde_json::to_value(task.metric).unwrap(), "macro_f1");
}

#[test]
fn bad_files_are_explained_in_one_line() {
    let with = |old: &str, new: &str| SST2.replace(old, new);
    let cases = [
        (with("metric =", "metrics ="), "line 4: unknown field `metrics`"),
        (with("\"accuracy\"", "\"acc\""), "line 4: unknown variant `acc`"),
        (with("\"accuracy\"", "\"bleu\""), "metric bleu measures texts"),
        (format!("{SST2}[answer]\nfield = \"y\""), "both [labels] and [answer]"),
        (format!("{SST2}[scoring]\ncontent_free = []"), "content_free of [scoring] is empty"),
        (format!("{SST2}[scoring]\ncalibration = \"x\""), "line 9: unknown variant `x`"),
        (format!("{SST2}[templates]\nother = \"{{x\""), "[templates] other: template, character 1"),
        (format!("{SST2}[templates]\nother = 3"), "a template is a string"),
        (with("\"negative\"", "x").replace("[labels]", "[answer]"), "line 6: unknown field"),
        (with("name = \"sst2\"", ""), "missing field `name`"),
        (with("name = \"sst2\"", "name = 3"), "line 2: invalid type"),
        (with("{text}", "{text"), "template, character 23"),
        (SST2[..SST2.find("positive").unwrap()].to_string(), "[labels] is empty"),
        (with("[labels]", "[label]"), "unknown field `label`"),
        (with("[\" positive\", \" great\"]", "[]"), "label `positive` has an empty answer"),
        (with("\" great\"", "\"\""), "label `positive` has an empty answer"),
        (with("\" great\"", "3"), "label `positive` needs an answer string"),
        (
            with("\" terrible\"", "\" great\""),
            "\" great\" of label `negative` is already an answer of label `positive`",
        ),
        (with("negative =", "positive ="), "duplicate key"),
        (with("name =", "name"), "line 2"),
    ];
    for (text, expected) in cases {
        let error = Task::parse(&text).unwrap_err();
        assert!(error.contains(expected) && !error.contains('\n'), "{expected}: {error}");
    }
}

#[test]
fn reading_names_the_file() {
    let error = Task::read(Path::new("no/task.toml")).unwrap_err();
    assert!(error.to_string().starts_with("cannot read `no/task.toml`"), "{error}");
}

#[test]
fn everything_else_a_file_can_say() {
    let task = Task::parse(&format!(
        "instruction = \"Judge.\"\nseparator = \"\\n\"{SST2}[scoring]\nwords = \"max\"\nper_token = true\n[templates]\nb = \"{{title}}{{label}}\"\na = \"{{text}}{{label}}\""
    ))
    .unwrap();
    assert_eq!((task.instruction.as_str(), task.separator.as_str()), ("Judge.", "\n"));
    assert!(task.scoring.per_token && task.scoring.words == Combine::Max);
    assert_eq!(task.scoring.content_free, ["N/A", "[MASK]", ""]);
    assert_eq!(task.wordings.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(task.fields(), ["text", "title"]);
}

#[test]
fn a_text_of_its_own_as_answer() {
    let text = "name = \"t\"\ntemplate = \"{en}:{label}\"\n[answer]\nfield = \"fr\"";
    let task = Task::parse(text).unwrap();
    let Answers::Text(answer) = &task.answers else { panic!("{task:?}") };
    assert_eq!((answer.stop.as_slice(), answer.max_new_tokens), (&["\n".to_string()][..], 64));
    assert_eq!((task.metric, task.labels().len()), (Metric::ExactMatch, 0));
    let list = Task::parse(&format!("{text}\nlist = \",\"\nend = \"function\"")).unwrap();
    assert_eq!(list.metric, Metric::EntityF1);
    for (line, why) in [
        ("stop = [\"\"]", "would end every answer"),
        ("max_new_tokens = 0", "1 or more"),
        ("list = \"\"", "cannot be empty"),
        ("end = \"x\"", "line 5: unknown variant"),
        ("stopp = [\"a\"]", "line 5: unknown field"),
    ] {
        let error = Task::parse(&format!("{text}\n{line}")).unwrap_err();
        assert!(error.contains(why) && !error.contains('\n'), "{line}: {error}");
    }
    let error = Task::parse(&text.replacen("template", "metric = \"entity_f1\"\ntemplate", 1)).unwrap_err();
    assert!(error.contains("measures lists"), "{error}");
}
