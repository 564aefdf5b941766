//! `demo`: what prompt tuning is, in two minutes, with the model and the data that come with the repository.
//!
//! It is a small `compare`, told as it goes. The plan that it writes can be changed and run again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::compare::child::{self, Words};
use super::compare::setup::Setup;
use super::compare::watch::Watch;
use super::compare::{CompareArgs, Other, Size, conduct};
use super::progress::Progress;
use super::{Common, print_json, print_line};
use crate::compare::plan::{How, PlannedCell};
use crate::compare::{Cell, Kind, Summary};
use crate::error::Result;
use crate::{atomic, hub};

const PLAN: &str = include_str!("demo.toml");
/// Where the plan names the dev data.
const DEV: &str = "DEV";

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  prompt-tuning demo")]
pub(super) struct DemoArgs {
    /// Model: one that comes with the repository, a folder or a hub id
    #[arg(long, value_name = "M", default_value = "nano")]
    model: String,
    /// Data set: folder with task.toml, train.jsonl, dev.jsonl and test.jsonl [default: data/sentiment of the repository]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Optimizer steps of both trainings
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Seed of demonstrations and training
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Folder for the report; replaced
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &DemoArgs) -> Result<ExitCode> {
    args.common.apply()?;
    super::catch_interrupts();
    let data = args.data.clone().map_or_else(|| hub::data_folder("sentiment"), Ok)?;
    atomic::prepare_folder(&args.out)?;
    let plan = args.out.join("plan.toml");
    // as TOML writes a string: there may be anything in a path
    let dev = toml::Value::from(data.join("dev.jsonl").display().to_string());
    atomic::write(&plan, PLAN.replace(DEV, &dev.to_string()).as_bytes())?;
    let compare = compare_args(args, &data, plan);
    let mut story = Story::new(args);
    let comparison = conduct(&compare, &mut story)?;
    let summary = Summary::of(&comparison);
    let words = story.prompt.as_deref().map(|prompt| nearest_words(args, prompt)).transpose()?;
    let report = args.out.join("report.html");
    if args.common.json {
        print_json(&json!({ "summary": summary, "nearest_words": words, "report": report }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(words) = words {
        print_line(
            "\nThe vocabulary tokens nearest to the 20 trained vectors (they need not be words at all):",
        )?;
        print_line(&format!("  {}", words.join(" ")))?;
    }
    print_line(&format!("\n{}", summary.table().trim_end()))?;
    print_line("")?;
    summary.findings.iter().try_for_each(|sentence| print_line(&format!("* {sentence}")))?;
    print_line(&format!("\nreport: {}", report.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn compare_args(args: &DemoArgs, data: &Path, plan: PathBuf) -> CompareArgs {
    // what is forgotten: topics are asked, and a text is read, where the repository has them
    let topics = hub::data_folder("topics").ok().filter(|folder| *folder != data);
    let text = hub::data_folder("text").ok().map(|folder| folder.join("general.txt"));
    CompareArgs {
        model: args.model.clone(),
        task: data.join("task.toml"),
        train: data.join("train.jsonl"),
        data: data.join("test.jsonl"),
        plan: Some(plan),
        methods: Vec::new(),
        sizes: vec![Size::All],
        seeds: 1,
        seed: args.seed,
        steps: args.steps,
        batch: 16,
        text: text.into_iter().collect(),
        other: topics
            .map(|folder| Other { task: folder.join("task.toml"), data: folder.join("dev.jsonl") })
            .into_iter()
            .collect(),
        max_rows: None,
        out: args.out.clone(),
        keep: false,
        resume: false,
        overwrite: true,
        common: args.common.clone(),
    }
}

/// The token nearest to each vector of a prompt.
fn nearest_words(args: &DemoArgs, prompt: &Path) -> Result<Vec<String>> {
    let words =
        Words::of("inspect").option("--model", &args.model).option("--prompt", prompt).option("--top", "1");
    let token = |line: &Value| line["nearest"][0]["token"].as_str().unwrap_or("?").trim().to_string();
    Ok(child::run(&words, |_| {})?.iter().map(token).collect())
}

/// Tells what happens.
struct Story {
    quiet: bool,
    steps: u64,
    out: PathBuf,
    training: Option<Progress>,
    accuracy: Option<f64>,
    /// The cell at hand, and whether it trains a prompt.
    cell: Option<(String, Kind)>,
    /// Of the first prompt: a prefix that comes later has no words.
    prompt: Option<PathBuf>,
}

impl Story {
    fn new(args: &DemoArgs) -> Story {
        Story {
            quiet: args.common.json,
            steps: args.steps,
            out: args.out.clone(),
            training: None,
            accuracy: None,
            cell: None,
            prompt: None,
        }
    }

    fn tell(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }
}

impl Watch for Story {
    fn begin(&mut self, setup: &Setup, _: usize) {
        let task = &setup.args.task;
        self.tell(&format!(
            "A frozen model ({}) and {} labelled texts ({}).",
            setup.args.model,
            setup.n_train(),
            task.parent().unwrap_or(task).display()
        ));
        self.tell(&format!(
            "Every figure is the accuracy on {} texts that were not trained on.\n",
            setup.gold.len()
        ));
    }

    fn cell(&mut self, setup: &Setup, planned: PlannedCell) {
        let method = &setup.methods[planned.method];
        self.tell(match (&method.how, method.kind()) {
            (How::Shots(0), _) => {
                "Zero-shot: the text, a few words around it, and which answer the model finds likelier."
            }
            (How::Shots(_), _) => {
                "Few-shot: the same after some labelled examples; still nothing is trained."
            }
            (How::Train(words), _) if words.iter().any(|word| word == "prefix") => {
                "Prefix: vectors in front of the keys and values of every layer are trained instead."
            }
            (_, Kind::Prompt) => {
                "Soft prompt: vectors in front of the text are trained, the model stays as it is."
            }
            _ => "Fine-tuning: all weights are trained.",
        });
        if matches!(method.how, How::Train(_)) {
            self.training = Some(Progress::new("  train", self.steps, self.quiet));
        }
        self.cell = Some((setup.folder_name(planned), method.kind()));
    }

    fn line(&mut self, line: &Value) {
        let Some(progress) = &mut self.training else { return };
        if let Some(accuracy) = line["dev"]["accuracy"].as_f64() {
            self.accuracy = Some(accuracy);
        }
        if let (Some(step), Some(loss)) = (line["step"].as_u64(), line["loss"].as_f64()) {
            let dev = self.accuracy.map_or_else(String::new, |a| format!("  dev {:.1} %", 100.0 * a));
            progress.at(step, format!("loss {loss:.3}{dev}"));
        }
    }

    fn measured(&mut self, cell: &Cell, accuracy: f64) {
        if let Some(progress) = self.training.take() {
            progress.finish();
        }
        self.accuracy = None;
        let cost = cell.training.as_ref().map_or_else(String::new, |training| {
            let kept = training.stored_bytes as f64 / 1e3;
            format!("   {} numbers trained in {:.0} s, {kept:.0} kB kept", training.trained, training.seconds)
        });
        self.tell(&format!("  {:.1} %{cost}\n", 100.0 * accuracy));
        if let Some((name, Kind::Prompt)) = self.cell.take()
            && self.prompt.is_none()
        {
            self.prompt = Some(self.out.join("cells").join(name));
        }
    }

    fn finish(&mut self) {}
}
