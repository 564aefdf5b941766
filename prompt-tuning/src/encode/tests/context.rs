//! What stands in front of an example, what gives way, and answers that are texts.

use super::*;

fn shown(x: &str, answer: &str) -> Demonstration {
    Demonstration { fields: BTreeMap::from([("x".to_string(), x.to_string())]), answer: answer.into() }
}

fn with(key: &str, template: &str) -> Task {
    let template = template.replace('\n', "\\n");
    Task::parse(&format!(
        "{key}\nname = \"t\"\ntemplate = \"{template}\"\n[labels]\nyes = \" y\"\nno = \" n\""
    ))
    .unwrap()
}

const PLAIN: Bytes = Bytes { bos: false, eos: false, mask: false };
const LONG: Reader = Reader { n_positions: 100, ..READER };

#[test]
fn demonstrations_are_the_template_with_its_answer() {
    let task = with("instruction = \"Say.\"", "{soft:2}<{x}>{soft:y}:{label}");
    let tokenizer = Bytes { bos: true, ..Bytes::default() };
    let encoder = TaskEncoder::new(&task, &tokenizer, LONG).unwrap();
    let example = &data(&[("c{label}", None)]).rows[0];
    let demonstrations = [shown("{x}", " y"), shown("b", " n")];
    let rows = encoder.candidate_rows(example, &demonstrations).unwrap();
    // what leads the template stands once; what is within it comes with every demonstration; text is one string
    let front = [
        soft(0..2),
        ids(&[BOS]),
        text("Say.\n\n<{x}>"),
        soft(2..3),
        text(": y\n\n<b>"),
        soft(2..3),
        text(": n\n\n<c{label}>"),
        soft(2..3),
        text(":"),
    ]
    .concat();
    assert_eq!(rows[0].tokens, [front.clone(), text(" y")].concat());
    assert_eq!(rows[1].tokens, [front.clone(), text(" n")].concat());
    assert_eq!(scored(&rows[0]), pairs_of(front.len() - 1, " y"));

    let separated = with("separator = \"a\"", "b{x}:{label}");
    let encoder = TaskEncoder::new(&separated, &PLAIN, LONG).unwrap();
    let row = &encoder.candidate_rows(example, &[shown("1", " y")]).unwrap()[1];
    // tokenized as the whole string is: the separator and what follows it merge
    assert_eq!(row.tokens, [text("b1: y"), ids(&[AB]), text("c{label}: n")].concat());
    let lacking = Demonstration { fields: BTreeMap::new(), answer: " y".into() };
    let error = encoder.candidate_rows(example, &[lacking]).unwrap_err();
    assert_eq!(error, "a demonstration has no field `x`");
}

#[test]
fn demonstrations_of_families_that_fill_gaps() {
    let task = task("{x} is {mask}.");
    let example = &data(&[("c", None)]).rows[0];
    let demonstrations = [shown("1", "ok")];
    let encoder = TaskEncoder::new(&task, &MASKING, Reader { n_positions: 100, ..MASKED }).unwrap();
    let row = &encoder.candidate_rows(example, &demonstrations).unwrap()[2];
    let whole = [ids(&[BOS]), text("1 is ok.\n\nc is "), ids(&[MASK, MASK]), text("."), ids(&[EOS])];
    assert_eq!(row.tokens, whole.concat());
    let encoder = TaskEncoder::new(&task, &T5, Reader { n_positions: 100, ..SEQ2SEQ }).unwrap();
    let row = &encoder.candidate_rows(example, &demonstrations).unwrap()[2];
    assert_eq!(row.encoder, [text("1 is ok.\n\nc is "), ids(&[GAP]), text("."), ids(&[EOS])].concat());
}

#[test]
fn what_may_be_shortened_gives_way_and_nothing_else() {
    let task = with("", "{soft:3}<{x|shorten}>:{label}");
    let encoder = TaskEncoder::new(&task, &PLAIN, READER).unwrap();
    let long = data(&[("one two three four five six", Some(0)), ("short", Some(1))]);
    let rows = encoder.training_rows(&long).unwrap();
    // 30 positions: 3 soft, 2 of the answer, 3 of the template, 22 of the text, of which a word would not be whole
    assert_eq!(rows[0].tokens, [soft(0..3), text("<one two three four>: y")].concat());
    assert_eq!(rows[1].tokens, [soft(0..3), text("<short>: n")].concat());
    let example = &long.rows[0];
    let demonstrations = [shown("1", " y")];
    assert!(!encoder.fits(example, &[]).unwrap() && encoder.fits(&long.rows[1], &[]).unwrap());
    assert!(encoder.fits(&long.rows[1], &demonstrations).unwrap());
    assert!(!encoder.fits(&long.rows[1], &[shown("12345678901", " y")]).unwrap());
    // nothing is left of the text, and the rest is still too long
    let error = encoder.candidate_rows(example, &[shown("1234567890123456789", " y")]).unwrap_err();
    assert!(error.contains("but the context window"), "{error}");
}

const FREE: &str =
    "name = \"t\"\ntemplate = \"{x}:{label}\"\n[answer]\nfield = \"y\"\nbegin = \" \"\nmax_new_tokens = 9";

#[test]
fn answers_that_are_texts() {
    let task = Task::parse(FREE).unwrap();
    let encoder = TaskEncoder::new(&task, &PLAIN, READER).unwrap();
    let mut examples = data(&[("c", None), ("d", None)]);
    examples.rows[0].answer = Some("ok".into());
    let example = &examples.rows[0];
    assert_eq!(encoder.open_row(example, &[]).unwrap(), text("c:"));
    let demonstration = Demonstration::of(example, &task).unwrap();
    assert_eq!(encoder.open_row(&examples.rows[1], &[demonstration]).unwrap(), text("c: ok\n\nd:"));
    // room for the whole answer is kept
    let long = &data(&[("123456789012345678901", None)]).rows[0];
    let error = encoder.open_row(long, &[]).unwrap_err();
    assert!(error.contains("22 text + 9 answer tokens = 31"), "{error}");
    let error = encoder.training_rows(&examples).unwrap_err().to_string();
    assert_eq!(error, "d.jsonl:2: it has no answer");
    // training teaches the end as well
    examples.rows.pop();
    let row = encoder.training_rows(&examples).unwrap().remove(0);
    assert_eq!((row.tokens.clone(), scored(&row)), (text("c: ok\n"), pairs_of(1, " ok\n")));
    let t5 = TaskEncoder::new(&task, &T5, SEQ2SEQ).unwrap();
    let row = t5.training_rows(&examples).unwrap().remove(0);
    assert_eq!(row.tokens, [ids(&[3]), text(" ok"), ids(&[EOS])].concat());
    assert_eq!(t5.open_row(&examples.rows[0], &[]).unwrap(), [text("c:"), ids(&[EOS])].concat());

    let error = |template: &str, tokenizer, reader| {
        let task = Task::parse(&FREE.replace("{x}:{label}", template)).unwrap();
        TaskEncoder::new(&task, tokenizer, reader).err().expect("refused").to_string()
    };
    assert!(error("{x}{mask}", &MASKING, MASKED).contains("only fills masks"));
    assert!(error("{x}{mask}", &T5, SEQ2SEQ).contains("not for `{mask}`"));
}

#[test]
fn a_chat_has_turns_for_demonstrations() {
    let chat = ChatTemplate::new(
        "{{ bos_token }}{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}",
        "!",
        "",
    );
    let task = with("instruction = \"Say.\"", "{soft:2}{x}{soft:y}? {label}");
    let tokenizer = Bytes { bos: true, ..Bytes::default() };
    let encoder = TaskEncoder::in_chat(&task, &tokenizer, LONG, Some(chat.clone())).unwrap();
    let example = &data(&[("\u{e000}0\u{e001}{{ x }}", None)]).rows[0];
    let row = &encoder.candidate_rows(example, &[shown("b", " n")]).unwrap()[0];
    let front = [
        soft(0..2),
        text("!<s>Say.<u>b"),
        soft(2..3),
        text("?<a>n<u>\u{e000}0\u{e001}{{ x }}"),
        soft(2..3),
        text("?<a>"),
    ]
    .concat();
    // nothing of the text is a mark, the answer begins without its space, and the beginning is the template's
    assert_eq!(row.tokens, [front.clone(), text("y")].concat());
    assert_eq!(scored(row), pairs_of(front.len() - 1, "y"));

    let filled = with("", "{x} is {mask}.");
    let masked = Reader { n_positions: 100, ..MASKED };
    let error = TaskEncoder::in_chat(&filled, &MASKING, masked, Some(chat)).err().unwrap().to_string();
    assert!(error.contains("something follows its answer"), "{error}");
    let silent = ChatTemplate::new("{{ messages[0].content }}", "", "");
    let encoder = TaskEncoder::in_chat(&task, &tokenizer, LONG, Some(silent)).unwrap();
    let error = encoder.candidate_rows(example, &[]).unwrap_err();
    assert!(error.contains("leaves out what the user says"), "{error}");
}
