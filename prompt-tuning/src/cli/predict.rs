//! `predict`: the labels of texts.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::{Map, Value, json};

use super::Common;
use super::progress::Progress;
use super::session::{PromptedModel, check_prompt_length, kind_and_length, task_for_prompt};
use super::shots::ShotArgs;
use crate::data::{self, Example, Labels};
use crate::error::Result;
use crate::evaluate::{Answered, Exam};
use crate::task::Task;
use crate::verbalizer::Answer;

/// Arguments of `predict`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    prompt-tuning predict --model models/SmolLM2-135M-Instruct --task data/reviews/task.toml --prompt runs/reviews \"A lovely film.\"")]
pub(super) struct PredictArgs {
    #[command(flatten)]
    on: PromptedModel,
    /// Task file: template and verbalizer
    #[arg(long, value_name = "T.toml")]
    task: PathBuf,
    /// Texts in a file: .jsonl, .csv or .tsv; labels are not needed
    #[arg(long, value_name = "F", conflicts_with = "texts", required_unless_present = "texts")]
    data: Option<PathBuf>,
    /// Texts (for a template with one field)
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// Demonstrations in front of every text, chosen from --train
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=32))]
    shots: u8,
    #[command(flatten)]
    which: ShotArgs,
    /// Examples computed at one time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = super::positive)]
    batch: usize,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &PredictArgs) -> Result<ExitCode> {
    args.common.apply()?;
    let task = Task::read(&args.task)?;
    let (session, prompt) = args.on.open_for_labels(&args.common)?;
    let task = task_for_prompt(task, prompt.as_ref().map(kind_and_length))?;
    let encoder = session.task_encoder(&task)?;
    check_prompt_length(&encoder, prompt.as_ref())?;
    let examples = match &args.data {
        Some(path) => data::read_examples(path, &task, Labels::Optional)?,
        None => data::examples_of_texts(&args.texts, &task)?,
    };
    let shown = match args.shots {
        0 => vec![Arc::default(); examples.rows.len()],
        k => {
            let quiet = args.common.json || args.data.is_none();
            let candidates = args.which.candidates((&session, &task), &examples, quiet)?;
            args.which.choose(&candidates, &encoder, &examples, k.into())?.1
        }
    };
    let exam = Exam::new(&encoder, &examples, |i| &shown[i])?;
    let mut progress = Progress::new("predict", exam.len() as u64, args.common.json || args.data.is_none());
    let answered =
        exam.answered(&task, session.examinee(prompt.as_ref(), args.batch), |n| progress.at(n as u64, ""))?;
    progress.finish();
    let text = |example: &Example| example.fields.values().cloned().collect::<Vec<_>>().join(" | ");
    let texts = examples.rows.iter().map(text);
    match answered {
        Answered::Labels(answers) => {
            texts
                .zip(&answers)
                .try_for_each(|(text, answer)| print(args.common.json, &task, &text, answer))?;
        }
        Answered::Texts(answers) => {
            texts.zip(&answers).try_for_each(|(text, answer)| match args.common.json {
                true => super::print_json(&json!({ "text": text, "answer": answer })),
                false => super::print_line(&format!("{}\t{}", line(answer), line(&text))),
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// On one line of a table.
fn line(text: &str) -> String {
    text.replace(['\n', '\t'], " ")
}

fn print(json: bool, task: &Task, text: &str, answer: &Answer) -> Result<()> {
    let best = answer.best();
    let probabilities = answer.probabilities();
    if json {
        let by_label = task.labels().iter().zip(&probabilities);
        let by_label: Map<String, Value> = by_label.map(|(l, &p)| (l.name.clone(), p.into())).collect();
        return super::print_json(&json!({
            "text": text,
            "label": task.labels()[best].name,
            "probability": probabilities[best],
            "probabilities": by_label,
        }));
    }
    super::print_line(&format!("{}\t{:.3}\t{}", task.labels()[best].name, probabilities[best], line(text)))
}
