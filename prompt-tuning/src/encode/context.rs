//! What stands in front of an example: virtual tokens, the instruction, demonstrations.
//!
//! ```text
//! template   {soft:20}Review: {text}\nSentiment:{label}
//! rendered   P1 … P20 instruction
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

use std::collections::BTreeMap;

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
///
/// # Errors
/// The name of the first field that a demonstration does not have.
pub(super) fn segments<'a>(
    task: &'a Task,
    demonstrations: &'a [Demonstration],
    example: &Filled,
) -> Result<Vec<Segment>, &'a str> {
    let n_leading = task.template.n_leading_soft();
    let mut example = example.segments();
    let own = example.split_off(n_leading);
    let mut all = example;
    if !task.instruction.is_empty() {
        append(&mut all, Segment::Text(format!("{}{}", task.instruction, task.separator)));
    }
    for demonstration in demonstrations {
        let field = |name: &str| demonstration.fields.get(name).map(String::as_str);
        let shown = task.template.fill(field)?.segments();
        let mut answer = Some(demonstration.answer.as_str());
        for segment in shown.into_iter().skip(n_leading) {
            append(
                &mut all,
                match segment {
                    Segment::Answer(_) => Segment::Text(answer.take().unwrap_or_default().into()),
                    other => other,
                },
            );
        }
        append(&mut all, Segment::Text(task.separator.clone()));
    }
    own.into_iter().for_each(|segment| append(&mut all, segment));
    Ok(all)
}
