//! `perplexity`: how well a model predicts plain text, with or without a prompt in front.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use model::{Family, Row};
use serde_json::json;

use super::Common;
use super::progress::Progress;
use super::session::{PromptedModel, Session};
use crate::error::{Error, Result};
use crate::evaluate::plain::Layout;
use crate::evaluate::{self, texts};
use crate::pretrain::blocks::Vocabulary;
use crate::pretrain::corpus;
use crate::soft_prompt::SoftPrompt;

/// Longest stretch of text that is read at one time, where nobody says.
pub(super) const DEFAULT_CONTEXT: usize = 512;

/// Arguments of `perplexity`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    prompt-tuning perplexity --model runs/full --text data/text/general.txt")]
pub(super) struct PerplexityArgs {
    #[command(flatten)]
    on: PromptedModel,
    /// Text: .txt files (documents between blank lines), .jsonl files with a field \"text\", or folders of them
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    text: Vec<PathBuf>,
    /// Tokens of text that are read at one time [default: 512, or as many as the model can]
    #[arg(long, value_name = "N", value_parser = super::positive)]
    context: Option<usize>,
    /// Stretches of text computed at one time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = super::positive)]
    batch: usize,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &PerplexityArgs) -> Result<ExitCode> {
    args.common.apply()?;
    let (session, prompt) = args.on.open(&args.common)?;
    let rows = rows(args, &session, prompt.as_ref())?;
    let mut progress = Progress::new("perplexity", rows.len() as u64, args.common.json);
    let examinee = session.examinee(prompt.as_ref(), args.batch);
    let (mut sum, mut tokens) = (0.0, 0);
    for (i, part) in rows.chunks(args.batch).enumerate() {
        let scored: usize = part.iter().map(|row| row.scored.len()).sum();
        sum += texts::mean_loss(part, examinee) * scored as f64;
        tokens += scored;
        progress.at((i * args.batch + part.len()) as u64, "");
    }
    progress.finish();
    let loss = sum / tokens as f64;
    if loss.is_nan() {
        return Err(evaluate::not_finite(&session.model));
    }
    if args.common.json {
        super::print_json(&json!({ "perplexity": loss.exp(), "loss": loss, "tokens": tokens }))?;
    } else {
        super::print_line(&format!("perplexity {:.2}  (loss {loss:.4} over {tokens} tokens)", loss.exp()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(args: &PerplexityArgs, session: &Session, prompt: Option<&SoftPrompt>) -> Result<Vec<Row>> {
    let family = session.model.family();
    if family == Family::Seq2Seq {
        let why = "an encoder-decoder does not continue texts; perplexity is for causal and masked models";
        return Err(Error::Input(why.into()));
    }
    let documents = corpus::read(&args.text)?;
    let n_soft = prompt.map_or(0, SoftPrompt::n_soft);
    let room = session.reader().n_positions.saturating_sub(n_soft);
    if args.context.is_some_and(|context| context > room) {
        return Err(Error::Input(format!("--context: the model has room for {room} tokens of text")));
    }
    let tokenizer = session.tokenizer()?;
    let vocabulary = (family == Family::Masked).then(|| Vocabulary::open(&session.folder)).transpose()?;
    let layout = Layout {
        family,
        context: args.context.unwrap_or(room.min(DEFAULT_CONTEXT)),
        n_soft,
        end: texts::end_tokens(session.model.config(), Some(tokenizer)).first().copied().unwrap_or(0),
        vocabulary,
        tokenizer,
    };
    layout.rows(&documents)
}
