//! `few-shot`: a zero- and few-shot study.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::progress::Progress;
use super::session::{PromptedModel, Session, check_prompt_length, kind_and_length, task_for_prompt};
use super::shots::{Candidates, ShotArgs, sampled};
use super::{Common, print_json, print_line};
use crate::atomic;
use crate::data::{self, Dataset, Example, Labels};
use crate::encode::TaskEncoder;
use crate::error::{Error, Result};
use crate::few_shot::Ordering;
use crate::soft_prompt::SoftPrompt;
use crate::study::conduct::{Encoders, Material, Plan};
use crate::study::{Study, Summary, command, machine, report};
use crate::task::{Answers, DEFAULT_WORDING, Task};
use crate::template::Template;
use crate::verbalizer::Calibration;

/// Arguments of `few-shot`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    prompt-tuning few-shot --model models/SmolLM2-135M-Instruct --task data/reviews/hard.toml --train data/reviews/train.jsonl --data data/reviews/dev.jsonl --shots 0,1,2,4,8 --seeds 3 --out runs/study\n  \
    prompt-tuning few-shot --model models/SmolLM2-135M-Instruct --task data/reviews/hard.toml --train data/reviews/train.jsonl --data data/reviews/dev.jsonl --shots 4 --order all --seeds 5 --max-rows 200 --out runs/orders")]
pub(super) struct FewShotArgs {
    #[command(flatten)]
    on: PromptedModel,
    /// Task file; the wordings in its `templates` are tried beside its template
    #[arg(long, value_name = "T.toml")]
    task: PathBuf,
    /// Labelled data to be asked
    #[arg(long, value_name = "F")]
    data: PathBuf,
    #[command(flatten)]
    which: ShotArgs,
    /// Numbers of demonstrations
    #[arg(long, value_name = "K", num_args = 1.., value_delimiter = ',', default_values_t = [0, 1, 2, 4, 8], value_parser = clap::value_parser!(u8).range(0..=32))]
    shots: Vec<u8>,
    /// Choices of demonstrations, from --seed on
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seeds: u32,
    /// Orders that are tried [default: nearest-last where each text has its own demonstrations, else random]
    #[arg(long, value_enum, value_name = "O")]
    order: Option<Ordering>,
    /// How many orders of each choice, where not all are tried
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::positive)]
    orders: usize,
    /// How answers are corrected; several are compared on the same scores
    #[arg(long, value_enum, value_name = "C", num_args = 1.., value_delimiter = ',', default_values_t = [Calibration::None, Calibration::Contextual])]
    calibration: Vec<Calibration>,
    /// Wordings to try, by their names in `templates`; the template itself is `default` [default: all]
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    templates: Vec<String>,
    /// Ask so many rows, drawn at random but always the same
    #[arg(long, value_name = "N", value_parser = super::positive)]
    max_rows: Option<usize>,
    /// Folder for study.json and report.html
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Rows computed at one time: they share what their prompts have in common
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = super::positive)]
    batch: usize,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &FewShotArgs) -> Result<ExitCode> {
    args.common.apply()?;
    let task = Task::read(&args.task)?;
    if let Answers::Text(_) = task.answers {
        let why = "its answers are texts, and a study compares labels; measure it with eval --shots";
        return Err(Error::file(&args.task, why));
    }
    let data = sampled(data::read_examples(&args.data, &task, Labels::Required)?, args.max_rows);
    one_class(&data, &task)?;
    let wordings = wordings(args, &task)?;
    let (session, prompt) = args.on.open(&args.common)?;
    let plan = plan(args, &task, wordings, prompt.as_ref())?;
    if let Some(out) = &args.out {
        atomic::prepare_folder(out)?;
    }
    let candidates = match (&args.which.train, &plan.shots[..]) {
        (None, [0]) => Candidates::none(&task, &data),
        _ => args.which.candidates((&session, &task), &data, args.common.json)?,
    };
    let start = Instant::now();
    let material = Material { data: &data, train: &candidates.train, pool: &candidates.pool() };
    let mut progress = Progress::new("few-shot", plan.n_questions(data.rows.len()) as u64, args.common.json);
    let encoders = Prompted { session: &session, prompt: prompt.as_ref() };
    let examinee = session.examinee(prompt.as_ref(), args.batch);
    let (runs, tokens) =
        plan.conduct(&task, material, (&encoders, examinee), |n| progress.at(n as u64, "rows asked"))?;
    progress.finish();
    let study = Study {
        task: task.name.clone(),
        model: session.name.clone(),
        data: args.data.display().to_string(),
        train: candidates.train.path.display().to_string(),
        n_train: candidates.train.rows.len(),
        labels: task.labels().iter().map(|l| l.name.clone()).collect(),
        gold: data.rows.iter().filter_map(|e| e.label).collect(),
        command: command(),
        machine: machine(),
        seconds: start.elapsed().as_secs_f64(),
        computed_tokens: tokens.computed,
        plain_tokens: tokens.plain,
        runs,
    };
    told(args, &study)?;
    Ok(ExitCode::SUCCESS)
}

/// A model with what stands in front of its texts.
struct Prompted<'a> {
    session: &'a Session,
    prompt: Option<&'a SoftPrompt>,
}

impl Encoders for Prompted<'_> {
    fn encoder<'t>(&'t self, task: &'t Task) -> Result<TaskEncoder<'t>> {
        let encoder = self.session.task_encoder(task)?;
        check_prompt_length(&encoder, self.prompt)?;
        Ok(encoder)
    }
}

/// That there is something to tell apart.
fn one_class(data: &Dataset<Example>, task: &Task) -> Result<()> {
    let first = data.rows[0].label;
    match data.rows.iter().all(|e| e.label == first) {
        true => Err(Error::file(
            &data.path,
            format!(
                "all {} rows have the label `{}`; accuracy says nothing there, use data with at least two labels",
                data.rows.len(),
                first.map_or("", |label| task.labels()[label].name.as_str())
            ),
        )),
        false => Ok(()),
    }
}

/// The wordings that are asked for.
fn wordings(args: &FewShotArgs, task: &Task) -> Result<Vec<(String, Template)>> {
    let mut all = vec![(DEFAULT_WORDING.to_string(), task.template.clone())];
    all.extend(task.wordings.iter().cloned());
    if args.templates.is_empty() {
        return Ok(all);
    }
    let named = |name: &String| {
        all.iter().find(|(known, _)| known == name).cloned().ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            Error::Input(format!("--templates {name}: the task has {}", names.join(", ")))
        })
    };
    distinct(&args.templates).iter().map(named).collect()
}

/// Each once, in the order in which they first come.
fn distinct<T: PartialEq + Clone>(items: &[T]) -> Vec<T> {
    let mut distinct: Vec<T> = Vec::new();
    for item in items {
        if !distinct.contains(item) {
            distinct.push(item.clone());
        }
    }
    distinct
}

fn plan(
    args: &FewShotArgs,
    task: &Task,
    wordings: Vec<(String, Template)>,
    prompt: Option<&SoftPrompt>,
) -> Result<Plan> {
    let prompted = |(name, template): (String, Template)| {
        let task = Task { template, ..task.clone() };
        Ok((name, task_for_prompt(task, prompt.map(kind_and_length))?.template))
    };
    let mut shots: Vec<usize> = args.shots.iter().map(|&k| k.into()).collect();
    shots.sort_unstable();
    shots.dedup();
    let usual = if args.which.choice.is_by_text() { Ordering::NearestLast } else { Ordering::Random };
    let plan = Plan {
        wordings: wordings.into_iter().map(prompted).collect::<Result<_>>()?,
        shots,
        seeds: seeds(args)?,
        choice: args.which.choice,
        ordering: args.order.unwrap_or(usual),
        n_orders: args.orders,
        calibrations: distinct(&args.calibration),
        policy: args.which.policy,
    };
    plan.check()?;
    Ok(plan)
}

/// From --seed on.
fn seeds(args: &FewShotArgs) -> Result<Range<u64>> {
    let start = args.which.seed;
    match start.checked_add(args.seeds.into()) {
        Some(end) => Ok(start..end),
        None => Err(Error::Input(format!("--seed {start}: there are no {} seeds from there on", args.seeds))),
    }
}

/// What the study found, and where it is written.
fn told(args: &FewShotArgs, study: &Study) -> Result<()> {
    let summary = Summary::of(study);
    if let Some(out) = &args.out {
        study.write(&out.join("study.json"))?;
        report::write(study, &summary, &out.join("report.html"))?;
    }
    if args.common.json {
        return print_json(&json!({
            "n": study.n(),
            "runs": study.runs.len(),
            "seconds": study.seconds,
            "computed_tokens": study.computed_tokens,
            "plain_tokens": study.plain_tokens,
            "summary": summary,
        }));
    }
    print_line(summary.table().trim_end())?;
    print_line("")?;
    summary.findings.iter().try_for_each(|sentence| print_line(sentence))?;
    print_line(&format!(
        "{} prompts in {:.0} s: {} tokens computed, {} without sharing",
        study.runs.len(),
        study.seconds,
        study.computed_tokens,
        study.plain_tokens
    ))?;
    match &args.out {
        Some(out) => print_line(&format!("report: {}", out.join("report.html").display())),
        None => Ok(()),
    }
}
