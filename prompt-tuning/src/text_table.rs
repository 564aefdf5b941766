//! Tables of text for the terminal.

/// Columns two spaces apart under their heads, those of `to_the_right` to the right and the rest to the left.
pub(crate) fn aligned(heads: &[&str], rows: &[Vec<String>], to_the_right: impl Fn(usize) -> bool) -> String {
    let width = |text: &str| text.chars().count();
    let columns: Vec<(usize, bool)> = heads
        .iter()
        .enumerate()
        .map(|(i, head)| {
            (rows.iter().map(|row| width(&row[i])).fold(width(head), usize::max), to_the_right(i))
        })
        .collect();
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&columns).map(|(cell, &(wide, to_the_right))| {
            if to_the_right { format!("{cell:>wide$}") } else { format!("{cell:<wide$}") }
        });
        out.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    };
    line(&mut heads.iter().copied());
    rows.iter().for_each(|row| line(&mut row.iter().map(String::as_str)));
    out
}

/// Whether a column has nothing but numbers.
pub(crate) fn is_number(rows: &[Vec<String>], column: usize) -> bool {
    rows.iter().all(|row| row[column] == "-" || row[column].parse::<f64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let rows = [vec!["plain".into(), "9.5".into()], vec!["é".into(), "-".into()]];
        assert_eq!(
            aligned(&["template", "sd"], &rows, |i| is_number(&rows, i)),
            "template   sd\nplain     9.5\né           -\n"
        );
    }
}
