//! The template language as a user's input: any string is parsed or refused, never more.

use prompt_tuning::template::{Part, Segment, Slot, Soft, SoftStart, Template, escape};
use proptest::prelude::*;

/// Strings that are nearly templates.
fn nearly_templates() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "{{",
        "}}",
        "{text}",
        "{soft:",
        "{soft:3}",
        "{soft:\"",
        "\"}",
        "{soft:x",
        ":3}",
        "}",
        "{text",
        "|trim",
        "|shorten",
        "|",
        "\\",
        "\"",
        ":",
        "{label}",
        "{mask}",
        " ",
        "é",
        "a",
        "99999999999999999999",
        "\n",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_string_is_parsed_or_refused_at_a_character_of_it(source in any::<String>()) {
        if let Err(error) = Template::parse(&source) {
            prop_assert!((1..=source.chars().count() + 1).contains(&error.column));
        }
    }

    #[test]
    fn nearly_templates_never_panic(source in nearly_templates()) {
        match Template::parse(&source) {
            Err(error) => prop_assert!((1..=source.chars().count() + 1).contains(&error.column)),
            Ok(template) => {
                let segments = template.fill(|_| Some("{x}")).unwrap().segments();
                let slots: Vec<Slot> = template.slots().collect();
                prop_assert!(slots.len() < 2 || slots.iter().all(|s| *s == Slot::Mask));
                // text is never in two segments side by side
                let text = |s: &Segment| matches!(s, Segment::Text(_));
                prop_assert!(segments.windows(2).all(|pair| !(text(&pair[0]) && text(&pair[1]))));
                prop_assert_eq!(template.source(), source);
            }
        }
    }

    #[test]
    fn escaped_text_is_itself(text in any::<String>()) {
        let template = Template::parse(&escape(&text)).unwrap();
        let expected: Vec<Part> = if text.is_empty() { vec![] } else { vec![Part::Text(text)] };
        prop_assert_eq!(template.parts(), expected);
    }

    #[test]
    fn rendering_is_string_replacement(before in "[^{}]{0,8}", value in any::<String>(), after in "[^{}]{0,8}") {
        let template = Template::parse(&format!("{before}{{x}}{after}{{label}}")).unwrap();
        let segments = template.fill(|_| Some(&value)).unwrap().segments();
        let text = format!("{before}{value}{after}");
        // a text of nothing is no segment
        let expected = (!text.is_empty()).then_some(Segment::Text(text)).into_iter();
        prop_assert_eq!(segments, expected.chain([Segment::Answer(Slot::Label)]).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_shortened_keeps_everything_else(
        (x, y) in ("\\PC{0,30}", "\\PC{0,30}"),
        cut in prop::sample::select(vec!["", ":head", ":middle"]),
        limit in 0usize..80,
    ) {
        let template = Template::parse(&format!("<{{x|shorten{cut}}}|{{y|shorten}}>{{label}}")).unwrap();
        let filled = template.fill(|name| Some(if name == "x" { x.as_str() } else { y.as_str() })).unwrap();
        let text = |segments: Vec<Segment>| match &segments[0] {
            Segment::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        let length = |filled: &prompt_tuning::template::Filled| text(filled.segments()).chars().count();
        let shorter = filled.shortened(|filled| Ok::<_, ()>(length(filled) <= limit)).unwrap();
        prop_assert_eq!(shorter.is_some(), limit >= 3);
        if let Some(shorter) = shorter {
            prop_assert!(length(&shorter) <= limit);
            let text = text(shorter.segments());
            prop_assert!(text.starts_with('<') && text.ends_with('>') && text.contains('|'));
            if length(&filled) <= limit {
                prop_assert_eq!(&shorter, &filled);
            }
        }
    }

    #[test]
    fn any_words_can_be_quoted(words in ".*\\S.*") {
        let quoted = words.replace('\\', "\\\\").replace('"', "\\\"");
        let template = Template::parse(&format!("{{soft:\"{quoted}\"}}")).unwrap();
        let expected = Soft { name: None, start: SoftStart::Words(words) };
        prop_assert_eq!(template.soft(), [expected]);
    }
}
