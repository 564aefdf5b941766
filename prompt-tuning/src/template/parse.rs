//! From a template's text to its parts.

use super::filter::Step;
use super::{Field, Part, Slot, Soft, SoftStart, TemplateError};

/// More virtual tokens than any context window has are a typing error.
const MAX_SOFT_TOKENS: usize = 100_000;

/// The parts of a template, and its distinct virtual tokens.
pub(super) fn parts(source: &str) -> Result<(Vec<Part>, Vec<Soft>), TemplateError> {
    let mut parser = Parser { chars: source.chars().collect(), at: 0, soft: Vec::new() };
    let parts = parser.parts()?;
    Ok((parts, parser.soft))
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    soft: Vec<Soft>,
}

impl Parser {
    fn parts(&mut self) -> Result<Vec<Part>, TemplateError> {
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
        let part = match (name.as_str(), self.peek()) {
            ("", _) => {
                let why = "a name must follow `{`, as in {text}; write `{{` for a brace";
                return Err(error(self.at, why));
            }
            ("soft", Some(':')) => Part::Soft(self.soft()?),
            ("soft", _) => return Err(error(self.at, "say how many virtual tokens, as in {soft:20}")),
            (_, Some(':')) => {
                let why = format!(
                    "`{name}` takes no argument; only soft does, and filters, as in {{{name}|truncate:80}}"
                );
                return Err(error(self.at, why));
            }
            ("label", _) => Part::Answer(Slot::Label),
            ("mask", _) => Part::Answer(Slot::Mask),
            _ => Part::Field(self.filters(name)?),
        };
        match self.peek() {
            Some('}') => {
                self.at += 1;
                Ok(part)
            }
            Some('|') => Err(error(self.at, "only a field has filters")),
            Some(c) => {
                Err(error(self.at, format!("{c:?} is not expected here; `}}` must end the placeholder")))
            }
            None => Err(error(start, "`{` without `}`; write `{{` for a brace")),
        }
    }

    /// The field `name` with the filters that follow it.
    fn filters(&mut self, name: String) -> Result<Field, TemplateError> {
        let mut field = Field { name, filters: Vec::new(), shorten: None };
        while self.peek() == Some('|') {
            self.at += 1;
            let start = self.at;
            let filter = self.name();
            let argument = (self.peek() == Some(':')).then(|| {
                self.at += 1;
                self.name()
            });
            let step = Step::parse(&filter, argument.as_deref()).map_err(|why| error(start, why))?;
            match step {
                _ if field.shorten.is_some() => {
                    return Err(error(
                        start,
                        "shorten is the last filter: what it leaves goes through no other",
                    ));
                }
                Step::Filter(filter) => field.filters.push(filter),
                Step::Shorten(cut) => field.shorten = Some(cut),
            }
        }
        Ok(field)
    }

    /// What follows `{soft`, beginning at the colon: an index into the distinct virtual tokens.
    fn soft(&mut self) -> Result<usize, TemplateError> {
        self.at += 1;
        let start = self.at;
        if self.peek() == Some('"') {
            let start = SoftStart::Words(self.words()?);
            return Ok(self.add(Soft { name: None, start }));
        }
        let argument = self.name();
        if argument.is_empty() || argument.starts_with(|c: char| c.is_ascii_digit()) {
            let start = SoftStart::Count(count(&argument, start)?);
            return Ok(self.add(Soft { name: None, start }));
        }
        self.named(argument, start)
    }

    /// The virtual tokens called `name`, which was at `at`.
    fn named(&mut self, name: String, at: usize) -> Result<usize, TemplateError> {
        let start = match self.peek() {
            Some(':') => {
                self.at += 1;
                let at = self.at;
                Some(match self.peek() {
                    Some('"') => SoftStart::Words(self.words()?),
                    _ => SoftStart::Count(count(&self.name(), at)?),
                })
            }
            _ => None,
        };
        let known = self.soft.iter().position(|soft| soft.name.as_deref() == Some(&name));
        match (known, start) {
            (Some(i), start) if start.as_ref().is_none_or(|start| *start == self.soft[i].start) => Ok(i),
            (Some(_), _) => Err(error(
                at,
                format!("`{name}` is there already with another length; repeat it as {{soft:{name}}}"),
            )),
            (None, start) => {
                let start = start.unwrap_or(SoftStart::Count(1));
                Ok(self.add(Soft { name: Some(name), start }))
            }
        }
    }

    fn add(&mut self, soft: Soft) -> usize {
        self.soft.push(soft);
        self.soft.len() - 1
    }

    fn words(&mut self) -> Result<String, TemplateError> {
        let start = self.at;
        let words = self.quoted()?;
        match words.trim().is_empty() {
            true => Err(error(start, "the words a soft prompt starts from are empty")),
            false => Ok(words),
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

/// How many virtual tokens `argument`, which was at `at`, says.
fn count(argument: &str, at: usize) -> Result<usize, TemplateError> {
    match argument.parse() {
        Ok(n) if (1..=MAX_SOFT_TOKENS).contains(&n) => Ok(n),
        _ => {
            let expected = format!("a number from 1 to {MAX_SOFT_TOKENS}, a name or quoted words");
            let why = format!(
                "soft:{argument} is not {expected}, as in {{soft:20}}, {{soft:x}} or {{soft:\"words\"}}"
            );
            Err(error(at, why))
        }
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
