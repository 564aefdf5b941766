//! A task file: what is put around a text, what counts as an answer, and how answers are scored and measured.
//!
//! ```toml
//! name = "sst2"
//! template = "{soft:20}Review: {text}\nSentiment:{label}"
//! metric = "accuracy"
//! instruction = "Decide whether the review is positive or negative."   # once, in front of everything
//! separator = "\n\n"                    # between instruction, demonstrations and the example
//! chat = false                          # true: as turns of a chat, by the model's chat template
//! [labels]                              # the verbalizer
//! positive = [" positive", " great"]
//! negative = " negative"
//! [scoring]                             # as in `verbalizer`
//! calibration = "contextual"
//! [templates]                           # other wordings, for a study
//! question = "{text} Is this positive or negative?{label}"
//! ```
//!
//! A task whose answer is a text of its own has `[answer]` in the place of `[labels]`:
//!
//! ```toml
//! name = "en-fr"
//! template = "English: {en}\nFrench:{label}"
//! metric = "bleu"
//! [answer]
//! field = "fr"                          # what is right
//! begin = " "                           # what comes before it
//! stop = ["\n"]                         # what ends it
//! max_new_tokens = 40
//! ```

mod answers;
mod metric;

use std::path::Path;

use serde::Deserialize;

pub use self::answers::{Answers, End, FreeText, Label};
pub use self::metric::Metric;
use crate::error::{Error, Result};
use crate::template::Template;
use crate::verbalizer::Scoring;

/// What the template of a task is called among its wordings.
pub const DEFAULT_WORDING: &str = "default";

/// What a prompt is tuned for and measured by.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Name, for reports.
    pub name: String,
    /// What is put around the text.
    pub template: Template,
    /// Other wordings by name, in the order of the file.
    pub wordings: Vec<(String, Template)>,
    /// What comes once, before demonstrations and text. May be empty.
    pub instruction: String,
    /// What stands between instruction, demonstrations and the text.
    pub separator: String,
    /// Whether all this is told as turns of a chat, by the model's chat template.
    pub chat: bool,
    /// What counts.
    pub metric: Metric,
    /// What can be answered.
    pub answers: Answers,
    /// How labels are scored.
    pub scoring: Scoring,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    template: String,
    #[serde(default)]
    instruction: String,
    separator: Option<String>,
    #[serde(default)]
    chat: bool,
    metric: Option<Metric>,
    // a table that keeps the order of the file
    labels: Option<toml::Table>,
    answer: Option<FreeText>,
    #[serde(default)]
    scoring: Scoring,
    #[serde(default)]
    templates: toml::Table,
}

impl Task {
    /// Reads a task file.
    ///
    /// # Errors
    /// It cannot be read or used; the error names the file, and the key or the line.
    pub fn read(path: &Path) -> Result<Task> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::read(path, e))?;
        Task::parse(&text).map_err(|why| Error::file(path, why))
    }

    /// Parses a task file's text.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn parse(text: &str) -> Result<Task, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let file: File = toml::from_str(text).map_err(|e| one_line(text, &e))?;
        let template = Template::parse(&file.template).map_err(|e| e.to_string())?;
        let wordings = file.templates.iter().map(wording).collect::<Result<_, _>>()?;
        let answers = Answers::new(file.labels.as_ref(), file.answer)?;
        let metric = file.metric.unwrap_or_else(|| Metric::usual(&answers));
        metric.check(&answers)?;
        if file.scoring.content_free.is_empty() {
            return Err("content_free of [scoring] is empty; leave it out, or write what stands for no text, as in [\"N/A\"]"
                .into());
        }
        Ok(Task {
            name: file.name,
            template,
            wordings,
            instruction: file.instruction,
            separator: file.separator.unwrap_or_else(|| "\n\n".into()),
            chat: file.chat,
            metric,
            answers,
            scoring: file.scoring,
        })
    }

    /// The labels, in the order of the file; none when the answer is a text of its own.
    pub fn labels(&self) -> &[Label] {
        match &self.answers {
            Answers::Labels(labels) => labels,
            Answers::Text(_) => &[],
        }
    }

    /// Index of the label called `name`.
    pub fn label(&self, name: &str) -> Option<usize> {
        self.labels().iter().position(|label| label.name == name)
    }

    /// The names of the labels for a message: `positive, negative`.
    pub fn label_names(&self) -> String {
        let names: Vec<&str> = self.labels().iter().map(|label| label.name.as_str()).collect();
        names.join(", ")
    }

    /// The fields that a row of data needs besides its answer, each once.
    pub fn fields(&self) -> Vec<&str> {
        let wordings = self.wordings.iter().map(|(_, template)| template);
        let mut names: Vec<&str> = Vec::new();
        for name in std::iter::once(&self.template).chain(wordings).flat_map(Template::fields) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

fn wording((name, value): (&String, &toml::Value)) -> Result<(String, Template), String> {
    let wrong = |why: &str| format!("[templates] {name}: {why}");
    if name == DEFAULT_WORDING {
        return Err(wrong("that is what `template` itself is called among the wordings; use another name"));
    }
    let source = value.as_str().ok_or_else(|| wrong("a template is a string"))?;
    Ok((name.clone(), Template::parse(source).map_err(|e| wrong(&e.to_string()))?))
}

/// TOML errors come with a picture over several lines; this keeps the line number and the message.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', "; ");
    match error.span() {
        // an error about the file as a whole spans all of it
        Some(span) if !(span.start == 0 && span.end + 1 >= text.len()) => {
            let line =
                text.as_bytes()[..span.start.min(text.len())].iter().filter(|&&b| b == b'\n').count() + 1;
            format!("line {line}: {message}")
        }
        _ => message,
    }
}

#[cfg(test)]
mod tests;
