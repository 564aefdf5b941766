//! `generate`: tokens per second of greedy generation.

use std::path::PathBuf;

use prompt_tuning_benches::generation::{self, GenerationRun, Plan};

use super::{read, say, write_between};

/// Generates from random tokens, greedily, and shows new tokens per second beside what reading all weights once a token
/// allows at the bandwidth measured in between.
#[derive(clap::Args)]
#[command(
    after_help = "Example: cargo run --release -p prompt-tuning-benches -- generate --model models/llama-1b --batch 16"
)]
pub(crate) struct Args {
    /// A model folder.
    #[arg(long, value_name = "DIR", required_unless_present = "from", conflicts_with = "from")]
    model: Option<PathBuf>,
    /// Measures nothing, but shows what earlier runs printed with --json, one a line.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Rows that are continued at once.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Virtual tokens in front of each row.
    #[arg(long, default_value_t = 0)]
    prompt: usize,
    /// Tokens of text of each row.
    #[arg(long, default_value_t = 16)]
    text: usize,
    /// New tokens of each row.
    #[arg(long, default_value_t = 64)]
    new: usize,
    /// How often.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Print one JSON object on a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Rewrite the part between the `generate` markers of this file.
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Result<(), String> {
    let runs = match (&args.model, &args.from) {
        (Some(model), _) => vec![generation::run(model, plan(&args)?)?],
        (None, from) => earlier(&read(from.as_ref().expect("clap asks for one of both"))?)?,
    };
    if args.json {
        let line = |run: &GenerationRun| serde_json::to_string(run).map_err(|e| e.to_string());
        runs.iter().try_for_each(|run| say(&line(run)?))?;
    } else {
        say(&GenerationRun::markdown(&runs))?;
    }
    args.readme.iter().try_for_each(|path| write_between(path, "generate", &GenerationRun::markdown(&runs)))
}

fn plan(args: &Args) -> Result<Plan, String> {
    let &Args { batch, prompt, text, new, repeats, .. } = args;
    if batch == 0 || text == 0 || repeats == 0 || new < 2 {
        return Err("--batch, --text and --repeats must be 1 or more, and --new 2 or more".into());
    }
    Ok(Plan { batch, prompt, text, new, repeats })
}

fn earlier(text: &str) -> Result<Vec<GenerationRun>, String> {
    text.lines()
        .map(|line| serde_json::from_str(line).map_err(|e| format!("not a generation: {e}")))
        .collect()
}
