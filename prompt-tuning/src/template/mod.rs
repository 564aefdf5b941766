//! The template language: what is put around the text, and where the answer goes.
//!
//! ```text
//! {soft:20}Review: {text|trim|truncate:400}\nSentiment:{label}
//! ```
//!
//! | piece | stands for |
//! |---|---|
//! | text | itself; `{{` and `}}` are braces |
//! | `{field}` | a field of the example, put in as it is: never parsed, whatever it contains |
//! | `{field\|filter\|…}` | the field through [filters](Filter), from left to right |
//! | `{soft:20}` | 20 virtual tokens |
//! | `{soft:"words"}` | one virtual token per token of the words, starting from their embeddings; `\"` and `\\` inside |
//! | `{soft:x}`, `{soft:x:5}`, `{soft:x:"words"}` | virtual tokens called `x` (one, if nothing else is said); written again, `{soft:x}` is the same vectors |
//! | `{label}` | where the answer goes; for causal models at the end |
//! | `{mask}` | the same, for models that fill a gap in a text: a masked model gets as many mask tokens here as the answer has tokens, or, where it is written several times, exactly so many; at the end of the template a causal model takes it for `{label}` |
//!
//! | filter | makes of a field |
//! |---|---|
//! | `trim` | no white space around it |
//! | `lower`, `upper`, `capitalize` | lower case, upper case, its first letter in upper case |
//! | `oneline` | each run of white space one space |
//! | `truncate:N` | its first N characters |
//! | `shorten`, `shorten:tail`, `shorten:head`, `shorten:middle` | what gives way when the whole does not fit the context window: its end, its beginning, or its middle |
//!
//! ```text
//! template    = { text | "{{" | "}}" | "{" placeholder "}" }
//! placeholder = "label" | "mask" | "soft:" soft | name { "|" filter }
//! soft        = number | quoted | name [ ":" ( number | quoted ) ]
//! filter      = name [ ":" ( number | name ) ]
//! name        = letter, digit, "_", "-" or ".", at least one
//! ```
//!
//! Templates are parsed, never evaluated. Text and fields between two soft parts are joined to one string before it
//! is tokenized, so that spaces and merges are those of the plain string. Only fields that say `shorten` are ever cut, the
//! longest of them first: the template, the mask and the answer never are.

mod filled;
mod filter;
mod parse;

use std::fmt;

pub(crate) use self::filled::append;
pub use self::filled::{Filled, Segment};
pub use self::filter::{Cut, Filter};

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
    soft: Vec<Soft>,
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Literal text, braces already unescaped.
    Text(String),
    /// A field of the example.
    Field(Field),
    /// The virtual tokens of this index into [`Template::soft`].
    Soft(usize),
    /// Where the answer goes.
    Answer(Slot),
}

/// A field of the example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in the data.
    pub name: String,
    /// What it goes through, in order.
    pub filters: Vec<Filter>,
    /// What is cut from it when the whole is too long; `None`: nothing.
    pub shorten: Option<Cut>,
}

/// Where the place of the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `{label}`.
    Label,
    /// `{mask}`.
    Mask,
}

/// Virtual tokens of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soft {
    /// What else in the template can be the same vectors.
    pub name: Option<String>,
    /// How many, and where they start from.
    pub start: SoftStart,
}

/// How many virtual tokens, and where they start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SoftStart {
    /// So many.
    Count(usize),
    /// One for each token of these words.
    Words(String),
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
    /// A brace without partner, an unknown or incomplete placeholder or filter, a second `{label}`, or one beside a
    /// `{mask}`.
    pub fn parse(source: &str) -> Result<Template, TemplateError> {
        let (parts, soft) = parse::parts(source)?;
        Ok(Template { source: source.to_string(), parts, soft })
    }

    /// The template as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The pieces in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The names of the fields it needs, in order of appearance, repeated as often as they appear.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(field) => Some(field.name.as_str()),
            _ => None,
        })
    }

    /// The virtual tokens in order of first appearance, those of one name once.
    pub fn soft(&self) -> &[Soft] {
        &self.soft
    }

    /// How many of the first parts are virtual tokens.
    pub fn n_leading_soft(&self) -> usize {
        self.parts.iter().take_while(|part| matches!(part, Part::Soft(_))).count()
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
        let n_places = self.parts.iter().filter(|part| matches!(part, Part::Soft(_))).count();
        let ([Soft { start: SoftStart::Count(n), .. }], 1, 1) =
            (&self.soft[..], n_places, self.n_leading_soft())
        else {
            return None;
        };
        let (_, rest) = self.source.split_once('}')?;
        Some((Template { source: rest.into(), parts: self.parts[1..].to_vec(), soft: Vec::new() }, *n))
    }

    /// The places of the answer in order: one `{label}`, or one or several `{mask}`, or none.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.parts.iter().filter_map(|part| match part {
            Part::Answer(slot) => Some(*slot),
            _ => None,
        })
    }

    /// The template with the fields filled in by `field`, after their filters.
    ///
    /// # Errors
    /// The name of the first field that `field` does not have.
    pub fn fill<'a>(&'a self, field: impl Fn(&str) -> Option<&'a str>) -> Result<Filled<'a>, &'a str> {
        Filled::new(self, field)
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

#[cfg(test)]
mod tests;
