//! `fetch`: a model from the hub into the cache.

use std::process::ExitCode;

use clap::Args;

use crate::error::Result;
use crate::hub;

/// Arguments of `fetch`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  prompt-tuning fetch HuggingFaceTB/SmolLM2-135M-Instruct\n\n\
    HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.")]
pub(super) struct FetchArgs {
    /// Hub id: owner/name
    #[arg(value_name = "OWNER/NAME")]
    model: String,
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &FetchArgs) -> Result<ExitCode> {
    let folder = hub::model_folder(&args.model)?;
    if args.json {
        super::print_json(&serde_json::json!({ "model": args.model, "folder": folder }))?;
    } else {
        super::print_line(&folder.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
