//! Each kind of part, each error at its character, and what becomes of an example.

use super::*;

fn parts(source: &str) -> Vec<Part> {
    Template::parse(source).unwrap().parts
}

fn text(t: &str) -> Part {
    Part::Text(t.into())
}

fn field(name: &str) -> Part {
    Part::Field(Field { name: name.into(), filters: vec![], shorten: None })
}

fn soft(name: Option<&str>, start: SoftStart) -> Soft {
    Soft { name: name.map(String::from), start }
}

#[test]
fn every_kind_of_part() {
    let label = Part::Answer(Slot::Label);
    assert_eq!(
        parts("{soft:20}Review: {text}\nSentiment:{label}"),
        [Part::Soft(0), text("Review: "), field("text"), text("\nSentiment:"), label]
    );
    let mask = Part::Answer(Slot::Mask);
    let template = Template::parse(r#"{soft:"say \"hi\" \\ {x}"}{mask}{mask}"#).unwrap();
    assert_eq!(template.parts(), [Part::Soft(0), mask.clone(), mask]);
    assert_eq!(template.soft(), [soft(None, SoftStart::Words("say \"hi\" \\ {x}".into()))]);
    assert_eq!(parts("{{a}} }}{{"), [text("{a} }{")]);
    assert_eq!(parts("{评论}{a-b_c.d}"), [field("评论"), field("a-b_c.d")]);
    assert_eq!(parts(""), []);
}

#[test]
fn virtual_tokens_of_one_name_are_the_same() {
    let template =
        Template::parse("{soft:x}{a}{soft:2}{soft:y:3}{soft:x} {soft:y}{soft:z:\"w\"}{soft:y:3}").unwrap();
    let places: Vec<usize> = template
        .parts()
        .iter()
        .filter_map(|part| match part {
            Part::Soft(i) => Some(*i),
            _ => None,
        })
        .collect();
    assert_eq!(places, [0, 1, 2, 0, 2, 3, 2]);
    let soft = [
        soft(Some("x"), SoftStart::Count(1)),
        soft(None, SoftStart::Count(2)),
        soft(Some("y"), SoftStart::Count(3)),
        soft(Some("z"), SoftStart::Words("w".into())),
    ];
    assert_eq!(template.soft(), soft);
    // the same tokens elsewhere are not only in front
    assert!(Template::parse("{soft:x}a{soft:x}").unwrap().without_soft_prefix().is_none());
    assert!(Template::parse("{soft:x:4}a").unwrap().without_soft_prefix().is_some());
}

#[test]
fn filters_of_a_field() {
    let filters = vec![Filter::Trim, Filter::Lower, Filter::Truncate(80)];
    let expected = Field { name: "text".into(), filters, shorten: Some(Cut::Head) };
    assert_eq!(parts("{text|trim|lower|truncate:80|shorten:head}"), [Part::Field(expected)]);
    let template = Template::parse("{a|oneline|capitalize}: {b|truncate:3}{label}").unwrap();
    let filled = template.fill(|name| Some(if name == "a" { " x\n y" } else { "{a}bc" })).unwrap();
    assert_eq!(filled.segments(), [Segment::Text("X y: {a}".into()), Segment::Answer(Slot::Label)]);
    assert!(!filled.can_shorten());
}

#[test]
fn only_fields_that_may_be_shortened_give_way_the_longest_first() {
    let template = Template::parse("A {x|shorten} B {y|shorten:head} C {z}{mask}.").unwrap();
    let filled = template
        .fill(|name| {
            Some(match name {
                "x" => "one two three four five",
                "y" => "six seven",
                _ => "kept whole",
            })
        })
        .unwrap();
    let length = |filled: &Filled| {
        filled.segments().iter().map(|s| if let Segment::Text(t) = s { t.len() } else { 0 }).sum::<usize>()
    };
    let at = |limit: usize| {
        let fits = |filled: &Filled| Ok::<_, ()>(length(filled) <= limit);
        filled.shortened(fits).unwrap().map(|shorter| match &shorter.segments()[0] {
            Segment::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(at(100).unwrap(), "A one two three four five B six seven C kept whole");
    assert_eq!(at(46).unwrap(), "A one two three four B six seven C kept whole");
    assert_eq!(at(35).unwrap(), "A one two B six seven C kept whole");
    assert_eq!(at(28).unwrap(), "A one B  seven C kept whole");
    assert_eq!(at(20).unwrap(), "A  B  C kept whole");
    assert_eq!(at(10), None);
}

#[test]
fn errors_point_at_the_character() {
    let cases = [
        ("a{text", 2, "without `}`"),
        ("a}b", 2, "without `{`"),
        ("é{}", 3, "a name must follow"),
        ("{ text}", 2, "a name must follow"),
        ("{text }", 6, "' ' is not expected"),
        ("{soft}", 6, "say how many"),
        ("{soft:}", 7, "is not a number"),
        ("{soft:0}", 7, "is not a number"),
        ("{soft:100001}", 7, "is not a number"),
        ("{soft:99999999999999999999}", 7, "is not a number"),
        ("{soft:task:}", 12, "is not a number"),
        ("{soft:x:2}{soft:x:3}", 17, "another length"),
        ("{soft:x}{soft:x:\"w\"}", 15, "another length"),
        ("{soft:x:2 }", 10, "' ' is not expected"),
        ("{a|}", 4, "there is no filter ``"),
        ("{a|trimm}", 4, "there is no filter `trimm`"),
        ("{a|trim:3}", 4, "takes no argument"),
        ("{a|truncate}", 4, "number of characters"),
        ("{a|truncate:0}", 4, "number of characters"),
        ("{a|shorten:left}", 4, "head, tail or middle"),
        ("{a|shorten|trim}", 12, "the last filter"),
        ("{label|trim}", 7, "only a field"),
        ("{soft:3|trim}", 8, "only a field"),
        ("{a|trim b}", 8, "' ' is not expected"),
        ("{soft:\"a}", 7, "never closed"),
        ("{soft:\" \"}", 7, "are empty"),
        ("{soft:\"a\\n\"}", 9, "backslash"),
        ("{soft:\"a\"b}", 10, "'b' is not expected"),
        ("{text:3}", 6, "takes no argument"),
        ("{label}{label}", 8, "only one"),
        ("{mask}{label}", 7, "only one"),
        ("{label}{mask}", 8, "there already"),
        ("{a{b}}", 3, "'{' is not expected"),
    ];
    for (source, column, why) in cases {
        let error = Template::parse(source).unwrap_err();
        assert_eq!(error.column, column, "{source}: {error}");
        assert!(error.why.contains(why), "{source}: {error}");
        assert!(!error.to_string().contains('\n'), "{source}: {error}");
    }
}

#[test]
fn text_and_fields_are_joined_between_soft_parts() {
    let template = Template::parse("{soft:2}A {x}{y}! {soft:\"w\"}{soft:1}B{x}:{label}").unwrap();
    let value = |name: &str| match name {
        "x" => Some("{y}"),
        "y" => Some("2"),
        _ => None,
    };
    let text = |t: &str| Segment::Text(t.into());
    let expected = [
        Segment::Soft(0),
        text("A {y}2! "),
        Segment::Soft(1),
        Segment::Soft(2),
        text("B{y}:"),
        Segment::Answer(Slot::Label),
    ];
    assert_eq!(template.fill(value).unwrap().segments(), expected);
    assert_eq!(template.fill(|name| value(name).filter(|_| name != "y")), Err("y"));
    assert_eq!(template.fields().collect::<Vec<_>>(), ["x", "y", "x"]);
    assert_eq!(template.slots().collect::<Vec<_>>(), [Slot::Label]);
    let around = Template::parse("{x}{mask}{mask}.").unwrap();
    let mask = Segment::Answer(Slot::Mask);
    assert_eq!(around.fill(value).unwrap().segments(), [text("{y}"), mask.clone(), mask, text(".")]);
    assert_eq!(template.soft().len(), 3);
    assert_eq!(template.with_soft_prefix(4).unwrap().soft()[0].start, SoftStart::Count(4));
    assert!(template.with_soft_prefix(0).is_err());
    let bare = Template::parse("{x}: {label}").unwrap();
    assert_eq!(bare.with_soft_prefix(4).unwrap().without_soft_prefix(), Some((bare.clone(), 4)));
    assert!(template.without_soft_prefix().is_none() && bare.without_soft_prefix().is_none());
}
