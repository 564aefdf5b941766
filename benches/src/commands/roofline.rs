//! `roofline`: every kernel beside the ceilings of the machine.

use std::path::PathBuf;
use std::time::Duration;

use kernels::Isa;
use prompt_tuning_benches::machine::Machine;
use prompt_tuning_benches::measure::{self, Settings};
use prompt_tuning_benches::report::Roofline;
use prompt_tuning_benches::{cases, chart, markdown, peers, table};

use super::{say, write, write_between};

/// Measures the ceilings of this machine, verifies each kernel against its reference, and then times kernel, ceilings
/// and peers in turns. The share is what the slower of arithmetic and memory allows over the time that was needed.
#[derive(clap::Args)]
#[command(
    after_help = "Example: cargo run --release -p prompt-tuning-benches --features peers -- roofline --svg \
                        roofline.svg --kernel \"matmul 820x768 f32\""
)]
pub(crate) struct Args {
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Draw the roofline.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Rewrite the part between the `roofline` markers of this file.
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
    /// Only kernels with each of these words in name or shape, or as dtype.
    #[arg(long, value_name = "WORDS", default_value = "")]
    kernel: String,
    /// Only these instruction sets, as `avx2,portable`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    tier: Vec<String>,
    /// Fewer rounds: noisier numbers in a fifth of the time.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(args: Args) -> Result<(), String> {
    let (rounds, budget) = if args.quick { (2, 0) } else { (5, 400) };
    let settings = Settings { tiers: tiers(&args.tier)?, rounds, budget: Duration::from_millis(budget) };
    let cases = cases::matching(&args.kernel);
    if cases.is_empty() {
        return Err(format!("no kernel has all of `{}` in its name", args.kernel));
    }
    let (machine, ceilings) = (Machine::here(), measure::ceilings(&settings));
    if !args.json {
        say(&table::head(&machine, &ceilings))?;
        say(&table::columns(peers::all().iter().map(|peer| peer.name)))?;
    }
    let mut run = Roofline { machine, ceilings, measurements: Vec::new() };
    for case in &cases {
        let measured = measure::case(case, &settings, &run.ceilings)?;
        for measurement in measured {
            if !args.json {
                say(&table::row(&measurement))?;
            }
            run.measurements.push(measurement);
        }
    }
    run.ceilings.raise(&measure::ceilings(&settings));
    if args.json {
        say(&serde_json::to_string_pretty(&run).map_err(|e| e.to_string())?)?;
    }
    if let Some(path) = &args.svg {
        write(path, &chart::svg(&run)?)?;
    }
    match &args.readme {
        Some(path) => write_between(path, "roofline", &markdown::roofline(&run)),
        None => Ok(()),
    }
}

fn tiers(names: &[String]) -> Result<Vec<Isa>, String> {
    let mut tiers = Isa::available();
    let known = |name: &&String| tiers.iter().any(|isa| isa.name() == **name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let there: Vec<_> = tiers.iter().map(|isa| isa.name()).collect();
        return Err(format!("--tier {unknown}: this CPU has {}", there.join(", ")));
    }
    tiers.retain(|isa| names.is_empty() || names.iter().any(|name| name == isa.name()));
    Ok(tiers)
}
