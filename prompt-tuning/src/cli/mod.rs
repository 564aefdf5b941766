//! The command line: arguments, and what every command shares. Each command is one file.

mod compare;
mod demo;
mod eval;
mod export;
mod fetch;
mod few_shot;
mod fill_mask;
mod generate;
mod inspect;
mod perplexity;
mod predict;
mod pretrain;
mod progress;
mod scale;
mod score;
mod search_labels;
mod session;
mod shots;
mod train;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Parser, Subcommand, ValueEnum};
use model::LanguageModel;

use crate::error::{Error, Result};

/// Adapt a frozen language model by what is put in front of it.
#[derive(Debug, Parser)]
#[command(name = "prompt-tuning", version, about, max_term_width = 110, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See in two minutes what prompt tuning is
    Demo(demo::DemoArgs),
    /// Train a prompt on a frozen model, or the model's weights
    Train(Box<train::TrainArgs>),
    /// Train a tokenizer and a small model from nothing but text
    Pretrain(Box<pretrain::PretrainArgs>),
    /// Measure a hard or soft prompt on labelled data
    Eval(eval::EvalArgs),
    /// Predict the labels of texts
    Predict(predict::PredictArgs),
    /// Continue texts
    Generate(generate::GenerateArgs),
    /// Log-probabilities of given completions
    Score(score::ScoreArgs),
    /// How well a model predicts plain text, with or without a prompt
    Perplexity(perplexity::PerplexityArgs),
    /// Study zero- and few-shot prompts: demonstrations, orders, wordings, calibration
    FewShot(few_shot::FewShotArgs),
    /// Compare prompt tuning with fine-tuning and asking: accuracy, cost, overfitting, forgetting
    Compare(Box<compare::CompareArgs>),
    /// Put comparisons of models of several sizes together
    Scale(scale::ScaleArgs),
    /// Find answer words for the labels of a task
    SearchLabels(search_labels::SearchLabelsArgs),
    /// Say what stands behind the masks of a text
    FillMask(fill_mask::FillMaskArgs),
    /// Show the vocabulary tokens nearest to each soft token
    Inspect(inspect::InspectArgs),
    /// Write a prompt as .npy or as a PEFT adapter
    Export(export::ExportArgs),
    /// Fetch a model from the hub into the cache
    Fetch(fetch::FetchArgs),
}

/// Where and how to compute, and how to print.
#[derive(Clone, Debug, Args)]
struct Common {
    /// Print machine-readable JSON on stdout
    #[arg(long)]
    json: bool,
    /// Threads to use [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Arithmetic of the matrix products: f32, or factors rounded to bf16 with sums in f32 (faster on CPUs with
    /// AVX-512-BF16; about three digits). On a GPU those of attention too
    #[arg(long, value_enum, default_value_t = Precision::F32, value_name = "P")]
    precision: Precision,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Cpu, value_name = "D")]
    device: Device,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Precision {
    F32,
    Bf16,
}

impl From<Precision> for kernels::matmul::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => kernels::matmul::Precision::F32,
            Precision::Bf16 => kernels::matmul::Precision::Bf16,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Device {
    Cpu,
    Cuda,
}

impl From<Device> for tensor::Device {
    fn from(device: Device) -> Self {
        match device {
            Device::Cpu => tensor::Device::Cpu,
            Device::Cuda => tensor::Device::Cuda,
        }
    }
}

impl Common {
    /// The model in a folder or file, where and how it is to compute.
    fn model(&self, path: &Path) -> Result<LanguageModel> {
        let mut model = LanguageModel::open_on(path, self.device.into())?;
        model.set_precision(self.precision.into());
        Ok(model)
    }

    /// The options that say how numbers are computed, and their values where it is not the usual way.
    fn options(&self) -> [(&'static str, Option<&'static str>); 2] {
        let precision = (self.precision == Precision::Bf16).then_some("bf16");
        let device = (self.device == Device::Cuda).then_some("cuda");
        [("--precision", precision), ("--device", device)]
    }

    /// Names how numbers are computed, for runs that are compared or resumed; empty for the usual way.
    fn arithmetic(&self) -> String {
        self.options().into_iter().filter_map(|(_, value)| value).collect::<Vec<_>>().join(" ")
    }

    /// Checks what this build can do, and starts the threads.
    fn apply(&self) -> Result<()> {
        if let Err(why) = tensor::Device::from(self.device).start() {
            return Err(Error::Input(format!("--device cuda: {why}")));
        }
        if let Err(why) = kernels::Isa::forced() {
            return Err(Error::Input(why));
        }
        let threads = rayon::ThreadPoolBuilder::new().num_threads(self.threads.unwrap_or(0).into());
        threads.build_global().map_err(|e| Error::Failure(format!("--threads: {e}")))
    }
}

/// Set by the first Ctrl-C of a command that has something to save.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Exit code of a process that did not wait for its saving, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// That a run does not write into the folder of the model that it reads.
fn check_not_the_model(out: &Path, model: &Path) -> Result<()> {
    let same = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    match same(out, model) {
        false => Ok(()),
        true => {
            Err(Error::Input("--out is the folder of the model, which is only read; choose another".into()))
        }
    }
}

/// From now on the first Ctrl-C only sets [`INTERRUPTED`]; the second ends the process at once.
fn catch_interrupts() {
    let on_interrupt = || {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_INTERRUPTED);
        }
    };
    if let Err(e) = ctrlc::set_handler(on_interrupt) {
        tracing::warn!("Ctrl-C will end the process without saving: {e}");
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let warnings =
        tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr);
    warnings.without_time().with_target(false).with_ansi(false).init();
    let done = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Pretrain(args) => pretrain::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::FewShot(args) => few_shot::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Scale(args) => scale::run(&args),
        Command::SearchLabels(args) => search_labels::run(&args),
        Command::FillMask(args) => fill_mask::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Fetch(args) => fetch::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}

/// A whole number of at least 1, for clap.
fn positive(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "a whole number of at least 1 is needed".into())
}

/// Prints `value` as one line of JSON. A closed pipe is the reader's choice, not an error.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Error::Failure(format!("cannot write JSON: {e}")))?;
    print_line(&text)
}

/// Prints one line on stdout.
fn print_line(text: &str) -> Result<()> {
    use std::io::Write;
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Failure(format!("cannot write to stdout: {e}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
