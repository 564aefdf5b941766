//! `compare`: prompt tuning beside fine-tuning and asking, on one task under one budget.
//!
//! Every cell runs the other commands of this program, each in a process of its own: what a reader could type by hand, and
//! a peak of memory that is the method's own. A cell that is done is kept, so that a long comparison can be continued.

pub(super) mod cell;
pub(super) mod child;
mod fit;
pub(super) mod setup;
pub(super) mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::Args;
use serde_json::json;

use self::cell::Cells;
use self::setup::Setup;
use self::watch::{Bar, Watch};
use super::{Common, INTERRUPTED, print_json, print_line};
use crate::compare::{Comparison, Summary, report};
use crate::error::{Error, Result};
use crate::train::run_folder::Existing;

/// Arguments of `compare`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  \
    prompt-tuning compare --model nano --task data/sentiment/task.toml --train data/sentiment/train.jsonl \\\n    \
    --data data/sentiment/dev.jsonl --sizes 10,32,all --seeds 3 --steps 100 --batch 16 --text data/text/general.txt \\\n    \
    --other data/topics/task.toml=data/topics/dev.jsonl --out runs/compare")]
pub(super) struct CompareArgs {
    /// Model, whose file is only read: folder, hub id, or one that comes with the repository
    #[arg(long, value_name = "M")]
    pub(super) model: String,
    /// Task file: template, verbalizer, and the wordings among which the hard prompt is chosen
    #[arg(long, value_name = "T.toml")]
    pub(super) task: PathBuf,
    /// Labelled data that training rows and demonstrations are drawn from
    #[arg(long, value_name = "F")]
    pub(super) train: PathBuf,
    /// Labelled data that is measured; no method looks at it
    #[arg(long, value_name = "F")]
    pub(super) data: PathBuf,
    /// Methods: a file as in the documentation of compare [default: zero-shot, few-shot, hard prompt, soft prompts, prefix, biases,
    /// all weights, a classifier]
    #[arg(long, value_name = "P.toml")]
    pub(super) plan: Option<PathBuf>,
    /// Only the methods of these names, which may have a *
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub(super) methods: Vec<String>,
    /// Numbers of training rows; `all` are all
    #[arg(long, value_name = "N", num_args = 1.., value_delimiter = ',', default_values = ["10", "32", "100", "1000", "all"])]
    pub(super) sizes: Vec<Size>,
    /// Draws of the rows, and seeds of training, from --seed on
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) seeds: u32,
    /// First of them
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(super) seed: u64,
    /// Budget of every training run: optimizer steps
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) steps: u64,
    /// Examples of a step
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = super::positive)]
    pub(super) batch: usize,
    /// General text, to see what is forgotten: .txt or .jsonl files, or folders of them
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(super) text: Vec<PathBuf>,
    /// Another task to see what is forgotten: task file and labelled data
    #[arg(long, value_name = "T.toml=F")]
    pub(super) other: Vec<Other>,
    /// Measure on so many rows of --data, and of every other task, drawn at random but always the same
    #[arg(long, value_name = "N", value_parser = super::positive)]
    pub(super) max_rows: Option<usize>,
    /// Folder for compare.json, report.html and the cells
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Keep the models that were trained, not only the prompts
    #[arg(long)]
    pub(super) keep: bool,
    /// Go on with the comparison in --out
    #[arg(long, conflicts_with = "overwrite")]
    pub(super) resume: bool,
    /// Replace the comparison in --out
    #[arg(long)]
    pub(super) overwrite: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// How many training rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Rows(usize),
    All,
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Size, String> {
        match text {
            "all" => Ok(Size::All),
            _ => super::positive(text).map(Size::Rows).map_err(|e| format!("{e}, or `all`")),
        }
    }
}

/// A task that is not trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Other {
    pub(super) task: PathBuf,
    pub(super) data: PathBuf,
}

impl std::str::FromStr for Other {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Other, String> {
        let (task, data) =
            text.split_once('=').ok_or("task file and data are needed, as in T.toml=dev.jsonl")?;
        Ok(Other { task: task.into(), data: data.into() })
    }
}

pub(super) fn run(args: &CompareArgs) -> Result<ExitCode> {
    args.common.apply()?;
    super::catch_interrupts();
    let comparison = conduct(args, &mut Bar::new(args.common.json))?;
    let summary = Summary::of(&comparison);
    if args.common.json {
        print_json(
            &json!({ "cells": comparison.cells.len(), "seconds": comparison.seconds, "summary": summary }),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    print_line(summary.table().trim_end())?;
    print_line("")?;
    summary.findings.iter().try_for_each(|sentence| print_line(sentence))?;
    print_line(&format!("report: {}", args.out.join("report.html").display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs all cells that are not done yet, and writes what is known after each.
pub(super) fn conduct(args: &CompareArgs, watch: &mut dyn Watch) -> Result<Comparison> {
    let setup = Setup::read(args)?;
    let cells = Cells::open(&setup, Existing::of(args.resume, args.overwrite))?;
    let planned = setup.cells();
    watch.begin(&setup, planned.len());
    let mut comparison = setup.comparison(cells.before(watch)?);
    for &cell in &planned {
        if INTERRUPTED.load(Ordering::Relaxed) {
            return Err(Error::Interrupted(format!(
                "interrupted after {} cells, which are kept; continue with --resume",
                comparison.cells.len()
            )));
        }
        watch.cell(&setup, cell);
        let kept = cells.kept(cell)?;
        let is_new = kept.is_none();
        let measured = kept.map_or_else(|| cells.measure(cell, watch), Ok)?;
        watch.measured(&measured, comparison.accuracy(&measured));
        comparison.seconds += measured.seconds;
        comparison.cells.push(measured);
        // the summary draws thousands of samples: not for every cell that is only read
        if is_new || comparison.cells.len() == planned.len() {
            comparison.write(&args.out.join("compare.json"))?;
            report::write(&comparison, &Summary::of(&comparison), &args.out.join("report.html"))?;
        }
    }
    watch.finish();
    Ok(comparison)
}
