//! `search-labels`: answer words for the labels of a task, from its training data.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::progress::Progress;
use super::session::{PromptedModel, Session, check_prompt_length, kind_and_length, task_for_prompt};
use super::{Common, print_json, print_line};
use crate::atomic;
use crate::data::{self, Dataset, Example, Labels};
use crate::error::{Error, Result};
use crate::evaluate::Exam;
use crate::label_words::{Search, word_log_probs, words};
use crate::rng::Rng;
use crate::soft_prompt::SoftPrompt;
use crate::task::{Answers, Label, Task};

/// Arguments of `search-labels`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    prompt-tuning search-labels --model models/SmolLM2-135M-Instruct --task data/reviews/hard.toml --train data/reviews/train.jsonl --dev data/reviews/dev.jsonl --out found.toml")]
pub(super) struct SearchLabelsArgs {
    #[command(flatten)]
    on: PromptedModel,
    /// Task file whose labels get other words
    #[arg(long, value_name = "T.toml")]
    task: PathBuf,
    /// Labelled data to search in
    #[arg(long, value_name = "F")]
    train: PathBuf,
    /// Labelled data to measure the words on; the search does not see it
    #[arg(long, value_name = "F")]
    dev: PathBuf,
    /// Write the task file with the words found
    #[arg(long, value_name = "T.toml")]
    out: Option<PathBuf>,
    /// Training examples to look at, drawn at random
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = super::positive)]
    examples: usize,
    /// Candidate words for each label
    #[arg(long, value_name = "N", default_value_t = Search::default().candidates, value_parser = super::positive)]
    candidates: usize,
    /// Where the draw of the examples begins
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Examples computed at one time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = super::positive)]
    batch: usize,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &SearchLabelsArgs) -> Result<ExitCode> {
    args.common.apply()?;
    let task = Task::read(&args.task)?;
    if let Answers::Text(_) = task.answers {
        return Err(Error::file(&args.task, "its answers are texts; only labels have words to search for"));
    }
    let (session, prompt) = args.on.open(&args.common)?;
    let task = task_for_prompt(task, prompt.as_ref().map(kind_and_length))?;
    let train = drawn(data::read_examples(&args.train, &task, Labels::Required)?, args);
    let dev = data::read_examples(&args.dev, &task, Labels::Required)?;
    let found = search(args, (&session, prompt.as_ref()), &task, &train)?;
    let measured = |task: &Task, data| measure(args, (&session, prompt.as_ref()), task, data);
    for (name, task) in [("given", &task), ("found", &found)] {
        print(args, name, task, [&measured(task, &train)?, &measured(task, &dev)?])?;
    }
    if let Some(out) = &args.out {
        write(&args.task, &found, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// So many of the training examples, at random.
fn drawn(mut data: Dataset<Example>, args: &SearchLabelsArgs) -> Dataset<Example> {
    Rng::new(args.seed).shuffle(&mut data.rows);
    data.rows.truncate(args.examples);
    data
}

/// A word can only be found for a label that the search sees.
fn every_label_is_there(task: &Task, train: &Dataset<Example>) -> Result<()> {
    let has = |label: usize| train.rows.iter().any(|e| e.label == Some(label));
    match (0..task.labels().len()).find(|&label| !has(label)) {
        None => Ok(()),
        Some(label) => Err(Error::file(
            &train.path,
            format!(
                "none of the {} examples that are looked at has the label `{}`; give more data, or more of it with --examples",
                train.rows.len(),
                task.labels()[label].name
            ),
        )),
    }
}

/// The task with the words that the search finds.
fn search(
    args: &SearchLabelsArgs,
    (session, prompt): (&Session, Option<&SoftPrompt>),
    task: &Task,
    train: &Dataset<Example>,
) -> Result<Task> {
    let encoder = session.task_encoder(task)?;
    check_prompt_length(&encoder, prompt)?;
    every_label_is_there(task, train)?;
    let words = words(session.tokenizer()?, session.model.config().vocab_size);
    if words.len() < task.labels().len() {
        let (n, labels) = (words.len(), task.labels().len());
        return Err(Error::Input(format!(
            "the vocabulary of the model has {n} words of one token for {labels} labels"
        )));
    }
    let mut progress = Progress::new("search-labels", train.rows.len() as u64, args.common.json);
    let examinee = session.examinee(prompt, args.batch);
    let log_probs = word_log_probs(&encoder, examinee, train, &words, |n| progress.at(n as u64, ""))?;
    progress.finish();
    let gold: Vec<usize> = train.rows.iter().filter_map(|e| e.label).collect();
    let search = Search { candidates: args.candidates, ..Search::default() };
    let chosen = search.find(&log_probs, &gold, task.labels().len());
    let label = |(label, word): (&Label, usize)| Label {
        name: label.name.clone(),
        answers: vec![words[word].text.clone()],
    };
    let labels = task.labels().iter().zip(chosen).map(label).collect();
    Ok(Task { answers: Answers::Labels(labels), ..task.clone() })
}

fn measure(
    args: &SearchLabelsArgs,
    (session, prompt): (&Session, Option<&SoftPrompt>),
    task: &Task,
    data: &Dataset<Example>,
) -> Result<Map<String, Value>> {
    let encoder = session.task_encoder(task)?;
    let exam = Exam::new(&encoder, data, |_| &[])?;
    let answered = exam.answered(task, session.examinee(prompt, args.batch), |_| ())?;
    let metrics = exam.metrics(task, &answered);
    metrics.ok_or_else(|| Error::Input(format!("`{}` has no labelled rows", data.path.display())))
}

fn print(
    args: &SearchLabelsArgs,
    name: &str,
    task: &Task,
    [train, dev]: [&Map<String, Value>; 2],
) -> Result<()> {
    let words: Map<String, Value> =
        task.labels().iter().map(|l| (l.name.clone(), l.answers.clone().into())).collect();
    if args.common.json {
        return print_json(&json!({ "labels": name, "words": words, "train": train, "dev": dev }));
    }
    let words: Vec<String> = task.labels().iter().map(|l| format!("{}: {:?}", l.name, l.answers)).collect();
    print_line(&format!("{name:6} {}", words.join(", ")))?;
    for (data, metrics) in [("train", train), ("dev", dev)] {
        let accuracy = super::eval::lines(metrics).into_iter().find(|line| line.starts_with("accuracy"));
        print_line(&format!("       {data:5} {}", accuracy.unwrap_or_default()))?;
    }
    Ok(())
}

/// The task file with other words. Its comments are lost.
fn write(source: &Path, found: &Task, out: &Path) -> Result<()> {
    let text = std::fs::read_to_string(source).map_err(|e| Error::read(source, e))?;
    let mut table: toml::Table =
        toml::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| Error::file(source, e.message()))?;
    let words = |l: &Label| (l.name.clone(), toml::Value::from(l.answers.clone()));
    table.insert("labels".into(), toml::Value::Table(found.labels().iter().map(words).collect()));
    let text = toml::to_string(&table).map_err(|e| Error::Failure(format!("cannot write TOML: {e}")))?;
    atomic::write(out, text.as_bytes())
}
