//! `eval`: how good a prompt is on labelled data.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Common;
use super::progress::Progress;
use super::session::{PromptedModel, check_prompt_length, kind_and_length, questions, task_for_prompt};
use crate::data::{self, Labels};
use crate::error::{Error, Result};
use crate::evaluate;
use crate::task::Task;

/// Arguments of `eval`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    prompt-tuning eval --model models/SmolLM2-135M-Instruct --data data/reviews/test.jsonl --task data/reviews/hard.toml\n  \
    prompt-tuning eval --model models/SmolLM2-135M-Instruct --data data/reviews/test.jsonl --task data/reviews/task.toml --prompt runs/reviews")]
pub(super) struct EvalArgs {
    #[command(flatten)]
    on: PromptedModel,
    /// Labelled data: .jsonl, .csv or .tsv
    #[arg(long, value_name = "F")]
    data: PathBuf,
    /// Task file: template and verbalizer
    #[arg(long, value_name = "T.toml")]
    task: PathBuf,
    /// Demonstrations in front of every example
    #[arg(long, value_name = "K", num_args = 1..)]
    shots: Vec<u32>,
    /// Examples computed at one time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = super::positive)]
    batch: usize,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &EvalArgs) -> Result<ExitCode> {
    if args.shots.iter().any(|&k| k > 0) {
        return Err(Error::Input(
            "--shots: this version evaluates without demonstrations only (--shots 0)".into(),
        ));
    }
    args.common.apply()?;
    let task = Task::read(&args.task)?;
    let (session, prompt) = args.on.open(&args.common)?;
    let task = task_for_prompt(task, prompt.as_ref().map(kind_and_length))?;
    let encoder = session.task_encoder(&task)?;
    check_prompt_length(&encoder, prompt.as_ref())?;
    let questions = questions(&encoder, &data::read_examples(&args.data, &task, Labels::Required)?)?;
    let mut progress = Progress::new("eval", questions.len() as u64, args.common.json);
    let answers = evaluate::answer(&session.model, prompt.as_ref(), &questions, args.batch, |done| {
        progress.at(done as u64, "");
    });
    progress.finish();
    super::session::check_finite(&session, &answers)?;
    let labels: Vec<String> = task.labels.iter().map(|l| l.name.clone()).collect();
    let m = evaluate::metrics(&labels, &questions, &answers)
        .ok_or_else(|| Error::Input(format!("`{}` has no labelled rows", args.data.display())))?;
    if args.common.json {
        super::print_json(&m)?;
        return Ok(ExitCode::SUCCESS);
    }
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let lines = [
        ("examples", m.n.to_string()),
        (
            "accuracy",
            format!(
                "{} (95 % interval {} to {})",
                percent(m.accuracy),
                percent(m.accuracy_ci95[0]),
                percent(m.accuracy_ci95[1])
            ),
        ),
        ("macro F1", format!("{:.3}", m.macro_f1)),
        ("loss", format!("{:.4}", m.loss)),
        ("majority baseline", percent(m.majority_baseline)),
        (
            "predicted",
            m.predicted.iter().map(|(label, n)| format!("{label} {n}")).collect::<Vec<_>>().join(", "),
        ),
    ];
    for (name, value) in lines {
        super::print_line(&format!("{name:18} {value}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
