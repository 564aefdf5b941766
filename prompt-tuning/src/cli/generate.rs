//! `generate`: continue a text, or have an encoder-decoder answer it, with or without a soft prompt in front.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use model::generate::{Hooks, Options, generate};
use model::{Family, Generated, Sampling, Source};
use serde_json::json;

use super::Common;
use super::session::{PromptedModel, Session};
use crate::error::{Error, Result};
use crate::soft_prompt::SoftPrompt;

/// Arguments of `generate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    prompt-tuning generate --model models/SmolLM2-135M-Instruct --text \"The capital of France is\" --max-new-tokens 20")]
pub(super) struct GenerateArgs {
    #[command(flatten)]
    on: PromptedModel,
    /// Text to continue; may be given several times
    #[arg(long, value_name = "TEXT", required_unless_present = "ids", conflicts_with = "ids")]
    text: Vec<String>,
    /// Token ids to continue, used as they are: 1,2,3; may be given several times
    #[arg(long, value_name = "IDS")]
    ids: Vec<String>,
    /// Most new tokens
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,
    /// Divides the logits; 0 always takes the likeliest token
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    temperature: f32,
    /// Choose among the K likeliest tokens
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Choose among the likeliest tokens that reach this probability together
    #[arg(long, value_name = "X")]
    top_p: Option<f32>,
    /// Beam search: follow the N best continuations at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::positive)]
    beams: usize,
    /// With --beams, above 0 prefers long texts, below 0 short ones
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    length_penalty: f32,
    /// Seed of the choice
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Stop before this string; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Do not stop at the model's end-of-text tokens
    #[arg(long)]
    ignore_eos: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &GenerateArgs) -> Result<ExitCode> {
    args.common.apply()?;
    let (session, prompt) = args.on.open(&args.common)?;
    let soft = (0..prompt.as_ref().map_or(0, |p| p.n_soft() as u32)).map(Source::Soft);
    let texts = token_ids(args, &session)?;
    let rows: Vec<Vec<Source>> = texts
        .iter()
        .map(|ids| soft.clone().chain(ids.iter().map(|&id| Source::Text(id))).collect())
        .collect();
    if let Some(i) = rows.iter().position(Vec::is_empty) {
        return Err(Error::Input(format!("text {} is empty: there is nothing to continue", i + 1)));
    }
    if args.stop.iter().any(String::is_empty) {
        return Err(Error::Input("--stop needs a string that is not empty".into()));
    }
    let eos = crate::evaluate::texts::end_tokens(session.model.config(), session.tokenizer().ok());
    let options = Options {
        max_new_tokens: args.max_new_tokens,
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            seed: args.seed,
        },
        eos: if args.ignore_eos { Vec::new() } else { eos },
        stop: args.stop.clone(),
        beams: args.beams,
        length_penalty: args.length_penalty,
        use_cache: true,
    };
    let tokenizer = session.tokenizer().ok();
    let mut shown = Stream { session: &session, on: streams(args), ids: Vec::new(), printed: 0 };
    // an answer of its own does not go on from the text
    let continues = session.model.family() != Family::Seq2Seq;
    if shown.on && continues {
        shown.print(&args.text[0]);
    }
    let mut on_token = |_: usize, id: u32| shown.token(id);
    let hooks = Hooks { tokenizer, on_token: Some(&mut on_token), ..Hooks::default() };
    let prompt = prompt.as_ref().map(SoftPrompt::constant);
    let generated = generate(&session.model, &rows, prompt.as_ref(), &options, hooks)?;
    for (i, g) in generated.iter().enumerate() {
        print(args, (i, &texts[i]), g, (shown.on, continues))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One text on a terminal is shown as it comes; stop strings and the best beam are only known afterwards.
fn streams(args: &GenerateArgs) -> bool {
    !args.common.json
        && args.text.len() == 1
        && args.stop.is_empty()
        && args.beams == 1
        && std::io::stdout().is_terminal()
}

/// Text shown as its tokens come.
struct Stream<'a> {
    session: &'a Session,
    on: bool,
    ids: Vec<u32>,
    printed: usize,
}

impl Stream<'_> {
    fn token(&mut self, id: u32) {
        if !self.on {
            return;
        }
        self.ids.push(id);
        let family = self.session.model.family();
        let text = self.session.tokenizer().ok().and_then(|t| t.decode_generated(family, &self.ids).ok());
        // a character may need several tokens: wait until it is whole
        if let Some(text) = text.filter(|text| !text.ends_with('\u{fffd}')) {
            self.print(text.get(self.printed..).unwrap_or(""));
            self.printed = text.len();
        }
    }

    fn print(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // a closed terminal is noticed by the final print
        write!(out, "{text}").and_then(|()| out.flush()).ok();
    }
}

fn token_ids(args: &GenerateArgs, session: &Session) -> Result<Vec<Vec<u32>>> {
    if args.ids.is_empty() {
        let tokenizer = session.tokenizer()?;
        return args.text.iter().map(|text| Ok(tokenizer.encode(text, true)?)).collect();
    }
    let id = |text: &str| {
        text.trim()
            .parse::<u32>()
            .map_err(|_| Error::Input(format!("--ids: `{text}` is not a token id; write 1,2,3")))
    };
    args.ids.iter().map(|list| list.split(',').map(id).collect()).collect()
}

fn print(
    args: &GenerateArgs,
    (i, ids): (usize, &[u32]),
    generated: &Generated,
    (streamed, continues): (bool, bool),
) -> Result<()> {
    if args.common.json {
        return super::print_json(&json!({
            "prompt": args.text.get(i),
            "prompt_ids": ids,
            "text": generated.text,
            "token_ids": generated.tokens,
            "finish_reason": generated.reason.name(),
        }));
    }
    let text = match (&generated.text, args.text.get(i)) {
        _ if streamed => String::new(),
        (Some(new), Some(text)) if continues => format!("{text}{new}"),
        (Some(new), Some(_)) => new.clone(),
        _ => generated.tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
    };
    super::print_line(&text)
}
