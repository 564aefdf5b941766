//! `table`: measurements that were written before.

use std::path::PathBuf;

use prompt_tuning_benches::report::Roofline;
use prompt_tuning_benches::step::report::StepRun;
use prompt_tuning_benches::{chart, markdown, table};

use super::{read, say, write, write_between};

/// Puts runs of `roofline --json` and `step --json` together and shows them: as text, in the README, as a drawing.
#[derive(clap::Args)]
#[command(
    after_help = "Example: cargo run --release -p prompt-tuning-benches -- table --json-file roofline.json \
                        --readme README.md"
)]
pub(crate) struct Args {
    /// What `roofline --json` or `step --json` printed; several may be given.
    #[arg(long, value_name = "FILE", required = true)]
    json_file: Vec<PathBuf>,
    /// Rewrite the parts between the `roofline` and between the `step` markers of this file.
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
    /// Draw the roofline.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Result<(), String> {
    let (mut kernels, mut steps) = (Vec::new(), Vec::new());
    for path in &args.json_file {
        let json = read(path)?;
        match serde_json::from_str::<Roofline>(&json) {
            Ok(run) => kernels.push(run),
            Err(why) => match serde_json::from_str::<StepRun>(&json) {
                Ok(run) => steps.push(run),
                Err(_) => {
                    return Err(format!("{}: neither of `roofline` nor of `step`: {why}", path.display()));
                }
            },
        }
    }
    if !kernels.is_empty() {
        show(&args, &Roofline::merge(kernels)?)?;
    }
    if !steps.is_empty() {
        steps.iter().try_for_each(|run| say(&run.text()))?;
        if let Some(path) = &args.readme {
            write_between(path, "step", &StepRun::markdown(&steps))?;
        }
    }
    Ok(())
}

fn show(args: &Args, run: &Roofline) -> Result<(), String> {
    say(&table::head(&run.machine, &run.ceilings))?;
    let peers = run.measurements.iter().map(|m| &m.peers).max_by_key(|peers| peers.len());
    say(&table::columns(peers.into_iter().flatten().map(|peer| &*peer.name)))?;
    run.measurements.iter().try_for_each(|m| say(&table::row(m)))?;
    if let Some(path) = &args.svg {
        write(path, &chart::svg(run)?)?;
    }
    match &args.readme {
        Some(path) => write_between(path, "roofline", &markdown::roofline(run)),
        None => Ok(()),
    }
}
