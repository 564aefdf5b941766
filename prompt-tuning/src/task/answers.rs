//! What can be answered: a label, by one of its answer strings, or a text of its own.

use std::collections::HashMap;

use serde::Deserialize;

/// What can be answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    /// One of these, in the order of the file. Not empty; no answer string occurs twice.
    Labels(Vec<Label>),
    /// A text.
    Text(FreeText),
}

/// A label and the strings that stand for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// As in the data.
    pub name: String,
    /// Not empty. The first one is what training teaches and what demonstrations show.
    pub answers: Vec<String>,
}

/// An answer that is a text of its own.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreeText {
    /// The field of the data that has the right answer.
    pub field: String,
    /// What comes before it: the space between a colon and a word.
    #[serde(default)]
    pub begin: String,
    /// Strings that end it; the first one ends it in demonstrations and in training.
    #[serde(default = "line_end")]
    pub stop: Vec<String>,
    /// What else ends it.
    #[serde(default)]
    pub end: End,
    /// Most tokens of an answer.
    #[serde(default = "many_tokens")]
    pub max_new_tokens: usize,
    /// What separates the items of an answer that is a list.
    pub list: Option<String>,
}

/// What ends an answer besides its stop strings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Nothing.
    #[default]
    None,
    /// The first line after the first that is not indented: the end of a Python function.
    Function,
}

fn line_end() -> Vec<String> {
    vec!["\n".into()]
}

fn many_tokens() -> usize {
    64
}

impl Answers {
    /// From what the file has: one of the two.
    pub(super) fn new(labels: Option<&toml::Table>, text: Option<FreeText>) -> Result<Answers, String> {
        match (labels, text) {
            (Some(_), Some(_)) => Err("it has both [labels] and [answer]; an answer is one of the labels or a text".into()),
            (None, None) => Err(
                "it has no [labels]; give each label its answer, as in positive = [\" positive\"], or say in [answer] which field \
                 has the right text"
                    .into(),
            ),
            (Some(table), None) => {
                let labels = table.iter().map(|(name, value)| label(name, value)).collect::<Result<Vec<_>, _>>()?;
                check_labels(&labels)?;
                Ok(Answers::Labels(labels))
            }
            (None, Some(text)) => {
                text.check()?;
                Ok(Answers::Text(text))
            }
        }
    }
}

impl FreeText {
    fn check(&self) -> Result<(), String> {
        match self {
            FreeText { field, .. } if field.is_empty() => {
                Err("field of [answer] is empty; name the field of the data that has the right answer".into())
            }
            FreeText { stop, .. } if stop.iter().any(String::is_empty) => {
                Err("stop of [answer] has an empty string, which would end every answer at once".into())
            }
            FreeText { max_new_tokens: 0, .. } => Err("max_new_tokens of [answer] must be 1 or more".into()),
            FreeText { list: Some(separator), .. } if separator.is_empty() => {
                Err("list of [answer] is what separates the items, as in \",\"; it cannot be empty".into())
            }
            _ => Ok(()),
        }
    }

    /// The answer as demonstrations and training show it.
    pub fn shown(&self, answer: &str) -> String {
        format!("{}{answer}", self.begin)
    }

    /// Where the answer ends in what the model has written so far, once it has.
    pub fn end(&self, written: &str) -> Option<usize> {
        let stop = self.stop.iter().filter_map(|stop| written.find(stop.as_str()));
        let end = match self.end {
            End::None => None,
            End::Function => Some(function(written).len()).filter(|&end| end < written.len()),
        };
        stop.chain(end).min()
    }

    /// The answer in what the model wrote. The lines of a function keep their indentation.
    pub fn answer<'a>(&self, written: &'a str) -> &'a str {
        let written = &written[..self.end(written).unwrap_or(written.len())];
        match self.end {
            End::None => written.trim(),
            End::Function => written.trim_start_matches(['\r', '\n']).trim_end(),
        }
    }

    /// The items of an answer that is a list.
    pub fn items<'a>(&'a self, answer: &'a str) -> Vec<&'a str> {
        let separator = self.list.as_deref().unwrap_or("\n");
        answer.split(separator).map(str::trim).filter(|item| !item.is_empty()).collect()
    }
}

/// The first line and the indented or empty ones after it.
fn function(text: &str) -> &str {
    let mut end = 0;
    for (i, line) in text.split_inclusive('\n').enumerate() {
        if i > 0 && !line.trim().is_empty() && !line.starts_with([' ', '\t']) {
            break;
        }
        end += line.len();
    }
    &text[..end]
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

fn check_labels(labels: &[Label]) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn free(end: End) -> FreeText {
        FreeText {
            field: "x".into(),
            begin: " ".into(),
            stop: vec!["\n\n".into(), "#".into()],
            end,
            max_new_tokens: 9,
            list: Some(",".into()),
        }
    }

    #[test]
    fn an_answer_ends_at_the_first_stop_string() {
        assert_eq!(free(End::None).answer(" Bonjour \nle monde # x\n\ny"), "Bonjour \nle monde");
        assert_eq!(free(End::None).answer("all"), "all");
        assert_eq!(free(End::None).shown("Bonjour"), " Bonjour");
        assert_eq!(free(End::None).items("Paris,  Rome,, Bonn "), ["Paris", "Rome", "Bonn"]);
    }

    #[test]
    fn a_function_ends_where_a_line_is_not_indented() {
        let code = "def f(n):\n    if n:\n        return 1\n\treturn 2\nprint(f(3))\n    x";
        assert_eq!(free(End::Function).answer(code), "def f(n):\n    if n:\n        return 1\n\treturn 2");
        assert_eq!(free(End::Function).answer("def f(): return 1"), "def f(): return 1");
        // where `begin` is a line end, the body is all of it
        assert_eq!(free(End::Function).answer("\n    return 1\n    x\n# y"), "    return 1\n    x");
        let gap = FreeText { stop: vec![], ..free(End::Function) };
        assert_eq!(gap.answer("def f():\n    a\n\n    b\ndef g"), "def f():\n    a\n\n    b");
    }
}
