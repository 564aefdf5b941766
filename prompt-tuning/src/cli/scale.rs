//! `scale`: comparisons of several models together.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{print_json, print_line};
use crate::atomic;
use crate::compare::Comparison;
use crate::compare::scale::Scale;
use crate::error::Result;

/// Arguments of `scale`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    prompt-tuning scale runs/compare-nano runs/compare-smollm2 --out runs/scale.html")]
pub(super) struct ScaleArgs {
    /// Folders that `compare` wrote, of one task and the same rows, each with another model
    #[arg(value_name = "DIR", required = true, num_args = 2..)]
    comparisons: Vec<PathBuf>,
    /// A comparison that tells only what training costs, as of a model with random weights: of any rows; may be given several
    /// times
    #[arg(long, value_name = "DIR")]
    cost_only: Vec<PathBuf>,
    /// Page to write
    #[arg(long, value_name = "F.html")]
    out: Option<PathBuf>,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ScaleArgs) -> Result<ExitCode> {
    let read = |folder: &PathBuf| {
        let path = if folder.is_dir() { folder.join("compare.json") } else { folder.clone() };
        Comparison::read(&path)
    };
    let all = |folders: &[PathBuf]| folders.iter().map(read).collect::<Result<Vec<_>>>();
    let scale = Scale::of(all(&args.comparisons)?, &all(&args.cost_only)?)?;
    if let Some(out) = &args.out {
        atomic::write(out, scale.html().as_bytes())?;
    }
    if args.json {
        print_json(&scale)?;
        return Ok(ExitCode::SUCCESS);
    }
    print_line(scale.table().trim_end())?;
    print_line("")?;
    scale.findings.iter().try_for_each(|sentence| print_line(sentence))?;
    if let Some(out) = &args.out {
        print_line(&format!("report: {}", out.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
