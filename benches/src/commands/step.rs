//! `step`: whole training steps, and `shape`: the checkpoints to take them on.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use prompt_tuning_benches::step::{self, Plan, report::StepRun, shape};

use tensor::Device;

use super::{say, write_between};

/// Trains a prompt for some steps through the library, counts the arithmetic that the steps need, and shows examples
/// per second, the share of the peak measured in the same run, and the memory.
#[derive(clap::Args)]
#[command(
    after_help = "Example: cargo run --release -p prompt-tuning-benches -- step --shape gpt2-small --steps 10"
)]
pub(crate) struct Args {
    /// A model folder with rows.jsonl.
    #[arg(long, value_name = "DIR", required_unless_present = "shape", conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// Makes such a checkpoint in a temporary folder.
    #[arg(long)]
    shape: Option<Name>,
    /// Rows of token ids, instead of rows.jsonl in the model folder.
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// Virtual tokens.
    #[arg(long, default_value_t = 20)]
    prompt: usize,
    /// Examples of a step.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Steps to measure, after one that is not.
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Rewrite the part between the `step` markers of this file.
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
}

/// A checkpoint like that of scripts/make_gpt2_shape.py, or larger.
#[derive(clap::Args)]
#[command(
    after_help = "Example: cargo run --release -p prompt-tuning-benches -- shape llama-1b-bf16 models/llama-1b"
)]
pub(crate) struct ShapeArgs {
    /// Which.
    shape: Name,
    /// Where to; it is made where it is not there.
    folder: PathBuf,
    /// Rows of token ids.
    #[arg(long, default_value_t = 640)]
    rows: usize,
    /// Seed of weights and rows.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// 12 layers, width 768, f32: 498 MB.
    Gpt2Small,
    /// 12 layers, width 768, masked, f32: 438 MB.
    BertBase,
    /// 6 + 6 layers, width 512, f32: 242 MB.
    T5Small,
    /// 16 layers, width 2048, bf16: 2.5 GB.
    #[value(name = "llama-1b-bf16")]
    Llama1bBf16,
}

pub(crate) fn make_shape(args: ShapeArgs) -> Result<(), String> {
    let shape = match args.shape {
        Name::Gpt2Small => shape::GPT2_SMALL,
        Name::BertBase => shape::BERT_BASE,
        Name::T5Small => shape::T5_SMALL,
        Name::Llama1bBf16 => shape::LLAMA_1B_BF16,
    };
    std::fs::create_dir_all(&args.folder).map_err(|e| format!("{}: {e}", args.folder.display()))?;
    shape::write(&shape, &args.folder, args.rows, args.seed)
}

pub(crate) fn run(args: Args) -> Result<(), String> {
    let temporary = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let folder = match (&args.model, args.shape) {
        (Some(folder), _) => folder.clone(),
        (None, shape) => make_in_child(shape.expect("clap asks for one of both"), temporary.path())?,
    };
    let rows = args.rows.clone().unwrap_or_else(|| folder.join("rows.jsonl"));
    let Args { prompt, batch, steps, .. } = args;
    if prompt == 0 || batch == 0 || steps == 0 {
        return Err("--prompt, --batch and --steps must be 1 or more".into());
    }
    let run = step::run(&folder, &rows, Plan { prompt, batch, steps }, Device::Cpu)?;
    match args.json {
        true => say(&serde_json::to_string_pretty(&run).map_err(|e| e.to_string())?)?,
        false => say(&run.text())?,
    }
    match &args.readme {
        Some(path) => write_between(path, "step", &StepRun::markdown(&[run])),
        None => Ok(()),
    }
}

/// In a process of its own, so that its memory does not count as that of the steps.
fn make_in_child(shape: Name, folder: &Path) -> Result<PathBuf, String> {
    let value = shape.to_possible_value().expect("no shape is hidden");
    let folder = folder.join(value.get_name());
    let failed = |why: String| format!("the checkpoint {} could not be made: {why}", value.get_name());
    let program = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
    let made = Command::new(program).arg("shape").arg(value.get_name()).arg(&folder).status();
    match made.map_err(|e| failed(e.to_string()))?.success() {
        true => Ok(folder),
        false => Err(failed("see above".into())),
    }
}
