//! What stands in front of an example: virtual tokens, the instruction, demonstrations.
//!
//! ```text
//! template   {soft:20}Review: {text}\nSentiment:{label}
//! whole      P1 … P20 instruction
//!
//!            Review: a fine film
//!            Sentiment: positive                 a demonstration: the template with the example and its answer
//!
//!            Review: the text                    the example itself, its answer open
//!            Sentiment:{label}
//! ```
//!
//! Virtual tokens that begin the template stand once, in front of everything, as a trained prompt does; those within it
//! belong to the pattern and come again in every demonstration. All text between virtual tokens is one string before it
//! is tokenized, so a prompt is tokenized as if it had been written by hand.
//!
//! In a chat the instruction is what the system says, each demonstration is a turn of the user and one of the assistant, and
//! the assistant answers the last: without the space that an answer has in running text.

use std::collections::BTreeMap;

use model::{ChatTemplate, Message};

use crate::data::Example;
use crate::task::{Answers, Task};
use crate::template::{Filled, Segment, append};

/// A worked example to be shown to the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demonstration {
    /// What the template needs.
    pub fields: BTreeMap<String, String>,
    /// The string that stands in the place of the answer.
    pub answer: String,
}

impl Demonstration {
    /// An example with the first answer of its label, or its text; `None` where it has none.
    pub fn of(example: &Example, task: &Task) -> Option<Demonstration> {
        let answer = match &task.answers {
            Answers::Labels(labels) => labels[example.label?].answers[0].clone(),
            Answers::Text(text) => text.shown(example.answer.as_deref()?),
        };
        Some(Demonstration { fields: example.fields.clone(), answer })
    }
}

/// Everything in order: what leads the template, instruction, demonstrations, and `example`.
pub(super) fn segments(
    task: &Task,
    chat: Option<&ChatTemplate>,
    demonstrations: &[Demonstration],
    example: &Filled,
) -> Result<Vec<Segment>, String> {
    let n_leading = task.template.n_leading_soft();
    let mut whole = example.segments();
    let own = whole.split_off(n_leading);
    let shown = |demonstration: &Demonstration| {
        let field = |name: &str| demonstration.fields.get(name).map(String::as_str);
        let filled =
            task.template.fill(field).map_err(|name| format!("a demonstration has no field `{name}`"))?;
        Ok(filled.segments().split_off(n_leading))
    };
    let shown: Vec<Vec<Segment>> = demonstrations.iter().map(shown).collect::<Result<_, String>>()?;
    let shown = shown.into_iter().zip(demonstrations);
    match chat {
        None => {
            let text = |text: String| Segment::Text(text);
            if !task.instruction.is_empty() {
                append(&mut whole, text(format!("{}{}", task.instruction, task.separator)));
            }
            for (segments, demonstration) in shown {
                answered(segments, &demonstration.answer).for_each(|segment| append(&mut whole, segment));
                append(&mut whole, text(task.separator.clone()));
            }
            own.into_iter().for_each(|segment| append(&mut whole, segment));
        }
        Some(chat) => {
            let mut turns = vec![];
            if !task.instruction.is_empty() {
                turns.push(("system", vec![Segment::Text(task.instruction.clone())]));
            }
            for (segments, demonstration) in shown {
                turns.push(("user", asked(segments)));
                turns.push(("assistant", vec![Segment::Text(demonstration.answer.trim().into())]));
            }
            turns.push(("user", asked(own.clone())));
            conversation(chat, turns)?.into_iter().for_each(|segment| append(&mut whole, segment));
            whole.extend(own.into_iter().filter(|segment| matches!(segment, Segment::Answer(_))));
        }
    }
    Ok(whole)
}

/// The segments with `answer` in the place of the answer.
fn answered(segments: Vec<Segment>, answer: &str) -> impl Iterator<Item = Segment> {
    let mut answer = Some(answer.to_string());
    segments.into_iter().map(move |segment| match segment {
        Segment::Answer(_) => Segment::Text(answer.take().unwrap_or_default()),
        other => other,
    })
}

/// The segments before the answer, as what a user says.
fn asked(mut segments: Vec<Segment>) -> Vec<Segment> {
    segments.retain(|segment| !matches!(segment, Segment::Answer(_)));
    if let Some(Segment::Text(text)) = segments.last_mut() {
        text.truncate(text.trim_end().len());
    }
    segments
}

/// The turns as the chat template has them. It never sees what is said, only a mark in its place.
fn conversation(
    chat: &ChatTemplate,
    turns: Vec<(&'static str, Vec<Segment>)>,
) -> Result<Vec<Segment>, String> {
    let mark = |i: usize| format!("\u{e000}{i}\u{e001}");
    let message = |(i, (role, _)): (usize, &(&'static str, _))| Message { role, content: mark(i) };
    let messages: Vec<Message> = turns.iter().enumerate().map(message).collect();
    let rendered = chat.render(&messages).map_err(|e| e.to_string())?;
    let (mut rest, mut whole) = (rendered.as_str(), Vec::new());
    for (i, (role, said)) in turns.into_iter().enumerate() {
        let (before, after) = rest.split_once(&mark(i)).ok_or_else(|| {
            format!("chat template: it leaves out what the {role} says, or changes the order")
        })?;
        whole.push(Segment::Text(before.into()));
        whole.extend(said);
        rest = after;
    }
    whole.push(Segment::Text(rest.into()));
    Ok(whole)
}
