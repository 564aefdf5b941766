//! `inspect`: what soft tokens look like: the vocabulary tokens nearest to each, and other prompts beside them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::Common;
use super::session::Session;
use crate::error::{Error, Result};
use crate::nearest::{Measure, Neighbour, nearest, similarity};
use crate::soft_prompt::{Kind, SoftPrompt};

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
    /// What "nearest" means
    #[arg(long, value_enum, default_value_t = Measure::Cosine, value_name = "MEASURE", conflicts_with = "with")]
    by: Measure,
    /// Other prompts for this model: how alike are they? (Prompts of like tasks are good starting points for each other.)
    #[arg(long, value_name = "DIR", num_args = 1..)]
    with: Vec<PathBuf>,
    /// Neighbours to show
    #[arg(long, value_name = "K", default_value = "5", value_parser = super::positive, conflicts_with = "with")]
    top: usize,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &InspectArgs) -> Result<ExitCode> {
    args.common.apply()?;
    let mut session = Session::open(&args.model, &args.common)?;
    let prompt = session.prompt(&args.prompt, args.force)?;
    let name = |id: u32| {
        let token = session.tokenizer().ok().and_then(|t| t.decode(&[id], false).ok());
        token.unwrap_or_else(|| format!("#{id}"))
    };
    if !args.with.is_empty() {
        return compare(args, &mut session, prompt);
    }
    if prompt.kind == Kind::Prefix {
        let why = "a prefix is keys and values of every layer: no vocabulary token is near to one; compare it with others by --with";
        return Err(Error::file(&args.prompt, why));
    }
    let neighbours = nearest(&prompt, session.model.embedding(), args.top, args.by);
    for (i, found) in neighbours.iter().enumerate() {
        let norm = prompt.row(i).iter().map(|x| x * x).sum::<f32>().sqrt();
        let as_json = |n: &Neighbour| json!({ "id": n.id, "token": name(n.id), "cosine": n.cosine, "distance": n.distance });
        if args.common.json {
            let list: Vec<_> = found.iter().map(as_json).collect();
            super::print_json(&json!({ "virtual_token": i, "norm": norm, "nearest": list }))?;
        } else {
            let list: Vec<_> =
                found.iter().map(|n| format!("{:?} {:.2}", name(n.id), args.by.of(n))).collect();
            super::print_line(&format!("{i:3}  norm {norm:6.3}  {}", list.join("  ")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Every pair of prompts: cosine of the mean tokens, and mean cosine of the tokens.
fn compare(args: &InspectArgs, session: &mut Session, first: SoftPrompt) -> Result<ExitCode> {
    let mut prompts = vec![(args.prompt.display().to_string(), first)];
    for path in &args.with {
        let prompt = session.prompt(path, args.force)?;
        if prompt.kind != prompts[0].1.kind {
            let why = "of a soft prompt and a prefix it cannot be said how alike they are";
            return Err(Error::file(path, why));
        }
        prompts.push((path.display().to_string(), prompt));
    }
    for (i, (a, one)) in prompts.iter().enumerate() {
        for (b, other) in &prompts[i + 1..] {
            let s = similarity(one, other);
            if args.common.json {
                super::print_json(&json!({ "a": a, "b": b, "means": s.of_means, "tokens": s.of_tokens }))?;
            } else {
                super::print_line(&format!(
                    "means {:6.3}  tokens {:6.3}  {a}  {b}",
                    s.of_means, s.of_tokens
                ))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
