//! The template language: what is put around the text, and where the answer goes.
//!
//! ```text
//! {soft:20}Review: {text}\nSentiment:{label}
//!
//! text           itself;  {{ and }} are braces
//! {field}        a field of the example, put in as it is: never parsed, whatever it contains
//! {soft:20}      20 virtual tokens
//! {soft:"words"} one virtual token per token of the words, starting from their embeddings; \" and \\ inside
//! {label}        where the answer goes; for causal models at the end
//! {mask}         the same, for models that fill a gap in a text: a masked model gets as many mask tokens here as the
//!                answer has tokens, or, where it is written several times, exactly so many; at the end of the template
//!                a causal model takes it for {label}
//! ```
//!
//! Templates are parsed, never evaluated. Text and fields between two soft parts are joined to one string before it
//! is tokenized, so that spaces and merges are those of the plain string.

use std::fmt;

/// More virtual tokens than any context window has are a typing error.
const MAX_SOFT_TOKENS: usize = 100_000;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Literal text, braces already unescaped.
    Text(String),
    /// A field of the example.
    Field(String),
    /// Virtual tokens.
    Soft(Soft),
    /// Where the answer goes.
    Answer(Slot),
}

/// How the place of the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `{label}`.
    Label,
    /// `{mask}`.
    Mask,
}

/// How many virtual tokens, and where they start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Soft {
    /// So many.
    Count(usize),
    /// One for each token of these words.
    Words(String),
}

/// A piece of a rendered example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// One string to tokenize.
    Text(String),
    /// The soft part of this index, counted over [`Template::soft`].
    Soft(usize),
    /// Where the answer goes.
    Answer(Slot),
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template, character {column}: {why}")]
pub struct TemplateError {
    /// Character of the template, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub why: String,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// A brace without partner, an unknown or incomplete placeholder, a second `{label}`, or one beside a `{mask}`.
    pub fn parse(source: &str) -> Result<Template, TemplateError> {
        let parts = Parser { chars: source.chars().collect(), at: 0 }.parts()?;
        Ok(Template { source: source.to_string(), parts })
    }

    /// The template as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The pieces in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The fields it needs, in order of appearance, repeated as often as they appear.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The soft parts in order.
    pub fn soft(&self) -> impl Iterator<Item = &Soft> {
        self.parts.iter().filter_map(|part| match part {
            Part::Soft(soft) => Some(soft),
            _ => None,
        })
    }

    /// This template with `n` more virtual tokens in front of everything.
    ///
    /// # Errors
    /// `n` is 0 or more than any context window has.
    pub fn with_soft_prefix(&self, n: usize) -> Result<Template, TemplateError> {
        Template::parse(&format!("{{soft:{n}}}{}", self.source))
    }

    /// This template without the virtual tokens in front of everything, if it has them there and nowhere else, and how many
    /// they are: what remains when a prefix takes their place.
    pub fn without_soft_prefix(&self) -> Option<(Template, usize)> {
        let (Some(Part::Soft(Soft::Count(n))), 1) = (self.parts.first(), self.soft().count()) else {
            return None;
        };
        let (_, rest) = self.source.split_once('}')?;
        Some((Template { source: rest.into(), parts: self.parts[1..].to_vec() }, *n))
    }

    /// The places of the answer in order: one `{label}`, or one or several `{mask}`, or none.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.parts.iter().filter_map(|part| match part {
            Part::Answer(slot) => Some(*slot),
            _ => None,
        })
    }

    /// The pieces with the fields filled in by `field`; text between other pieces is one string.
    ///
    /// # Errors
    /// The name of the first field that `field` does not have.
    pub fn render<'a>(&'a self, field: impl Fn(&str) -> Option<&'a str>) -> Result<Vec<Segment>, &'a str> {
        let mut segments = Vec::new();
        let mut n_soft = 0;
        for part in &self.parts {
            let text = match part {
                Part::Text(text) => text,
                Part::Field(name) => field(name).ok_or(name.as_str())?,
                Part::Soft(_) => {
                    segments.push(Segment::Soft(n_soft));
                    n_soft += 1;
                    continue;
                }
                Part::Answer(slot) => {
                    segments.push(Segment::Answer(*slot));
                    continue;
                }
            };
            match segments.last_mut() {
                Some(Segment::Text(last)) => last.push_str(text),
                _ => segments.push(Segment::Text(text.to_string())),
            }
        }
        Ok(segments)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Slot::Label => "`{label}`",
            Slot::Mask => "`{mask}`",
        })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.source)
    }
}

/// `text` written so that a template shows it as it is.
pub fn escape(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    fn parts(mut self) -> Result<Vec<Part>, TemplateError> {
        let mut parts = Vec::new();
        let mut text = String::new();
        while let Some(c) = self.peek() {
            let start = self.at;
            self.at += 1;
            if !matches!(c, '{' | '}') {
                text.push(c);
            } else if self.peek() == Some(c) {
                self.at += 1;
                text.push(c);
            } else if c == '}' {
                return Err(error(start, "`}` without `{`; write `}}` for a brace"));
            } else {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                let part = self.placeholder(start)?;
                if let Part::Answer(slot) = part {
                    check_slot(slot, &parts).map_err(|why| error(start, why))?;
                }
                parts.push(part);
            }
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(parts)
    }

    /// What is between the brace at `start` and its partner.
    fn placeholder(&mut self, start: usize) -> Result<Part, TemplateError> {
        let name = self.name();
        let takes_argument = self.peek() == Some(':');
        let part = match name.as_str() {
            "" => {
                let why = "a name must follow `{`, as in {text}; write `{{` for a brace";
                return Err(error(self.at, why));
            }
            "soft" if takes_argument => Part::Soft(self.soft()?),
            "soft" => return Err(error(self.at, "say how many virtual tokens, as in {soft:20}")),
            _ if takes_argument => {
                return Err(error(self.at, format!("`{name}` takes no argument; only soft does")));
            }
            "label" => Part::Answer(Slot::Label),
            "mask" => Part::Answer(Slot::Mask),
            _ => Part::Field(name),
        };
        match self.peek() {
            Some('}') => {
                self.at += 1;
                Ok(part)
            }
            Some(c) => {
                Err(error(self.at, format!("{c:?} is not expected here; `}}` must end the placeholder")))
            }
            None => Err(error(start, "`{` without `}`; write `{{` for a brace")),
        }
    }

    /// What follows `{soft`, beginning at the colon.
    fn soft(&mut self) -> Result<Soft, TemplateError> {
        self.at += 1;
        let start = self.at;
        if self.peek() == Some('"') {
            let words = self.quoted()?;
            return match words.trim().is_empty() {
                true => Err(error(start, "the words a soft prompt starts from are empty")),
                false => Ok(Soft::Words(words)),
            };
        }
        let argument = self.name();
        match argument.parse() {
            Ok(n) if (1..=MAX_SOFT_TOKENS).contains(&n) => Ok(Soft::Count(n)),
            _ => {
                let expected = format!("a number from 1 to {MAX_SOFT_TOKENS} or quoted words");
                Err(error(
                    start,
                    format!("soft:{argument} is not {expected}, as in {{soft:20}} or {{soft:\"words\"}}"),
                ))
            }
        }
    }

    fn quoted(&mut self) -> Result<String, TemplateError> {
        let start = self.at;
        self.at += 1;
        let mut words = String::new();
        loop {
            let c = self.peek();
            self.at += 1;
            match c {
                None => return Err(error(start, "the quote is never closed")),
                Some('"') => return Ok(words),
                Some('\\') => match self.peek() {
                    Some(c @ ('"' | '\\')) => {
                        self.at += 1;
                        words.push(c);
                    }
                    _ => return Err(error(self.at - 1, "in quotes, write `\\\\` for a backslash")),
                },
                Some(c) => words.push(c),
            }
        }
    }

    fn name(&mut self) -> String {
        let rest = &self.chars[self.at..];
        let name: String =
            rest.iter().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')).collect();
        self.at += name.chars().count();
        name
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }
}

/// An answer goes to one place, of which only a mask can have several tokens.
fn check_slot(slot: Slot, before: &[Part]) -> Result<(), &'static str> {
    match slot {
        Slot::Mask if before.contains(&Part::Answer(Slot::Label)) => Err("`{label}` is there already"),
        Slot::Label if before.iter().any(|part| matches!(part, Part::Answer(_))) => {
            Err("there can be only one place for the answer")
        }
        _ => Ok(()),
    }
}

fn error(at: usize, why: impl Into<String>) -> TemplateError {
    TemplateError { column: at + 1, why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(source: &str) -> Vec<Part> {
        Template::parse(source).unwrap().parts
    }

    #[test]
    fn every_kind_of_part() {
        let soft = |n| Part::Soft(Soft::Count(n));
        let text = |t: &str| Part::Text(t.into());
        let field = Part::Field("text".into());
        assert_eq!(
            parts("{soft:20}Review: {text}\nSentiment:{label}"),
            [soft(20), text("Review: "), field, text("\nSentiment:"), Part::Answer(Slot::Label)]
        );
        let words = Part::Soft(Soft::Words("say \"hi\" \\ {x}".into()));
        let mask = Part::Answer(Slot::Mask);
        assert_eq!(parts(r#"{soft:"say \"hi\" \\ {x}"}{mask}{mask}"#), [words, mask.clone(), mask]);
        assert_eq!(parts("{{a}} }}{{"), [text("{a} }{")]);
        assert_eq!(parts("{评论}{a-b_c.d}"), [Part::Field("评论".into()), Part::Field("a-b_c.d".into())]);
        assert_eq!(parts(""), []);
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
            ("{soft:task}", 7, "soft:task is not a number"),
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
        let field = |name: &str| match name {
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
        assert_eq!(template.render(field).unwrap(), expected);
        assert_eq!(template.render(|name| field(name).filter(|_| name != "y")), Err("y"));
        assert_eq!(template.fields().collect::<Vec<_>>(), ["x", "y", "x"]);
        assert_eq!(template.slots().collect::<Vec<_>>(), [Slot::Label]);
        let around = Template::parse("{x}{mask}{mask}.").unwrap();
        let mask = Segment::Answer(Slot::Mask);
        assert_eq!(around.render(field).unwrap(), [text("{y}"), mask.clone(), mask, text(".")]);
        assert_eq!(template.soft().count(), 3);
        assert_eq!(template.with_soft_prefix(4).unwrap().parts()[0], Part::Soft(Soft::Count(4)));
        assert!(template.with_soft_prefix(0).is_err());
        let bare = Template::parse("{x}: {label}").unwrap();
        assert_eq!(bare.with_soft_prefix(4).unwrap().without_soft_prefix(), Some((bare.clone(), 4)));
        assert!(template.without_soft_prefix().is_none() && bare.without_soft_prefix().is_none());
    }
}
