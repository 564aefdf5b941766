//! What a field goes through before it is put into a template.

use std::borrow::Cow;

/// A step from a field's text to what the template shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// `trim`: no white space around it.
    Trim,
    /// `lower`: in lower case.
    Lower,
    /// `upper`: in upper case.
    Upper,
    /// `capitalize`: its first letter in upper case.
    Capitalize,
    /// `oneline`: each run of white space is one space.
    OneLine,
    /// `truncate:N`: its first N characters.
    Truncate(usize),
}

/// What is cut from a text that is too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// Its end.
    #[default]
    Tail,
    /// Its beginning.
    Head,
    /// Its middle.
    Middle,
}

/// What a template may write after the name of a field.
pub(super) enum Step {
    Filter(Filter),
    Shorten(Cut),
}

impl Step {
    pub(super) fn parse(name: &str, argument: Option<&str>) -> Result<Step, String> {
        let filter = match (name, argument) {
            ("trim", None) => Filter::Trim,
            ("lower", None) => Filter::Lower,
            ("upper", None) => Filter::Upper,
            ("capitalize", None) => Filter::Capitalize,
            ("oneline", None) => Filter::OneLine,
            ("truncate", n) => match n.and_then(|n| n.parse().ok()) {
                Some(n) if n > 0 => Filter::Truncate(n),
                _ => return Err("truncate takes a number of characters, as in truncate:80".into()),
            },
            ("shorten", None | Some("tail")) => return Ok(Step::Shorten(Cut::Tail)),
            ("shorten", Some("head")) => return Ok(Step::Shorten(Cut::Head)),
            ("shorten", Some("middle")) => return Ok(Step::Shorten(Cut::Middle)),
            ("shorten", Some(_)) => return Err("shorten takes head, tail or middle".into()),
            ("trim" | "lower" | "upper" | "capitalize" | "oneline", Some(_)) => {
                return Err(format!("{name} takes no argument"));
            }
            _ => {
                return Err(format!(
                    "there is no filter `{name}`; the filters are trim, lower, upper, capitalize, oneline, truncate:N, \
                     shorten, shorten:head, shorten:middle"
                ));
            }
        };
        Ok(Step::Filter(filter))
    }
}

impl Filter {
    /// The text after this filter.
    pub fn apply<'a>(self, text: Cow<'a, str>) -> Cow<'a, str> {
        match self {
            Filter::Trim => keep(text, |text| text.trim()),
            Filter::Lower => text.to_lowercase().into(),
            Filter::Upper => text.to_uppercase().into(),
            Filter::Capitalize => capitalized(&text).into(),
            Filter::OneLine => text.split_whitespace().collect::<Vec<_>>().join(" ").into(),
            Filter::Truncate(n) => keep(text, |text| &text[..nth_char(text, n)]),
        }
    }
}

/// A part of `text` that is borrowed where `text` is.
fn keep(text: Cow<str>, part: impl Fn(&str) -> &str) -> Cow<str> {
    match text {
        Cow::Borrowed(text) => {
            let kept = part(text);
            let start = kept.as_ptr() as usize - text.as_ptr() as usize;
            Cow::Borrowed(&text[start..start + kept.len()])
        }
        Cow::Owned(text) => Cow::Owned(part(&text).to_string()),
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars).collect()
}

/// Byte at which character `n` of `text` begins, or its end.
fn nth_char(text: &str, n: usize) -> usize {
    text.char_indices().nth(n).map_or(text.len(), |(at, _)| at)
}

impl Cut {
    /// About `n` characters of `text`, never more, and no part of a word where whole words can be had.
    pub fn keep(self, text: &str, n: usize) -> Cow<'_, str> {
        let n_chars = text.chars().count();
        if n >= n_chars {
            return text.into();
        }
        match self {
            Cut::Tail => head(text, n).into(),
            Cut::Head => tail(text, n).into(),
            Cut::Middle => {
                let (head, tail) = (head(text, n.div_ceil(2)), tail(text, n / 2));
                let room = head.chars().count() + tail.chars().count() < n;
                format!("{head}{}{tail}", if room { " " } else { "" }).into()
            }
        }
    }
}

/// The first `n` characters, less a word that is cut.
fn head(text: &str, n: usize) -> &str {
    let at = nth_char(text, n);
    let whole = text[..at].trim_end_matches(is_word);
    let cuts = text[at..].starts_with(is_word) && !whole.is_empty();
    if cuts { whole.trim_end() } else { &text[..at] }
}

/// The last `n` characters, less a word that is cut.
fn tail(text: &str, n: usize) -> &str {
    let at = nth_char(text, text.chars().count().saturating_sub(n));
    let whole = text[at..].trim_start_matches(is_word);
    let cuts = text[..at].ends_with(is_word) && !whole.is_empty();
    if cuts { whole } else { &text[at..] }
}

/// Scripts that are written without spaces can be cut anywhere.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() && (c as u32) < 0x2e80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_by_hand() {
        let apply = |filter: Filter, text: &'static str| filter.apply(text.into()).into_owned();
        assert_eq!(apply(Filter::Trim, " \n a b\t"), "a b");
        assert_eq!(apply(Filter::Lower, "ÀB c"), "àb c");
        assert_eq!(apply(Filter::Upper, "straße"), "STRASSE");
        assert_eq!(apply(Filter::Capitalize, "élan vital"), "Élan vital");
        assert_eq!(apply(Filter::Capitalize, ""), "");
        assert_eq!(apply(Filter::OneLine, " a\n\n b  c "), "a b c");
        assert_eq!(apply(Filter::Truncate(2), "影片很棒"), "影片");
        assert_eq!(apply(Filter::Truncate(9), "影片"), "影片");
        assert_eq!(apply(Filter::Truncate(0), "a"), "");
    }

    #[test]
    fn cuts_leave_whole_words() {
        let text = "one two three four";
        let cases = [
            (Cut::Tail, 18, text),
            (Cut::Tail, 9, "one two"),
            (Cut::Tail, 7, "one two"),
            (Cut::Tail, 2, "on"),
            (Cut::Head, 6, " four"),
            (Cut::Head, 4, "four"),
            (Cut::Middle, 9, "one four"),
            (Cut::Middle, 0, ""),
            (Cut::Middle, 3, "onr"),
        ];
        for (cut, n, kept) in cases {
            assert_eq!(cut.keep(text, n), kept, "{cut:?} {n}");
        }
        assert_eq!(Cut::Tail.keep("影片很棒，推荐", 3), "影片很");
        assert_eq!(Cut::Middle.keep("影片很棒，推荐", 4), "影片推荐");
    }
}
