//! Pages: HTML with style and drawings inside, which refers to nothing outside of it and runs no script.
//!
//! [`document`] makes the page, [`svg::Svg`] a drawing in its colours, [`axis`] the places of numbers in it.

pub(crate) mod axis;
pub(crate) mod svg;

use std::fmt::Write;

const STYLE: &str = include_str!("style.css");

/// The page with this title (plain text), lead and sections (HTML).
pub(crate) fn document(title: &str, lead: &str, sections: &[String]) -> String {
    let title = escaped(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{lead}</p>\n{}</body>\n</html>\n",
        sections.concat(),
    )
}

/// The text as it can stand in an element or an attribute. What XML has no place for becomes U+FFFD.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A list of sentences; what stands between backticks becomes code.
pub(crate) fn findings(sentences: &[String]) -> String {
    let items: String = sentences.iter().map(|text| format!("<li>{}</li>\n", with_code(text))).collect();
    format!("<section>\n<h2>Findings</h2>\n<ul>\n{items}</ul>\n</section>\n")
}

/// Escaped, and what stands between backticks as code.
fn with_code(text: &str) -> String {
    let parts: Vec<String> = text.split('`').map(escaped).collect();
    if parts.len().is_multiple_of(2) {
        return parts.join("`");
    }
    let part = |(i, part)| if i % 2 == 0 { part } else { format!("<code>{part}</code>") };
    parts.into_iter().enumerate().map(part).collect()
}

/// A section of drawings.
pub(crate) struct Figure {
    pub(crate) title: &'static str,
    /// How to read it.
    pub(crate) caption: String,
    /// Each with its heading, empty where there is but one.
    pub(crate) panels: Vec<(String, String)>,
    /// Panels that there was no room for.
    pub(crate) left_out: usize,
}

/// Most panels of a figure.
const PANELS: usize = 8;

impl Figure {
    /// `None` without panels.
    pub(crate) fn new(
        title: &'static str,
        caption: String,
        mut panels: Vec<(String, String)>,
    ) -> Option<Figure> {
        let left_out = panels.len().saturating_sub(PANELS);
        panels.truncate(PANELS);
        if let [(heading, _)] = &mut panels[..] {
            heading.clear();
        }
        (!panels.is_empty()).then_some(Figure { title, caption, panels, left_out })
    }

    /// As a section of a page.
    pub(crate) fn html(&self) -> String {
        let mut panels = String::new();
        for (heading, svg) in &self.panels {
            if !heading.is_empty() {
                let _ = writeln!(panels, "<h3>{}</h3>", escaped(heading));
            }
            panels.push_str(svg);
        }
        if self.left_out > 0 {
            let _ = writeln!(panels, "<p class=\"note\">{} more are in the table only.</p>", self.left_out);
        }
        let caption = escaped(&self.caption);
        let title = self.title;
        format!(
            "<section class=\"figure\">\n<h2>{title}</h2>\n<p class=\"note\">{caption}</p>\n{panels}</section>\n"
        )
    }
}

/// The command and what there is to know of it, by name.
pub(crate) fn what_was_run(command: &str, entries: &[(&str, String)]) -> String {
    let entry = |(name, text): &(&str, String)| format!("<dt>{name}</dt><dd>{}</dd>\n", escaped(text));
    let entries: String = entries.iter().map(entry).collect();
    format!(
        "<section>\n<h2>What was run</h2>\n<pre>{}</pre>\n<dl>\n{entries}</dl>\n</section>\n",
        escaped(command)
    )
}

/// A table of texts; columns of `names` are words, the others numbers.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>], names: &[usize]) -> String {
    let line = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cell = |(i, cell): (usize, &str)| {
            let class = if names.contains(&i) { " class=\"name\"" } else { "" };
            format!("<{tag}{class}>{}</{tag}>", escaped(cell))
        };
        format!("<tr>{}</tr>", cells.enumerate().map(cell).collect::<String>())
    };
    let head = line("th", &mut heads.iter().copied());
    let row = |row: &Vec<String>| line("td", &mut row.iter().map(String::as_str)) + "\n";
    let body: String = rows.iter().map(row).collect();
    format!("<div class=\"scroll\"><table>\n<thead>{head}</thead>\n<tbody>\n{body}</tbody>\n</table></div>\n")
}

/// Seeds in their order, each once.
pub(crate) fn seeds(all: impl Iterator<Item = u64>) -> String {
    let distinct: std::collections::BTreeSet<u64> = all.collect();
    distinct.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// A share in percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A whole number with spaces between groups of three digits.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// Seconds as a reader has them.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() || s < 0.0 => "unknown".into(),
        s if s < 60.0 => format!("{s:.1} s"),
        s => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
    }
}
