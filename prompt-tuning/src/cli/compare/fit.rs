//! Whether the trainings of a plan can be run at all, found out before the first cell.

use std::collections::HashSet;

use clap::Parser;
use model::LanguageModel;

use crate::cli::train::{Method, TrainArgs};
use crate::compare::plan::{How, Planned};
use crate::data::{Dataset, Example};
use crate::error::{Error, Result};

/// Arguments of `train` as a plan has them.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    train: TrainArgs,
}

/// The arguments of a method that trains; `None` for one that asks.
///
/// # Errors
/// `train` has no such arguments.
pub(super) fn arguments(method: &Planned) -> Result<Option<TrainArgs>> {
    let How::Train(words) = &method.how else { return Ok(None) };
    let needed = ["train", "--model", "-", "--train", "-", "--task", "-", "--out", "-", "--steps", "1"];
    let line = Line::try_parse_from(needed.into_iter().chain(words.iter().map(String::as_str)));
    line.map(|line| Some(line.train)).map_err(|e| {
        let text = e.to_string();
        let why = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        Error::Input(format!("method `{}`: {why}", method.name))
    })
}

/// Why a method cannot be run on the model, if it cannot.
pub(super) fn obstacle(method: &Planned, model: &LanguageModel) -> Result<Option<String>> {
    let Some(arguments) = arguments(method)? else { return Ok(None) };
    Ok(arguments.check_model(model).err().map(|e| e.to_string()))
}

/// Tokens of text in a window of `n_positions` behind the longest prompt of the methods that leaves room for any.
pub(super) fn room(methods: &[Planned], n_positions: usize) -> Result<usize> {
    let mut room = n_positions;
    for arguments in methods.iter().map(arguments) {
        if let Some(arguments) = arguments?.filter(|arguments| arguments.method != Method::Full) {
            let behind = n_positions.saturating_sub(arguments.n_virtual_tokens());
            room = if behind > 1 { room.min(behind) } else { room };
        }
    }
    Ok(room)
}

/// Takes away the rows that are among those that methods learn from; says how many.
pub(super) fn without_seen(data: &mut Dataset<Example>, seen: &[&Dataset<Example>]) -> usize {
    let texts: HashSet<_> = seen.iter().flat_map(|data| &data.rows).map(|row| &row.fields).collect();
    let before = data.rows.len();
    data.rows.retain(|row| !texts.contains(&row.fields));
    before - data.rows.len()
}
