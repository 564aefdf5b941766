//! `fill-mask`: what stands behind the masks of a text.

use std::process::ExitCode;

use clap::Args;
use model::Family;
use serde_json::json;

use super::Common;
use super::session::{PromptedModel, Session};
use crate::error::{Error, Result};
use crate::fill_mask::{Choice, fill};
use crate::soft_prompt::SoftPrompt;

/// Arguments of `fill-mask`.
#[derive(Debug, Args)]
#[command(
    after_help = "Of several masks, each gets its likeliest tokens, given the text with all masks. The filling of all of \
    them together is found step by step: the mask whose best token is the likeliest gets it, then the others are asked \
    again.\n\nExample:\n  \
    prompt-tuning fill-mask --model nano-mlm --text \"The film was a waste of time. Verdict: [MASK]\"\n  \
    prompt-tuning fill-mask --model bert-base-chinese --text \"巴黎是法国的[MASK][MASK]。\" --top 5"
)]
pub(super) struct FillMaskArgs {
    #[command(flatten)]
    on: PromptedModel,
    /// Text with the mask token of the model, for BERT `[MASK]`; may be given several times
    #[arg(long, value_name = "TEXT", required = true)]
    text: Vec<String>,
    /// Likeliest tokens to show for each mask
    #[arg(long, value_name = "K", default_value = "5", value_parser = super::positive)]
    top: usize,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &FillMaskArgs) -> Result<ExitCode> {
    args.common.apply()?;
    let (session, prompt) = args.on.open(&args.common)?;
    if session.model.family() != Family::Masked {
        let why = "is not a masked language model; `generate` continues texts with it, `score` compares completions";
        return Err(Error::Input(format!("`{}` {why}", args.on.model)));
    }
    for text in &args.text {
        fill_one(args, &session, prompt.as_ref(), text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn fill_one(args: &FillMaskArgs, session: &Session, prompt: Option<&SoftPrompt>, text: &str) -> Result<()> {
    let tokenizer = session.tokenizer()?;
    let no_mask = || Error::Input(format!("the tokenizer of `{}` has no mask token", args.on.model));
    let mask = tokenizer.mask().ok_or_else(no_mask)?;
    // as it reads in a text; one of the vocabulary that is no text alone, as part of a character, by its name
    let name = |id: u32| {
        let read = tokenizer.decode(&[id], false).ok().filter(|text| is_whole(text));
        read.or_else(|| tokenizer.token(id)).unwrap_or_else(|| format!("#{id}"))
    };
    let ids = tokenizer.encode(text, true)?;
    if !ids.contains(&mask) {
        return Err(Error::Input(format!("the text {text:?} has no {} to fill", name(mask))));
    }
    let filled = fill(&session.model, prompt, &ids, mask, args.top)?;
    let together = |ids: &[u32]| tokenizer.decode(ids, false).unwrap_or_default();
    let written = write_in(text, &name(mask), &filled.joint, |ids| {
        match ids.iter().all(|&id| is_whole(&together(&[id]))) {
            true => ids.iter().map(|&id| name(id).trim_start_matches("##").to_string()).collect(),
            false => together(ids),
        }
    });
    if args.common.json {
        let choice =
            |c: &Choice| json!({ "id": c.token, "token": name(c.token), "probability": c.probability });
        let masks: Vec<Vec<_>> = filled.top.iter().map(|top| top.iter().map(choice).collect()).collect();
        return super::print_json(&json!({
            "text": text,
            "masks": masks,
            "filled": { "text": written, "token_ids": filled.joint, "log_prob": filled.log_prob },
        }));
    }
    for (i, top) in filled.top.iter().enumerate() {
        let list: Vec<_> =
            top.iter().map(|c| format!("{} {:.4}", name(c.token).trim(), c.probability)).collect();
        super::print_line(&format!("mask {}  {}", i + 1, list.join("  ")))?;
    }
    super::print_line(&format!("filled  {written}  (log p {:.4})", filled.log_prob))
}

/// Whether tokens make whole characters, of which something is seen.
fn is_whole(text: &str) -> bool {
    !text.trim().is_empty() && !text.contains(char::REPLACEMENT_CHARACTER)
}

/// The text with the joint filling in place of its masks: those side by side are read together, and a token that brings its own space
/// does not double one.
fn write_in(text: &str, mask: &str, joint: &[u32], read: impl Fn(&[u32]) -> String) -> String {
    let mut parts = text.split(mask);
    let mut written = parts.next().unwrap_or_default().to_string();
    let (parts, mut from) = (parts.collect::<Vec<_>>(), 0);
    for (i, part) in parts.iter().enumerate().take(joint.len()) {
        if part.is_empty() && i + 1 < joint.len() {
            continue;
        }
        let filling = read(&joint[from..=i]);
        from = i + 1;
        match written.ends_with(char::is_whitespace) || written.is_empty() {
            true => written.push_str(filling.trim_start()),
            false => written.push_str(&filling),
        }
        written.push_str(part);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::write_in;

    #[test]
    fn fillings_are_read_as_text() {
        let read = |ids: &[u32]| ids.iter().map(|&id| ["a", " b", "c"][id as usize]).collect::<String>();
        assert_eq!(write_in("x [MASK].", "[MASK]", &[1], read), "x b.");
        assert_eq!(write_in("x[MASK].", "[MASK]", &[1], read), "x b.");
        assert_eq!(write_in("[MASK][MASK] y [MASK]", "[MASK]", &[1, 2, 0], read), "bc y a");
        assert_eq!(write_in("[MASK]", "[MASK]", &[0], read), "a");
        let pieces = std::cell::Cell::new(0);
        let count = |ids: &[u32]| {
            pieces.set(pieces.get().max(ids.len()));
            String::new()
        };
        write_in("[MASK][MASK]y[MASK]", "[MASK]", &[1, 2, 0], count);
        assert_eq!(pieces.get(), 2, "those side by side, together");
    }
}
