//! `score`: log-probabilities of given completions.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::Common;
use super::session::PromptedModel;
use crate::error::Result;
use crate::evaluate;
use crate::soft_prompt::SoftPrompt;

/// Arguments of `score`.
#[derive(Debug, Args)]
#[command(
    after_help = "Rows are {\"prompt\", \"completion\"} or {\"prompt_ids\", \"completion_ids\"}.\n\nExample:\n  \
    prompt-tuning score --model models/SmolLM2-135M-Instruct --data rows.jsonl --json"
)]
pub(super) struct ScoreArgs {
    #[command(flatten)]
    on: PromptedModel,
    /// Prompts and completions
    #[arg(long, value_name = "F")]
    data: PathBuf,
    /// Rows computed at one time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = super::positive)]
    batch: usize,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &ScoreArgs) -> Result<ExitCode> {
    args.common.apply()?;
    let (session, prompt) = args.on.open(&args.common)?;
    let rows = session.pair_rows(&args.data, prompt.as_ref().map_or(0, SoftPrompt::n_soft))?;
    for part in rows.chunks(args.batch.max(1)) {
        let scored = evaluate::token_log_probs(&session.model, prompt.as_ref(), part);
        for (row, token_log_probs) in part.iter().zip(scored) {
            let log_prob: f64 = token_log_probs.iter().map(|&lp| f64::from(lp)).sum();
            if log_prob.is_nan() {
                return Err(evaluate::not_finite(&session.model));
            }
            let token_ids: Vec<u32> = row.scored.iter().map(|p| p.token).collect();
            if args.common.json {
                super::print_json(
                    &json!({ "log_prob": log_prob, "token_log_probs": token_log_probs, "token_ids": token_ids }),
                )?;
            } else {
                super::print_line(&format!("{log_prob:.4}\t{} tokens", token_ids.len()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
