//! Texts for a classifier, which says its label at one token.

use super::*;

fn reader<'a>(reader: Reader<'a>, labels: &'a [String]) -> Reader<'a> {
    Reader { labels: Some(labels), ..reader }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn the_label_is_predicted_at_the_last_token_or_the_first() {
    let labels = names(&["no", "yes"]);
    let plain = Bytes { bos: true, eos: true, mask: false };
    for template in ["{x}:{label}", "{x}:{mask}{mask}", "{x}:"] {
        let task = task(template);
        let causal = TaskEncoder::new(&task, &plain, reader(READER, &labels)).unwrap();
        let rows = causal.training_rows(&data(&[("q", Some(0)), ("r", Some(1))])).unwrap();
        assert_eq!(rows[0].tokens, [ids(&[BOS]), text("q:")].concat());
        // by name, not by place in the task file
        assert_eq!((scored(&rows[0]), scored(&rows[1])), (vec![(2, 1)], vec![(2, 0)]));
        let masked = TaskEncoder::new(&task, &plain, reader(MASKED, &labels)).unwrap();
        let row = masked.training_rows(&data(&[("q", Some(0))])).unwrap().remove(0);
        assert_eq!(row.tokens, [ids(&[BOS]), text("q:"), ids(&[EOS])].concat());
        assert_eq!(scored(&row), [(0, 1)]);
    }
    let task = task("{x}:{label}");
    let encoder = TaskEncoder::new(&task, &plain, reader(READER, &labels)).unwrap();
    let rows = scoring_rows(&encoder, &data(&[("q", None)])).unwrap().remove(0);
    assert_eq!(rows.iter().map(scored).collect::<Vec<_>>(), [[(2, 1)], [(2, 0)]]);
}

/// A masked model's text may go on after its answer, which is left out.
#[test]
fn an_answer_within_the_text() {
    let labels = names(&["yes", "no"]);
    let task = task("{x} is {mask}.");
    let masked = TaskEncoder::new(&task, &MASKING, reader(MASKED, &labels)).unwrap();
    let row = masked.training_rows(&data(&[("q", Some(0))])).unwrap().remove(0);
    assert_eq!(row.tokens, [ids(&[BOS]), text("q is ."), ids(&[EOS])].concat());
    let why = TaskEncoder::new(&task, &MASKING, reader(READER, &labels)).err().unwrap().to_string();
    assert_eq!(why, "task `t`: template: something follows `{mask}`; a causal model needs it at the end");
}

#[test]
fn labels_must_be_those_of_the_classifier() {
    let task = task("{x}:{label}");
    for labels in [&["yes", "maybe"][..], &["yes", "no", "maybe"], &["yes"]] {
        let labels = names(labels);
        let why = TaskEncoder::new(&task, &MASKING, reader(READER, &labels)).err().unwrap().to_string();
        let theirs = labels.join(", ");
        assert_eq!(
            why,
            format!(
                "task `t`: its labels are yes, no, those of the classifier are {theirs}; they must be the same, in any order"
            )
        );
    }
}

#[test]
fn a_text_that_is_too_long_or_empty() {
    let labels = names(&["yes", "no"]);
    let (whole, nothing) = (task("{x}"), task("{label}"));
    let encoder = TaskEncoder::new(&whole, &MASKING, reader(READER, &labels)).unwrap();
    let why = encoder.training_rows(&data(&[(&"q".repeat(30), Some(0))])).unwrap_err().to_string();
    assert!(why.contains("0 soft + 31 text + 0 answer tokens = 31"), "{why}");
    let plain = Bytes::default();
    let encoder = TaskEncoder::new(&nothing, &plain, reader(READER, &labels)).unwrap();
    let why = encoder.training_rows(&data(&[("q", Some(0))])).unwrap_err().to_string();
    assert!(why.contains("no text that could have a label"), "{why}");
}
