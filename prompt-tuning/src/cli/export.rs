//! `export`: a prompt in another format: `.npy` as google-research/prompt-tuning has it, or a PEFT adapter folder.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::Common;
use super::session::Session;
use crate::adapter::{Adapter, AdapterConfig, BaseModel, PeftInit, Provenance};
use crate::error::{Error, Result};
use crate::npy;
use crate::prompt_encoder::Method;
use crate::soft_prompt::Kind;

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    prompt-tuning export --model models/SmolLM2-135M-Instruct --prompt runs/reviews --to reviews.npy\n  \
    prompt-tuning export --model models/t5-base --prompt sst2.npy --to runs/sst2")]
pub(super) struct ExportArgs {
    /// Model that the prompt is for: folder or hub id
    #[arg(long, value_name = "M")]
    model: String,
    /// Prompt: adapter folder or .npy file
    #[arg(long, value_name = "DIR|FILE.npy")]
    prompt: PathBuf,
    /// Where to: a name that ends in .npy, or a folder that becomes a PEFT adapter
    #[arg(long, value_name = "FILE.npy|DIR")]
    to: PathBuf,
    /// Use the prompt even if it was trained on another model
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &ExportArgs) -> Result<ExitCode> {
    args.common.apply()?;
    let mut session = Session::open(&args.model, &args.common)?;
    let adapter = match args.prompt.is_dir() {
        true => session.adapter(&args.prompt, args.force)?,
        false => adapter_of_npy(args, &mut session)?,
    };
    if args.to.exists() {
        return Err(Error::Input(format!("`{}` is there already; choose another --to", args.to.display())));
    }
    let prompt = &adapter.prompt;
    if args.to.extension().is_none_or(|ext| ext != "npy") {
        adapter.write(&args.to)?;
    } else if prompt.kind == Kind::Prefix {
        let why = "a prefix has no .npy form: these hold vectors among the embeddings; export it to a folder";
        return Err(Error::file(&args.prompt, why));
    } else {
        npy::write(&args.to, prompt)?;
    }
    if args.common.json {
        super::print_json(
            &json!({ "to": args.to, "virtual_tokens": prompt.n_tokens, "width": prompt.d_model }),
        )?;
    } else {
        super::print_line(&format!(
            "{}: {} virtual tokens of width {}",
            args.to.display(),
            prompt.n_tokens,
            prompt.d_model
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What there is to say of a prompt of which there are only the vectors.
fn adapter_of_npy(args: &ExportArgs, session: &mut Session) -> Result<Adapter> {
    let prompt = session.prompt(&args.prompt, args.force)?;
    let base = BaseModel::of(session.model.config(), &args.model);
    let config = AdapterConfig::new(prompt.n_tokens, &base, Method::Soft, PeftInit::Random);
    // the rows that PEFT keeps for a decoder and nobody reads
    let unread = vec![0.0; (config.n_rows() - prompt.n_tokens) * prompt.d_model];
    let provenance = Provenance {
        version: env!("CARGO_PKG_VERSION").into(),
        model: args.model.clone(),
        model_fingerprint: session.model.fingerprint(),
        init: args.prompt.display().to_string(),
        ..Provenance::default()
    };
    Ok(Adapter { config, prompt, unread, provenance: Some(provenance) })
}
