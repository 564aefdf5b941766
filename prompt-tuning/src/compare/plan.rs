//! What is compared: methods by name, and the cells they make with sizes and seeds.

use std::ops::Range;
use std::path::Path;

use serde::Deserialize;

use super::{Kind, Method};
use crate::error::{Error, Result};

const DEFAULT: &str = include_str!("default.toml");

/// How one method is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Asked with so many demonstrations.
    Shots(u8),
    /// Asked with the wording that is best on the training rows.
    Wordings,
    /// Trained, with these arguments of `train`.
    Train(Vec<String>),
}

/// A method of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// As in tables.
    pub name: String,
    /// How it is run.
    pub how: How,
}

/// One run of one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedCell {
    /// Index into the methods.
    pub method: usize,
    /// Labelled rows it may see.
    pub n_train: usize,
    /// Of their choice and of training.
    pub seed: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    method: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    shots: Option<u8>,
    wordings: Option<bool>,
    train: Option<Words>,
}

/// Arguments as a line, or as a list where one of them has a space in it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    Line(String),
    List(Vec<String>),
}

/// Options of `train` that are the plan's own business: every method gets the same, or a cell's own.
const RESERVED: [&str; 12] = [
    "--model",
    "--task",
    "--train",
    "--out",
    "--steps",
    "--epochs",
    "--batch",
    "--seed",
    "--json",
    "--resume",
    "--overwrite",
    "--threads",
];

/// The methods of a plan file, or those that are compared where there is none.
///
/// # Errors
/// [`Error::Read`]; [`Error::File`] for what is no plan.
pub fn methods(path: Option<&Path>) -> Result<Vec<Planned>> {
    let (text, path) = match path {
        Some(path) => (std::fs::read_to_string(path).map_err(|e| Error::read(path, e))?, path),
        None => (DEFAULT.to_string(), Path::new("default.toml")),
    };
    parse(&text).map_err(|why| Error::file(path, why))
}

/// The methods of a plan.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(text: &str) -> std::result::Result<Vec<Planned>, String> {
    let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
    let methods: Vec<Planned> =
        file.method.into_iter().map(planned).collect::<std::result::Result<_, _>>()?;
    if methods.is_empty() {
        return Err("it has no [[method]]".into());
    }
    for (i, method) in methods.iter().enumerate() {
        if methods[..i].iter().any(|other| other.name == method.name) {
            return Err(format!("two methods are called `{}`", method.name));
        }
    }
    Ok(methods)
}

fn planned(entry: Entry) -> std::result::Result<Planned, String> {
    let Entry { name, shots, wordings, train } = entry;
    let how = match (shots, wordings, train) {
        (Some(shots), None, None) => How::Shots(shots),
        (None, Some(true), None) => How::Wordings,
        (None, None, Some(Words::Line(line))) => {
            let unfinished = |_| format!("method `{name}`: a quote that is opened in train is never closed");
            How::Train(shell_words::split(&line).map_err(unfinished)?)
        }
        (None, None, Some(Words::List(words))) => How::Train(words),
        _ => {
            return Err(format!(
                "method `{name}` needs exactly one of shots = K, wordings = true, train = \"…\""
            ));
        }
    };
    let option = |word: &str| RESERVED.contains(&word.split('=').next().unwrap_or(word));
    if let How::Train(words) = &how
        && let Some(word) = words.iter().find(|word| option(word))
    {
        return Err(format!("method `{name}`: {word} is the same for all methods; give it to compare"));
    }
    Ok(Planned { name, how })
}

impl Planned {
    /// What it changes.
    pub fn kind(&self) -> Kind {
        let How::Train(words) = &self.how else { return Kind::Asked };
        let is_full = words.windows(2).any(|pair| pair[0] == "--method" && pair[1] == "full")
            || words.iter().any(|word| word == "--method=full");
        if is_full { Kind::Weights } else { Kind::Prompt }
    }

    /// For the report.
    pub fn described(&self) -> Method {
        let arguments = match &self.how {
            How::Shots(0) => "asked as it is".into(),
            How::Shots(k) => format!("--shots {k}"),
            How::Wordings => "the wording of the task that is best on the training rows".into(),
            How::Train(words) => format!("train {}", shell_words::join(words)),
        };
        Method { name: self.name.clone(), kind: self.kind(), arguments }
    }
}

/// The cells: of every seed first those that cost little. What is asked without examples is one cell, and demonstrations
/// are all the labelled rows that a method with demonstrations needs.
pub fn cells(methods: &[Planned], sizes: &[usize], seeds: Range<u64>) -> Vec<PlannedCell> {
    let mut cells = Vec::new();
    for seed in seeds.clone() {
        for (method, planned) in methods.iter().enumerate() {
            let cell = |n_train| PlannedCell { method, n_train, seed };
            match planned.how {
                How::Shots(0) if seed == seeds.start => cells.push(cell(0)),
                How::Shots(0) => {}
                How::Shots(k) => cells.push(cell(k.into())),
                How::Wordings | How::Train(_) => cells.extend(sizes.iter().map(|&n| cell(n))),
            }
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_plan() {
        let methods = methods(None).unwrap();
        let kinds: Vec<Kind> = methods.iter().map(Planned::kind).collect();
        assert!([Kind::Asked, Kind::Prompt, Kind::Weights].iter().all(|kind| kinds.contains(kind)));
        assert_eq!((methods[0].name.as_str(), &methods[0].how), ("zero-shot", &How::Shots(0)));
    }

    #[test]
    fn cells_of_sizes_and_seeds() {
        let text = "[[method]]\nname = 'a'\nshots = 0\n[[method]]\nname = 'b'\nshots = 4\n\
                    [[method]]\nname = 'c'\ntrain = '--method full'\n";
        let methods = parse(text).unwrap();
        let cells = cells(&methods, &[10, 32], 5..7);
        let of = |method| cells.iter().filter(|c| c.method == method).map(|c| (c.n_train, c.seed)).collect();
        let found: [Vec<(usize, u64)>; 3] = [of(0), of(1), of(2)];
        assert_eq!(found, [vec![(0, 5)], vec![(4, 5), (4, 6)], vec![(10, 5), (32, 5), (10, 6), (32, 6)]]);
    }

    #[test]
    fn arguments_with_spaces_are_quoted_as_in_a_shell() {
        let line = r#"--init text:"Good or bad?" --lr 0.005"#;
        let text = format!("[[method]]\nname = 'a'\ntrain = '{line}'\n");
        let methods = parse(&text).unwrap();
        let words = ["--init", "text:Good or bad?", "--lr", "0.005"];
        assert_eq!(methods[0].how, How::Train(words.map(String::from).to_vec()));
        let shown = methods[0].described().arguments;
        assert_eq!(shell_words::split(&shown).unwrap()[1..], words);
    }

    #[test]
    fn plans_that_cannot_be() {
        let why = |text: &str| parse(text).unwrap_err();
        assert!(why("method = []").contains("no [[method]]"));
        assert!(why("[[method]]\nname = 'a'").contains("exactly one of"));
        assert!(why("[[method]]\nname = 'a'\nshots = 1\ntrain = ''").contains("exactly one of"));
        assert!(why("[[method]]\nname = 'a'\ntrain = '--steps=3'").contains("the same for all"));
        assert!(why("[[method]]\nname = 'a'\nshot = 1").contains("shot"));
        assert!(why("[[method]]\nname = 'a'\ntrain = '--init \"text:x'").contains("never closed"));
        let twice = "[[method]]\nname = 'a'\nshots = 1\n[[method]]\nname = 'a'\nshots = 2\n";
        assert!(why(twice).contains("two methods"));
    }
}
