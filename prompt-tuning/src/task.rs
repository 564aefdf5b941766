//! A task file: the template, the verbalizer (which answer strings stand for which label) and the metric.
//!
//! ```toml
//! name = "sst2"
//! template = "{soft:20}Review: {text}\nSentiment:{label}"
//! metric = "accuracy"
//! [labels]
//! positive = [" positive", " great"]
//! negative = " negative"
//! ```

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::template::Template;

/// What a prompt is tuned for and measured by.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Name, for reports.
    pub name: String,
    /// What is put around the text.
    pub template: Template,
    /// What counts.
    pub metric: Metric,
    /// The verbalizer, in the order of the file. Not empty; no answer string occurs twice.
    pub labels: Vec<Label>,
}

/// A label and the strings that stand for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// As in the data.
    pub name: String,
    /// Not empty. The first one is what training teaches.
    pub answers: Vec<String>,
}

/// What an evaluation reports first, and what early stopping watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of examples whose best label is the right one.
    #[default]
    Accuracy,
    /// F1 of each label, averaged with equal weight.
    MacroF1,
}

impl Metric {
    /// As in task files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::MacroF1 => "macro_f1",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    template: String,
    #[serde(default)]
    metric: Metric,
    // a table that keeps the order of the file
    labels: toml::Table,
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
        let labels =
            file.labels.iter().map(|(name, value)| label(name, value)).collect::<Result<Vec<_>, _>>()?;
        check(&labels)?;
        Ok(Task { name: file.name, template, metric: file.metric, labels })
    }

    /// Index of the label called `name`.
    pub fn label(&self, name: &str) -> Option<usize> {
        self.labels.iter().position(|label| label.name == name)
    }

    /// The names of the labels for a message: `positive, negative`.
    pub fn label_names(&self) -> String {
        let names: Vec<&str> = self.labels.iter().map(|label| label.name.as_str()).collect();
        names.join(", ")
    }
}

fn label(name: &str, value: &toml::Value) -> Result<Label, String> {
    let wrong =
        || format!("label `{name}` needs an answer string or a list of them, as in {name} = [\" good\"]");
    let answers = match value {
        toml::Value::String(answer) => vec![answer.clone()],
        toml::Value::Array(answers) => {
            let string = |v: &toml::Value| v.as_str().map(String::from).ok_or_else(wrong);
            answers.iter().map(string).collect::<Result<Vec<_>, _>>()?
        }
        _ => return Err(wrong()),
    };
    Ok(Label { name: name.to_string(), answers })
}

fn check(labels: &[Label]) -> Result<(), String> {
    if labels.is_empty() {
        return Err("[labels] is empty; give each label its answer, as in positive = [\" positive\"]".into());
    }
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for Label { name, answers } in labels {
        if answers.is_empty() || answers.iter().any(String::is_empty) {
            return Err(format!(
                "label `{name}` has an empty answer; an answer needs at least one character"
            ));
        }
        for answer in answers {
            if let Some(other) = seen.insert(answer, name) {
                return Err(format!(
                    "answer {answer:?} of label `{name}` is already an answer of label `{other}`"
                ));
            }
        }
    }
    Ok(())
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
mod tests {
    use super::*;

    const SST2: &str = r#"
name = "sst2"
template = "{soft:20}Review: {text}\nSentiment:{label}"
metric = "accuracy"
[labels]                       # the verbalizer
positive = [" positive", " great"]
negative = [" negative", " terrible"]
"#;

    #[test]
    fn the_example_of_the_documentation() {
        let task = Task::parse(SST2).unwrap();
        assert_eq!((task.name.as_str(), task.metric), ("sst2", Metric::Accuracy));
        assert_eq!(task.template.fields().collect::<Vec<_>>(), ["text"]);
        assert_eq!(task.label_names(), "positive, negative");
        assert_eq!(task.labels[1].answers, [" negative", " terrible"]);
        assert_eq!((task.label("negative"), task.label("no")), (Some(1), None));
    }

    #[test]
    fn numeric_labels_single_answers_and_file_order() {
        let text = "name = \"n\"\ntemplate = \"{text}{label}\"\nmetric = \"macro_f1\"\n[labels]\n1 = \" good\"\n0 = [\" bad\"]";
        let task = Task::parse(&format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
        assert_eq!(task.label_names(), "1, 0");
        assert_eq!(task.labels[0].answers, [" good"]);
        assert_eq!(task.metric.name(), "macro_f1");
        assert_eq!(serde_json::to_value(task.metric).unwrap(), "macro_f1");
    }

    #[test]
    fn bad_files_are_explained_in_one_line() {
        let with = |old: &str, new: &str| SST2.replace(old, new);
        let cases = [
            (with("metric =", "metrics ="), "line 4: unknown field `metrics`"),
            (with("\"accuracy\"", "\"bleu\""), "line 4: unknown variant `bleu`"),
            (with("name = \"sst2\"", ""), "missing field `name`"),
            (with("name = \"sst2\"", "name = 3"), "line 2: invalid type"),
            (with("{text}", "{text"), "template, character 23"),
            (SST2[..SST2.find("positive").unwrap()].to_string(), "[labels] is empty"),
            (with("[labels]", "[label]"), "unknown field `label`"),
            (with("[\" positive\", \" great\"]", "[]"), "label `positive` has an empty answer"),
            (with("\" great\"", "\"\""), "label `positive` has an empty answer"),
            (with("\" great\"", "3"), "label `positive` needs an answer string"),
            (
                with("\" terrible\"", "\" great\""),
                "\" great\" of label `negative` is already an answer of label `positive`",
            ),
            (with("negative =", "positive ="), "duplicate key"),
            (with("name =", "name"), "line 2"),
        ];
        for (text, expected) in cases {
            let error = Task::parse(&text).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{expected}: {error}");
        }
    }

    #[test]
    fn reading_names_the_file() {
        let error = Task::read(Path::new("no/task.toml")).unwrap_err();
        assert!(error.to_string().starts_with("cannot read `no/task.toml`"), "{error}");
    }
}
