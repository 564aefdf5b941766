//! A tokenizer small enough to know the answers by heart: bytes, one merge, and special tokens around a text.

use std::collections::BTreeMap;

use super::*;
use crate::data::{Content, Pair};
use crate::task::Task;
use crate::template::Template;

mod classifier;
mod context;

const BOS: u32 = 256;
const EOS: u32 = 257;
/// The merge of "a" and "b".
const AB: u32 = 258;
const MASK: u32 = 259;
/// The first of three gaps, which count down.
const GAP: u32 = 269;
const READER: Reader =
    Reader { family: Family::Causal, n_positions: 30, vocab_size: 260, decoder_start: 3, labels: None };

#[derive(Default)]
struct Bytes {
    bos: bool,
    eos: bool,
    mask: bool,
}

impl Encode for Bytes {
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = Vec::new();
        ids.extend((add_special_tokens && self.bos).then_some(BOS));
        for byte in text.bytes().map(u32::from) {
            match ids.last_mut() {
                Some(last) if *last == u32::from(b'a') && byte == u32::from(b'b') => *last = AB,
                _ => ids.push(byte),
            }
        }
        ids.extend((add_special_tokens && self.eos).then_some(EOS));
        Ok(ids)
    }

    fn mask(&self) -> Option<u32> {
        self.mask.then_some(MASK)
    }

    fn gap(&self, i: usize) -> Option<u32> {
        (i < 3).then(|| GAP - i as u32)
    }
}

fn soft(range: Range<u32>) -> Vec<Source> {
    range.map(Source::Soft).collect()
}

fn ids(ids: &[u32]) -> Vec<Source> {
    ids.iter().map(|&id| Source::Text(id)).collect()
}

fn text(text: &str) -> Vec<Source> {
    ids(&Bytes::default().encode(text, false).unwrap())
}

fn task(template: &str) -> Task {
    let template = template.replace('\\', "\\\\").replace('"', "\\\"");
    Task::parse(&format!(
        "name = \"t\"\ntemplate = \"{template}\"\n[labels]\nyes = [\" y\", \" ab\"]\nno = \" n\""
    ))
    .unwrap()
}

/// `(at, token)` of what is scored.
fn scored(row: &Row) -> Vec<(usize, u32)> {
    row.scored.iter().map(|p| (p.at, p.token)).collect()
}

/// The bytes of `text`, the first predicted at `at`.
fn pairs_of(at: usize, text: &str) -> Vec<(usize, u32)> {
    text.bytes().enumerate().map(|(i, byte)| (at + i, byte.into())).collect()
}

fn data(rows: &[(&str, Option<usize>)]) -> Dataset<Example> {
    let row = |(i, &(x, label)): (usize, &(&str, Option<usize>))| Example {
        line: i + 1,
        fields: BTreeMap::from([("x".to_string(), x.to_string())]),
        label,
        answer: None,
    };
    Dataset { path: "d.jsonl".into(), rows: rows.iter().enumerate().map(row).collect() }
}

/// The rows of each example without demonstrations.
fn scoring_rows(encoder: &TaskEncoder, data: &Dataset<Example>) -> Result<Vec<Vec<Row>>> {
    let rows = |e: &Example| encoder.candidate_rows(e, &[]).map_err(|why| data.error(e.line, why));
    data.rows.iter().map(rows).collect()
}

#[test]
fn training_scores_the_first_answer_of_the_label() {
    let task = task("{soft:2}a{x}:{label}");
    let tokenizer = Bytes::default();
    let encoder = TaskEncoder::new(&task, &tokenizer, READER).unwrap();
    let rows = encoder.training_rows(&data(&[("b{label}", Some(0)), ("c", Some(1))])).unwrap();
    // the text is joined before it is tokenized, so `a` and `b` merge
    let front = [soft(0..2), ids(&[AB]), text("{label}:")].concat();
    assert_eq!(rows[0].tokens, [front.clone(), text(" y")].concat());
    assert_eq!((scored(&rows[0]), rows[0].weight), (pairs_of(front.len() - 1, " y"), 1.0));
    assert_eq!(rows[1].tokens, [soft(0..2), text("ac: n")].concat());
    assert_eq!(scored(&rows[1]), pairs_of(4, " n"));
    assert_eq!(encoder.n_soft(), 2);
    let error = encoder.training_rows(&data(&[("b", None)])).unwrap_err().to_string();
    assert_eq!(error, "d.jsonl:1: it has no label");
}

#[test]
fn scoring_has_a_row_for_every_candidate() {
    let task = task("{x}{label}");
    let tokenizer = Bytes::default();
    let encoder = TaskEncoder::new(&task, &tokenizer, READER).unwrap();
    let labels: Vec<_> = encoder.candidates().iter().map(|c| (c.label, c.answer)).collect();
    assert_eq!(labels, [(0, 0), (0, 1), (1, 0)]);
    assert_eq!(encoder.label_tokens(), [vec![32, 121], vec![32, 110], vec![32, AB]]);
    let rows = scoring_rows(&encoder, &data(&[("b", None)])).unwrap();
    let tokens: Vec<_> = rows[0].iter().map(|row| row.tokens.clone()).collect();
    // answers are tokenized on their own
    assert_eq!(tokens, [text("b y"), [text("b "), ids(&[AB])].concat(), text("b n")]);
    assert!(rows[0].iter().all(|row| row.scored.len() == 2 && row.scored[0].at == 0));
}

#[test]
fn the_first_special_token_goes_before_the_first_text() {
    let tokenizer = Bytes { bos: true, eos: true, mask: false };
    let front = |template: &str| {
        let task = task(template);
        let encoder = TaskEncoder::new(&task, &tokenizer, READER).unwrap();
        let row = encoder.training_rows(&data(&[("x", Some(1))])).unwrap().remove(0);
        row.tokens[..=row.scored[0].at].to_vec()
    };
    assert_eq!(front("{x}{label}"), [ids(&[BOS]), text("x")].concat());
    assert_eq!(front("{soft:1}{x}{label}"), [soft(0..1), ids(&[BOS]), text("x")].concat());
    assert_eq!(
        front("A{soft:1}{x}{soft:2}{label}"),
        [ids(&[BOS]), text("A"), soft(0..1), text("x"), soft(1..3)].concat()
    );
    assert_eq!(front("{soft:2}{label}"), [soft(0..2), ids(&[BOS])].concat());
}

#[test]
fn words_of_soft_parts_count_their_tokens() {
    let task = task(r#"{soft:3}{x}{soft:"abc"}{label}"#);
    let tokenizer = Bytes { bos: true, ..Bytes::default() };
    let encoder = TaskEncoder::new(&task, &tokenizer, READER).unwrap();
    assert_eq!(encoder.n_soft(), 5);
    assert_eq!(encoder.soft_words(), [(3..5, vec![AB, u32::from(b'c')])]);
}

#[test]
fn rows_that_do_not_fit_are_named_with_all_lengths() {
    let task = task("{soft:20}{x}:{label}");
    let tokenizer = Bytes::default();
    let encoder = TaskEncoder::new(&task, &tokenizer, READER).unwrap();
    assert!(encoder.training_rows(&data(&[("1234567", Some(0))])).is_ok());
    let rows = data(&[("ok", Some(0)), ("12345678", Some(0)), ("123456789", Some(0))]);
    let error = encoder.training_rows(&rows).unwrap_err();
    assert_eq!(
        error.to_string(),
        "d.jsonl:2: 20 soft + 9 text + 2 answer tokens = 31, but the context window of the model is 30 tokens; \
         shorten the text or the soft prompt"
    );
    assert_eq!(error.exit_code(), 2);
    assert_eq!(scoring_rows(&encoder, &rows).unwrap_err().to_string(), error.to_string());
}

#[test]
fn tasks_that_cannot_be_encoded() {
    let tokenizer = Bytes::default();
    let error = |template: &str, reader| {
        let task = task(template);
        TaskEncoder::new(&task, &tokenizer, reader).err().expect("it is refused").to_string()
    };
    for (template, why) in [
        ("{x} is {mask}.", "task `t`: template: something follows `{mask}`"),
        ("{x}", "no `{label}`"),
        ("{label}", "nothing is in front of `{label}`"),
        ("{x}{label}.", "something follows `{label}`"),
        ("{x}{mask}{mask}", "several `{mask}`"),
    ] {
        assert!(error(template, READER).contains(why), "{template}");
    }
    assert!(error("{soft:30}{x}{label}", READER).contains("30 soft tokens leave no room"));
    assert!(error(&("{soft:100000}".repeat(3) + "{label}"), READER).contains("100000 soft tokens"));
    let task = task("{x}{label}");
    let small = Reader { vocab_size: 100, ..READER };
    let encoder = TaskEncoder::new(&task, &tokenizer, small).unwrap();
    let error = encoder.training_rows(&data(&[("1", Some(0))])).unwrap_err().to_string();
    assert_eq!(error, "d.jsonl:1: token id 121 is outside the vocabulary of the model (100 tokens)");
}

fn pairs(rows: &[Content]) -> Dataset<Pair> {
    let row = |(i, content): (usize, &Content)| Pair { line: i + 1, content: content.clone() };
    Dataset { path: "p.jsonl".into(), rows: rows.iter().enumerate().map(row).collect() }
}

fn text_pair(prompt: &str, completion: &str) -> Dataset<Pair> {
    pairs(&[Content::Text { prompt: prompt.into(), completion: completion.into() }])
}

#[test]
fn raw_text_gets_the_tokenizers_special_tokens_and_raw_ids_nothing() {
    let tokenizer = Bytes { bos: true, ..Bytes::default() };
    let encoder = PairEncoder { tokenizer: Some(&tokenizer), n_soft: 2, reader: READER };
    let row = encoder.rows(&text_pair("a", "b")).unwrap().remove(0);
    assert_eq!(row.tokens, [soft(0..2), ids(&[BOS]), text("a"), text("b")].concat());
    assert_eq!(scored(&row), pairs_of(3, "b"));

    let raw = pairs(&[Content::Ids { prompt: vec![7, 8], completion: vec![9, 10] }]);
    let encoder = PairEncoder { tokenizer: None, n_soft: 0, reader: READER };
    let row = encoder.rows(&raw).unwrap().remove(0);
    assert_eq!((scored(&row), row.tokens), (vec![(1, 9), (2, 10)], ids(&[7, 8, 9, 10])));
}

#[test]
fn raw_rows_that_cannot_be_encoded() {
    let tokenizer = Bytes::default();
    let error = |encoder: PairEncoder, data: &Dataset<Pair>| encoder.rows(data).unwrap_err().to_string();
    let plain = || PairEncoder { tokenizer: Some(&tokenizer), n_soft: 0, reader: READER };
    assert!(
        error(plain(), &text_pair("", "b")).starts_with("p.jsonl:1: nothing is in front of the completion")
    );
    assert!(PairEncoder { n_soft: 1, ..plain() }.rows(&text_pair("", "b")).is_ok());
    assert!(
        error(PairEncoder { tokenizer: None, ..plain() }, &text_pair("a", "b")).contains("no tokenizer.json")
    );
    assert!(
        error(PairEncoder { n_soft: 1 << 40, ..plain() }, &text_pair("a", "b")).contains("leave no room")
    );
    let ids = Content::Ids { prompt: vec![1], completion: vec![258, 260] };
    assert!(error(plain(), &pairs(&[ids])).contains("p.jsonl:1: token id 260 is outside the vocabulary"));
    let long = Content::Ids { prompt: vec![1; 30], completion: vec![2] };
    assert!(error(plain(), &pairs(&[long])).contains("0 soft + 30 text + 1 answer tokens = 31"));
}

const MASKED: Reader = Reader { family: Family::Masked, ..READER };
const MASKING: Bytes = Bytes { bos: true, eos: true, mask: true };

#[test]
fn a_mask_becomes_as_many_as_the_answer_has_tokens() {
    for template in ["{soft:1}{x}:{mask}.{soft:1}", "{soft:1}{x}:{label}.{soft:1}"] {
        let task = task(template);
        let encoder = TaskEncoder::new(&task, &MASKING, MASKED).unwrap();
        let rows = scoring_rows(&encoder, &data(&[("q", None)])).unwrap().remove(0);
        let row =
            [soft(0..1), ids(&[BOS]), text("q:"), ids(&[MASK, MASK]), text("."), soft(1..2), ids(&[EOS])];
        assert_eq!(rows[0].tokens, row.concat());
        let scored: Vec<_> = rows.iter().map(scored).collect();
        assert_eq!(scored, [pairs_of(4, " y"), vec![(4, 32), (5, AB)], pairs_of(4, " n")]);
        assert!(rows.iter().all(|row| row.encoder.is_empty()));
    }
    // the beginning goes before the first text or mask, and never between a soft prompt and nothing
    let front = task("{soft:1}{mask}{x}");
    let encoder = TaskEncoder::new(&front, &MASKING, MASKED).unwrap();
    let row = encoder.training_rows(&data(&[("q", Some(1))])).unwrap().remove(0);
    assert_eq!(row.tokens, [soft(0..1), ids(&[BOS, MASK, MASK]), text("q"), ids(&[EOS])].concat());
}

#[test]
fn several_masks_take_a_token_of_the_answer_each() {
    let apart = task("{mask}{x}{mask}.");
    let encoder = TaskEncoder::new(&apart, &MASKING, MASKED).unwrap();
    let row = encoder.training_rows(&data(&[("q", Some(1))])).unwrap().remove(0);
    assert_eq!(row.tokens, [ids(&[BOS, MASK]), text("q"), ids(&[MASK]), text("."), ids(&[EOS])].concat());
    assert_eq!(scored(&row), [(1, 32), (3, u32::from(b'n'))]);

    let refused = |template: &str, tokenizer: &Bytes| {
        let task = task(template);
        TaskEncoder::new(&task, tokenizer, MASKED).err().expect("it is refused").to_string()
    };
    assert_eq!(
        refused("{x}{mask}{mask}{mask}", &MASKING),
        "task `t`: answer \" y\" has 2 tokens in this vocabulary, but the template has 3 `{mask}`; written once, it \
         stands for as many masks as each answer has tokens"
    );
    assert!(refused("{x}", &MASKING).contains("it has no `{mask}`"));
    assert!(refused("{x}{mask}", &Bytes::default()).contains("no mask token"));
}

#[test]
fn rows_of_ids_with_masks() {
    let raw = |ids: &[u32], masks: &[(usize, u32)]| {
        pairs(&[Content::Masked { ids: ids.to_vec(), masks: masks.to_vec() }])
    };
    let encoder = PairEncoder { tokenizer: None, n_soft: 2, reader: MASKED };
    let row = encoder.rows(&raw(&[1, MASK, 3, MASK], &[(3, 8), (1, 9)])).unwrap().remove(0);
    assert_eq!(row.tokens, [soft(0..2), ids(&[1, MASK, 3, MASK])].concat());
    assert_eq!(scored(&row), [(5, 8), (3, 9)]);
    let error = encoder.rows(&raw(&[1, MASK], &[(1, 260)])).unwrap_err().to_string();
    assert!(error.contains("token id 260 is outside"), "{error}");
    let long = encoder.rows(&raw(&[MASK; 29], &[(0, 1)])).unwrap_err().to_string();
    assert!(long.contains("2 soft + 28 text + 1 answer tokens = 31"), "{long}");

    // a row of one family for a model of another
    let error = encoder.rows(&text_pair("a", "b")).unwrap_err().to_string();
    assert!(error.contains("p.jsonl:1: the model is a masked one"), "{error}");
    let causal = PairEncoder { reader: READER, ..encoder };
    let error = causal.rows(&raw(&[1, MASK], &[(1, 2)])).unwrap_err().to_string();
    assert!(error.contains("`mask_positions` needs a masked model"), "{error}");
}

const SEQ2SEQ: Reader = Reader { family: Family::Seq2Seq, vocab_size: 270, ..READER };
const T5: Bytes = Bytes { bos: false, eos: true, mask: false };

#[test]
fn a_decoder_answers_behind_its_start_token_and_ends() {
    let task = task("{soft:2}{x}:{label}");
    let encoder = TaskEncoder::new(&task, &T5, SEQ2SEQ).unwrap();
    let rows = encoder.training_rows(&data(&[("c", Some(0))])).unwrap();
    assert_eq!(rows[0].encoder, [soft(0..2), text("c:"), ids(&[EOS])].concat());
    assert_eq!(rows[0].tokens, [ids(&[3]), text(" y"), ids(&[EOS])].concat());
    assert_eq!(scored(&rows[0]), [pairs_of(0, " y"), vec![(2, EOS)]].concat());
    // one row per answer, all with the same encoder input
    let rows = scoring_rows(&encoder, &data(&[("c", None)])).unwrap();
    assert_eq!(rows[0].len(), 3);
    assert!(rows[0].iter().all(|row| row.encoder == rows[0][0].encoder));
}

#[test]
fn a_gap_of_the_text_is_filled_in_the_decoder() {
    let rows = |template: &str| {
        let task = task(template);
        let encoder = TaskEncoder::new(&task, &T5, SEQ2SEQ).unwrap();
        scoring_rows(&encoder, &data(&[("c", None)])).unwrap().remove(0)
    };
    let row = &rows("{x} is {mask}.")[0];
    assert_eq!(row.encoder, [text("c is "), ids(&[GAP]), text("."), ids(&[EOS])].concat());
    assert_eq!(row.tokens, [ids(&[3, GAP]), text(" y")].concat());
    // what the decoder is given and the end of the gap are not scored
    assert_eq!(scored(row), pairs_of(1, " y"));
}

#[test]
fn masks_side_by_side_are_one_gap() {
    let pieces = |template: &str| {
        let template = Template::parse(template).unwrap();
        let form = Form::new(SEQ2SEQ, &T5, &template, &[EOS]).unwrap();
        let piece = |segment| match segment {
            Segment::Answer(slot) => Piece::Answer(slot),
            _ => Piece::Token(Source::Text(65)),
        };
        let pieces: Vec<Piece> =
            template.fill(|_| Some("A")).unwrap().segments().into_iter().map(piece).collect();
        form.row(&pieces, &[7, 8]).unwrap()
    };
    let row = pieces("{mask}{mask}A");
    assert_eq!((row.encoder.clone(), row.tokens.clone()), (ids(&[GAP, 65]), ids(&[3, GAP, 7, 8])));
    assert_eq!(scored(&row), [(1, 7), (2, 8)]);
    let row = pieces("{mask}A{mask}");
    assert_eq!(
        (row.encoder.clone(), row.tokens.clone()),
        (ids(&[GAP, 65, GAP - 1]), ids(&[3, GAP, 7, GAP - 1, 8]))
    );
    assert_eq!(scored(&row), [(1, 7), (3, 8)]);
}

#[test]
fn templates_that_a_decoder_cannot_answer_are_refused() {
    let error = |template: &str, reader| {
        TaskEncoder::new(&task(template), &T5, reader).err().expect("refused").to_string()
    };
    for (template, why) in [
        ("{x}", "no `{label}` and no `{mask}`"),
        ("{x}{label}.", "something follows `{label}`"),
        ("{mask}{x}{mask}{x}{mask}{x}{mask}", "no <extra_id_3>"),
        ("{x}{mask}{mask}{mask}", "the template has 3 `{mask}`"),
    ] {
        let error = error(template, SEQ2SEQ);
        assert!(error.contains(why) && !error.contains('\n'), "{template}: {error}");
    }
}

#[test]
fn pairs_of_an_encoder_decoder() {
    let pair = |content| Dataset { path: "p.jsonl".into(), rows: vec![Pair { line: 1, content }] };
    let encoder = PairEncoder { tokenizer: Some(&T5), n_soft: 2, reader: SEQ2SEQ };
    let words = pair(Content::Text { prompt: "c".into(), completion: "d".into() });
    let row = encoder.rows(&words).unwrap().remove(0);
    assert_eq!(row.encoder, [soft(0..2), text("c"), ids(&[EOS])].concat());
    assert_eq!((row.tokens.clone(), scored(&row)), (ids(&[3, 100, EOS]), vec![(0, 100), (1, EOS)]));
    // nothing is added to raw ids
    let raw = pair(Content::Ids { prompt: vec![5], completion: vec![6, 7] });
    let row = encoder.rows(&raw).unwrap().remove(0);
    assert_eq!((row.encoder.clone(), scored(&row)), ([soft(0..2), ids(&[5])].concat(), vec![(0, 6), (1, 7)]));
    let nothing = pair(Content::Ids { prompt: vec![], completion: vec![6] });
    let error = PairEncoder { n_soft: 0, ..encoder }.rows(&nothing).unwrap_err().to_string();
    assert!(error.contains("the encoder needs at least one token"), "{error}");
}
