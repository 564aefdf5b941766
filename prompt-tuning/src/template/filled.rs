//! A template with an example in it, and how it gives way when it is too long.

use std::borrow::Cow;

use super::{Field, Part, Slot, Template};

/// A piece of a rendered example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// One string to tokenize.
    Text(String),
    /// The soft part of this index into [`Template::soft`].
    Soft(usize),
    /// Where the answer goes.
    Answer(Slot),
}

/// A template whose fields have values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled<'a> {
    template: &'a Template,
    /// One per field part, in order.
    values: Vec<Cow<'a, str>>,
}

impl<'a> Filled<'a> {
    pub(super) fn new(
        template: &'a Template,
        field: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Filled<'a>, &'a str> {
        let value = |part: &'a Field| -> Result<Cow<'a, str>, &'a str> {
            let text = field(&part.name).ok_or(part.name.as_str())?;
            Ok(part.filters.iter().fold(Cow::Borrowed(text), |text, filter| filter.apply(text)))
        };
        let values = fields(template).map(value).collect::<Result<_, _>>()?;
        Ok(Filled { template, values })
    }

    /// The pieces in order; text between other pieces is one string.
    pub fn segments(&self) -> Vec<Segment> {
        let mut values = self.values.iter();
        let mut segments = Vec::new();
        for part in self.template.parts() {
            let segment = match part {
                Part::Text(text) => Segment::Text(text.clone()),
                Part::Field(_) => Segment::Text(values.next().map_or_else(String::new, |v| v.to_string())),
                Part::Soft(i) => Segment::Soft(*i),
                Part::Answer(slot) => Segment::Answer(*slot),
            };
            append(&mut segments, segment);
        }
        segments
    }

    /// Whether a field may give way.
    pub fn can_shorten(&self) -> bool {
        fields(self.template).any(|field| field.shorten.is_some())
    }

    /// As much of the fields that may give way as `fits`: the longest are cut to the length of the next, and so on. `None`
    /// when it does not fit without them either.
    ///
    /// # Errors
    /// That of `fits`.
    pub fn shortened<E>(
        &self,
        fits: impl Fn(&Filled<'a>) -> Result<bool, E>,
    ) -> Result<Option<Filled<'a>>, E> {
        let lengths: Vec<usize> = fields(self.template)
            .zip(&self.values)
            .filter(|(field, _)| field.shorten.is_some())
            .map(|(_, value)| value.chars().count())
            .collect();
        // the longest length at which it fits: with less of every field it fits as well
        let (mut fitting, mut low, mut high) = (None, 0, lengths.into_iter().max().unwrap_or(0));
        while low <= high {
            let middle = low + (high - low) / 2;
            let shorter = self.at_most(middle);
            if fits(&shorter)? {
                fitting = Some(shorter);
                low = middle + 1;
            } else if middle == 0 {
                break;
            } else {
                high = middle - 1;
            }
        }
        Ok(fitting)
    }

    /// With no more than `n` characters of every field that may give way.
    fn at_most(&self, n: usize) -> Filled<'a> {
        let cut = |(field, value): (&Field, &Cow<'a, str>)| match field.shorten {
            Some(cut) => Cow::Owned(cut.keep(value, n).into_owned()),
            None => value.clone(),
        };
        let values = fields(self.template).zip(&self.values).map(cut).collect();
        Filled { template: self.template, values }
    }
}

/// Adds a piece; text next to text is one string.
pub(crate) fn append(segments: &mut Vec<Segment>, segment: Segment) {
    match (segments.last_mut(), segment) {
        (_, Segment::Text(text)) if text.is_empty() => {}
        (Some(Segment::Text(last)), Segment::Text(text)) => last.push_str(&text),
        (_, segment) => segments.push(segment),
    }
}

fn fields(template: &Template) -> impl Iterator<Item = &Field> {
    template.parts().iter().filter_map(|part| match part {
        Part::Field(field) => Some(field),
        _ => None,
    })
}
