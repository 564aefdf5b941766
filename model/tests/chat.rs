//! Chat templates: conversations rendered as transformers renders them (`scripts/fixture_chat.py`).

use std::path::Path;

use prompt_tuning_model::{ChatTemplate, Message};
use serde_json::Value;

fn recorded() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("a fixture")).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn messages(turns: &Value) -> Vec<Message> {
    let role = |turn: &Value| match text(&turn[0]) {
        "system" => "system",
        "user" => "user",
        _ => "assistant",
    };
    let message = |turn: &Value| Message { role: role(turn), content: text(&turn[1]).into() };
    turns.as_array().expect("turns").iter().map(message).collect()
}

#[test]
fn conversations_are_rendered_as_transformers_does() {
    let recorded = recorded();
    let cases = recorded["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 40);
    let mut wrong = Vec::new();
    for case in cases {
        let (template, conversation) = (text(&case["template"]), text(&case["conversation"]));
        let source = text(&recorded["templates"][template]);
        let chat = ChatTemplate::new(source, text(&recorded["bos"]), text(&recorded["eos"]));
        let found = chat.render(&messages(&recorded["conversations"][conversation]));
        let right = match (&found, case["raised"].as_str()) {
            (Err(e), Some(raised)) => e.to_string().contains(raised) && !e.to_string().contains('\n'),
            (Ok(rendered), None) => rendered == text(&case["rendered"]),
            _ => false,
        };
        if !right {
            wrong.push(format!("{template}, {conversation}:\n{found:?}\n{case}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}\n{}",
        wrong.len(),
        cases.len(),
        wrong[..wrong.len().min(3)].join("\n")
    );
}

#[test]
fn the_template_of_a_folder_is_that_of_its_tokenizer_config() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2-text");
    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).expect("a fixture"))
            .expect("JSON");
    let chat = ChatTemplate::open(&folder).expect("it can be read").expect("a template");
    let turns = &expected["chat"]["messages"];
    let turn = |m: &Value| serde_json::json!([m["role"], m["content"]]);
    let turns: Vec<Value> = turns.as_array().expect("messages").iter().map(turn).collect();
    assert_eq!(chat.render(&messages(&turns.into())).expect("rendered"), text(&expected["chat"]["text"]));
}
