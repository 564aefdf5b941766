//! `eval`: how good a prompt is on labelled data.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::{Map, Value};

use super::Common;
use super::progress::Progress;
use super::session::{PromptedModel, check_prompt_length, kind_and_length, task_for_prompt};
use super::shots::{ShotArgs, sampled};
use crate::data::{self, Dataset, Example, Labels};
use crate::encode::{Demonstration, TaskEncoder};
use crate::error::{Error, Result};
use crate::evaluate::{Exam, Examinee, perplexity, right_rows};
use crate::task::{Answers, Task};
use crate::verbalizer::Calibration;

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
    /// Demonstrations in front of every example, chosen from --train; several numbers are measured one after the other
    #[arg(long, value_name = "K", num_args = 1.., value_delimiter = ',', default_values_t = [0], value_parser = clap::value_parser!(u8).range(0..=32))]
    shots: Vec<u8>,
    #[command(flatten)]
    which: ShotArgs,
    /// How answers are corrected [default: as the task says]
    #[arg(long, value_enum, value_name = "C")]
    calibration: Option<Calibration>,
    /// Measure on so many rows, drawn at random but always the same
    #[arg(long, value_name = "N", value_parser = super::positive)]
    max_rows: Option<usize>,
    /// Examples computed at one time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = super::positive)]
    batch: usize,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &EvalArgs) -> Result<ExitCode> {
    args.common.apply()?;
    let mut task = Task::read(&args.task)?;
    task.scoring.calibration = args.calibration.unwrap_or(task.scoring.calibration);
    if let (Answers::Text(_), Some(calibration)) = (&task.answers, args.calibration) {
        let why = "its answers are texts, and only the probabilities of labels can be calibrated";
        return Err(Error::file(&args.task, format!("--calibration {}: {why}", calibration.name())));
    }
    let (session, prompt) = args.on.open_for_labels(&args.common)?;
    let task = task_for_prompt(task, prompt.as_ref().map(kind_and_length))?;
    let encoder = session.task_encoder(&task)?;
    check_prompt_length(&encoder, prompt.as_ref())?;
    let data = sampled(data::read_examples(&args.data, &task, Labels::Required)?, args.max_rows);
    let candidates = match args.shots.iter().any(|&k| k > 0) {
        true => Some(args.which.candidates((&session, &task), &data, args.common.json)?),
        false => None,
    };
    for &k in &args.shots {
        let examinee = session.examinee(prompt.as_ref(), args.batch);
        let measured = |shown: &[Arc<[Demonstration]>]| measured(args, (&encoder, &data), shown, examinee);
        let metrics = match &candidates {
            Some(candidates) if k > 0 => {
                let (shots, shown) = args.which.choose(candidates, &encoder, &data, k.into())?;
                let mut metrics = measured(&shown)?;
                metrics.insert("shots".into(), shots.fewest.into());
                if shots.n_reduced > 0 {
                    metrics.insert("rows_with_fewer_shots".into(), shots.n_reduced.into());
                    metrics.insert("shots_requested".into(), shots.requested.into());
                }
                metrics
            }
            _ => measured(&vec![Arc::default(); data.rows.len()])?,
        };
        if args.common.json {
            super::print_json(&metrics)?;
            continue;
        }
        if args.shots.len() > 1 {
            super::print_line(&format!("-- {k} demonstrations"))?;
        }
        lines(&metrics).iter().try_for_each(|line| super::print_line(line))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All metrics, each example after what is `shown` before it.
fn measured(
    args: &EvalArgs,
    (encoder, data): (&TaskEncoder, &Dataset<Example>),
    shown: &[Arc<[Demonstration]>],
    examinee: Examinee,
) -> Result<Map<String, Value>> {
    let task = encoder.task();
    let exam = Exam::new(encoder, data, |i| &shown[i])?;
    let right = match task.answers {
        Answers::Labels(_) => None,
        Answers::Text(_) => Some(right_rows(encoder, data, |i| &shown[i])?),
    };
    let mut progress = Progress::new("eval", exam.len() as u64, args.common.json);
    let answered = exam.answered(task, examinee, |n| progress.at(n as u64, ""))?;
    progress.finish();
    let metrics = exam.metrics(task, &answered);
    let mut metrics =
        metrics.ok_or_else(|| Error::Input(format!("`{}` has no labelled rows", args.data.display())))?;
    if let Some(rows) = right {
        metrics.insert("perplexity".into(), perplexity(&rows, examinee).into());
    }
    Ok(metrics)
}

/// The metrics for a reader: shares in percent, scores in three digits, an interval behind what it is for.
pub(super) fn lines(metrics: &Map<String, Value>) -> Vec<String> {
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let number = |name: &str, x: f64| match name {
        "loss" => format!("{x:.4}"),
        "perplexity" => format!("{x:.2}"),
        _ if ["f1", "bleu", "chrf", "rouge", "ece"].iter().any(|score| name.contains(score)) => {
            format!("{x:.3}")
        }
        _ => percent(x),
    };
    let interval = |name: &str| {
        let [low, high] = metrics.get(&format!("{name}_ci95"))?.as_array()?.as_slice() else { return None };
        Some(format!(" (95 % interval {} to {})", percent(low.as_f64()?), percent(high.as_f64()?)))
    };
    let line = |(name, value): (&String, &Value)| {
        let shown = match value {
            _ if name.ends_with("_ci95") => return None,
            Value::Number(n) if n.is_u64() => n.to_string(),
            Value::Object(map) => map.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>().join(", "),
            other => number(name, other.as_f64()?) + &interval(name).unwrap_or_default(),
        };
        let name = if name == "n" { "examples".into() } else { name.replace('_', " ").replace("f1", "F1") };
        Some(format!("{name:18} {shown}"))
    };
    metrics.iter().filter_map(line).collect()
}
