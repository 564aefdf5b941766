//! `inspect`: what soft tokens look like: the vocabulary tokens nearest to each.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::Common;
use super::session::Session;
use crate::error::Result;
use crate::nearest::{Neighbour, nearest};

/// Arguments of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    prompt-tuning inspect --model models/SmolLM2-135M-Instruct --prompt runs/reviews")]
pub(super) struct InspectArgs {
    /// Model: folder or hub id
    #[arg(long, value_name = "M")]
    model: String,
    /// Trained prompt: adapter folder
    #[arg(long, value_name = "DIR")]
    prompt: PathBuf,
    /// Use the prompt even if it was trained on another model
    #[arg(long)]
    force: bool,
    /// Neighbours to show
    #[arg(long, value_name = "K", default_value = "5", value_parser = super::positive)]
    top: usize,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &InspectArgs) -> Result<ExitCode> {
    args.common.apply()?;
    let session = Session::open(&args.model, &args.common)?;
    let Some(prompt) = session.prompt(Some(&args.prompt), args.force)? else { return Ok(ExitCode::SUCCESS) };
    let name = |id: u32| {
        let token = session.tokenizer().ok().and_then(|t| t.decode(&[id], false).ok());
        token.unwrap_or_else(|| format!("#{id}"))
    };
    let neighbours = nearest(&prompt, session.model.embedding(), args.top);
    for (i, found) in neighbours.iter().enumerate() {
        let norm = prompt.row(i).iter().map(|x| x * x).sum::<f32>().sqrt();
        let as_json = |n: &Neighbour| json!({ "id": n.id, "token": name(n.id), "cosine": n.cosine, "distance": n.distance });
        if args.common.json {
            let list: Vec<_> = found.iter().map(as_json).collect();
            super::print_json(&json!({ "virtual_token": i, "norm": norm, "nearest": list }))?;
        } else {
            let list: Vec<_> = found.iter().map(|n| format!("{:?} {:.2}", name(n.id), n.cosine)).collect();
            super::print_line(&format!("{i:3}  norm {norm:6.3}  {}", list.join("  ")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
