//! Few-shot prompts on real model code: what shares a batch changes nothing, and is computed once.

mod fixture;
mod letters;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use kernels::testing::{Tolerance, close};
use letters::Letters;
use model::{LanguageModel, Row, Source};
use prompt_tuning::data::{Dataset, Example};
use prompt_tuning::encode::{Demonstration, Reader, TaskEncoder};
use prompt_tuning::evaluate::labels::{Scores, content_free, scores};
use prompt_tuning::evaluate::{Examinee, Question, questions, token_log_probs};
use prompt_tuning::few_shot::order::permutations;
use prompt_tuning::task::Task;
use prompt_tuning::verbalizer::{Calibration, Combine, Scoring};

/// A model of each family, and a template it can answer.
const CASES: [(&str, &str); 6] = [
    ("gpt2-text", "{text}={label}"),
    ("llama-gqa-tied-bf16", "{text}={label}"),
    ("bert-untied", "{text}={mask}"),
    ("bert-untied", "{mask}={text}"),
    ("t5-v1.0-relu-tied", "{text}={label}"),
    ("t5-v1.1-gated-bf16", "a {mask} for {text}"),
];

/// Two labels, one of them with a short and a long answer.
fn task(template: &str) -> Task {
    let labels = "[labels]\ngood = [\" g\", \" ok\"]\nbad = \" b\"\n";
    let head = format!("name = \"t\"\ntemplate = \"{template}\"\ninstruction = \"I\"\nseparator = \";\"\n");
    Task::parse(&(head + labels)).expect("a task")
}

fn opened(name: &str) -> (LanguageModel, Letters, Reader<'static>) {
    let model = LanguageModel::open(&fixture::model_path(name)).expect("a model");
    let Reader { family, n_positions, vocab_size, decoder_start, .. } = Reader::of(model.config());
    let reader = Reader { family, n_positions, vocab_size, decoder_start, labels: None };
    (model, Letters { family: reader.family }, reader)
}

fn fields(text: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("text".to_string(), text.to_string())])
}

fn data(texts: &[&str]) -> Dataset<Example> {
    let row = |(i, text): (usize, &&str)| {
        let (line, label) = (i + 1, Some(i % 2));
        Example { line, fields: fields(text), label, answer: None }
    };
    Dataset { path: PathBuf::from("data"), rows: texts.iter().enumerate().map(row).collect() }
}

fn shown(pairs: &[(&str, &str)]) -> Vec<Demonstration> {
    let one = |&(text, answer): &(&str, &str)| Demonstration { fields: fields(text), answer: answer.into() };
    pairs.iter().map(one).collect()
}

fn examinee(model: &LanguageModel, batch: usize) -> Examinee<'_> {
    Examinee { model, prompt: None, tokenizer: None, batch }
}

/// The log-probability of a row that has a batch of its own.
fn alone(model: &LanguageModel, row: &Row) -> f64 {
    token_log_probs(model, None, std::slice::from_ref(row))[0].iter().map(|&lp| f64::from(lp)).sum()
}

/// Every number of some questions.
fn flat(all: &[Scores]) -> Vec<f64> {
    all.iter().flat_map(|s| s.log_probs.iter().chain(s.content_free.iter().flatten())).copied().collect()
}

const TEXTS: [&str; 7] = ["xy", "xyz", "a", "xy", "qqq", "a b", "zz"];
const SHOWN: [(&str, &str); 2] = [("xx", " g"), ("q", " b")];

#[test]
fn what_is_in_the_batch_changes_no_score() {
    for (name, template) in CASES {
        let (model, letters, reader) = opened(name);
        let task = task(template);
        let encoder = TaskEncoder::new(&task, &letters, reader).expect(name);
        let (first, second) = (shown(&SHOWN), shown(&SHOWN[1..]));
        // rows with two demonstrations, one and none in turn
        let demonstrations = |i: usize| [&first[..], &second[..], &[]][i % 3];
        let asked = questions(&encoder, &data(&TEXTS), true, demonstrations).expect(name);
        let separate: Vec<f64> = asked
            .iter()
            .flat_map(|q| q.candidates.iter().map(|c| &c.row).chain(q.content_free.iter().flatten()))
            .map(|row| alone(&model, row))
            .collect();
        assert_eq!(separate.len(), 7 * (3 + 3 * 3));
        for batch in [1, 2, 3, 7, 64] {
            let (together, _) = scores(&asked, examinee(&model, batch), |_| ());
            close(&flat(&together), &separate, Tolerance::both(1e-5)).expect(name);
        }
        // the scores do depend on the text and on what is shown, or the test would see nothing
        let distinct: HashSet<String> = separate.iter().map(|x| format!("{x:.4}")).collect();
        assert!(distinct.len() > 30, "{name}: {distinct:?}");
    }
}

#[test]
fn each_number_of_demonstrations_has_its_own_inputs_without_content() {
    let (_, letters, reader) = opened("gpt2-text");
    let task = task("{text}={label}");
    let encoder = TaskEncoder::new(&task, &letters, reader).expect("an encoder");
    let shown = shown(&SHOWN);
    let asked = questions(&encoder, &data(&TEXTS[..3]), true, |i| &shown[..i]).expect("questions");
    for (n, question) in asked.iter().enumerate() {
        assert_eq!(question.content_free, content_free(&encoder, &shown[..n]).expect("rows"), "{n}");
    }
}

/// Tokens that sharing every prefix leaves: the distinct prefixes of what a causal model reads.
fn distinct_prefixes<'a>(rows: impl Iterator<Item = &'a Row>) -> u64 {
    let mut seen: HashSet<Vec<Source>> = HashSet::new();
    for row in rows {
        // the last token of a row is only predicted
        for n in 1..row.tokens.len() {
            seen.insert(row.tokens[..n].to_vec());
        }
    }
    seen.len() as u64
}

fn rows_of(asked: &[Question]) -> impl Iterator<Item = &Row> {
    asked.iter().flat_map(|q| q.candidates.iter().map(|c| &c.row).chain(q.content_free.iter().flatten()))
}

#[test]
fn all_orders_of_four_demonstrations_share_their_beginnings() {
    let (model, letters, reader) = opened("gpt2-text");
    let task = task("{text}={label}");
    let encoder = TaskEncoder::new(&task, &letters, reader).expect("an encoder");
    let four = shown(&[("aaaaaaaa", " g"), ("bbbbbbbb", " b"), ("cccccccc", " ok"), ("dddddddd", " b")]);
    let data = data(&["xy", "xz", "yy"]);
    let in_order =
        |order: &Vec<usize>| -> Vec<Demonstration> { order.iter().map(|&i| four[i].clone()).collect() };
    let orders: Vec<Vec<Demonstration>> = permutations(4).iter().map(in_order).collect();
    let of_order =
        |shown: &Vec<Demonstration>| questions(&encoder, &data, true, |_| shown).expect("questions");
    let asked: Vec<Vec<Question>> = orders.iter().map(of_order).collect();

    let list = asked.concat();
    let (together, tokens) = scores(&list, examinee(&model, list.len()), |_| ());
    assert_eq!(tokens.computed, distinct_prefixes(rows_of(&list)));
    let (mut one_by_one, mut computed) = (Vec::new(), 0);
    for part in &asked {
        let (scores, tokens) = scores(part, examinee(&model, part.len()), |_| ());
        assert_eq!(tokens.computed, distinct_prefixes(rows_of(part)));
        computed += tokens.computed;
        one_by_one.extend(scores);
    }
    // a tree of the orders has 4 + 12 + 24 + 24 demonstrations in place of 24 · 4
    let of_demonstrations = |n: u64| n * "aaaaaaaa= g;".len() as u64;
    let saved = of_demonstrations(96 - 64) / 2;
    assert!(tokens.computed + saved < computed, "{} of {computed} tokens", tokens.computed);
    close(&flat(&together), &flat(&one_by_one), Tolerance::both(1e-5)).expect("the same scores");
}

#[test]
fn demonstrations_are_computed_once_for_a_batch() {
    let (model, letters, reader) = opened("gpt2-text");
    let task = task("{text}={label}");
    let encoder = TaskEncoder::new(&task, &letters, reader).expect("an encoder");
    let four = shown(&[("aaaaaaaa", " g"), ("bbbbbbbb", " b"), ("cccccccc", " ok"), ("dddddddd", " b")]);
    let texts: Vec<String> = (0..8).map(|i| format!("{i}x")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let asked = questions(&encoder, &data(&texts), false, |_| &four).expect("questions");
    let (_, tokens) = scores(&asked, examinee(&model, 8), |_| ());
    // "I;" and four demonstrations, of which " ok" is one longer; then of each row "0x=", the space, and "o" of " ok"
    let shared = 2 + 4 * "aaaaaaaa= g;".len() as u64 + 1;
    assert_eq!(tokens.computed, shared + 8 * (3 + 1 + 1));
    let plain = 8 * (shared + "0x= ok".len() as u64);
    assert_eq!(tokens.plain, plain);
    // "N/A", "[MASK]" and nothing are read once more, not with each row
    let calibrated = questions(&encoder, &data(&texts), true, |_| &four).expect("questions");
    let (_, tokens) = scores(&calibrated, examinee(&model, 8), |_| ());
    let free = 3 * shared + ("N/A= ok".len() + "[MASK]= ok".len() + "= ok".len()) as u64;
    assert_eq!(tokens.plain, plain + free);
}

/// `p` of the labels by a formula written out here, from rows that were computed each alone.
fn by_hand(
    model: &LanguageModel,
    encoder: &TaskEncoder,
    text: &str,
    shown: &[Demonstration],
) -> [Vec<f64>; 3] {
    let p = |text: &str| -> Vec<f64> {
        let example = Example { line: 1, fields: fields(text), label: None, answer: None };
        let rows = encoder.candidate_rows(&example, shown).expect("rows");
        rows.iter().map(|row| alone(model, row).exp()).collect()
    };
    // answers " g" and " ok" are good, " b" is bad
    let labels = |p: &[f64]| [p[0] + p[1], p[2]];
    let normalised = |p: [f64; 2]| p.map(|x| x / (p[0] + p[1]));
    let (p, free) = (p(text), ["N/A", "[MASK]", ""].map(p));
    let plain = normalised(labels(&p));
    let mean_answers: Vec<f64> = (0..3).map(|i| free.iter().map(|f| f[i]).sum::<f64>() / 3.0).collect();
    let ratio: Vec<f64> = p.iter().zip(&mean_answers).map(|(p, free)| p / free).collect();
    let of_nothing = free.map(|f| normalised(labels(&f)));
    let mean = |label: usize| of_nothing.iter().map(|p| p[label]).sum::<f64>() / 3.0;
    let contextual = normalised([plain[0] / mean(0), plain[1] / mean(1)]);
    [plain, normalised(labels(&ratio)), contextual].map(Vec::from)
}

#[test]
fn calibrated_probabilities_are_those_computed_by_hand() {
    for (name, template) in CASES {
        let (model, letters, reader) = opened(name);
        let task = task(template);
        let encoder = TaskEncoder::new(&task, &letters, reader).expect(name);
        let shown = shown(&SHOWN);
        let asked = questions(&encoder, &data(&TEXTS), true, |_| &shown).expect(name);
        let (scores, _) = scores(&asked, examinee(&model, 4), |_| ());
        for ((question, scores), text) in asked.iter().zip(&scores).zip(TEXTS) {
            let expected = by_hand(&model, &encoder, text, &shown);
            for (calibration, expected) in
                [Calibration::None, Calibration::Pmi, Calibration::Contextual].into_iter().zip(&expected)
            {
                let scoring = Scoring { calibration, words: Combine::Sum, ..Scoring::default() };
                let found = question.answer(&scoring, scores).probabilities();
                close(&found, expected, Tolerance::both(1e-5)).expect(name);
            }
            assert!((expected[0][0] - expected[2][0]).abs() > 1e-4, "{name}: calibration does nothing");
        }
    }
}

#[test]
fn inputs_without_content_stand_behind_the_same_demonstrations() {
    let (_, letters, reader) = opened("gpt2-text");
    let task = task("{text}={label}");
    let encoder = TaskEncoder::new(&task, &letters, reader).expect("an encoder");
    let free = content_free(&encoder, &shown(&SHOWN)).expect("rows");
    let text = |row: &Row| -> String {
        let char = |source: &Source| match source {
            Source::Text(id) => char::from(*id as u8),
            Source::Soft(_) => '?',
        };
        row.tokens.iter().map(char).collect()
    };
    let first: Vec<String> = free.iter().map(|rows| text(&rows[1])).collect();
    assert_eq!(first, ["I;xx= g;q= b;N/A= ok", "I;xx= g;q= b;[MASK]= ok", "I;xx= g;q= b;= ok"]);
}
