//! `train`: a prompt on a frozen model, or weights.

mod inputs;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};
use model::{Family, LanguageModel};
use serde_json::json;

use self::inputs::{DEFAULT_PROMPT_LENGTH, Inputs};
use self::watch::Watch;
use super::{Common, INTERRUPTED};
use crate::checkpoint_folder::SaveDtype;
use crate::error::{Error, Result};
use crate::head;
use crate::prompt_encoder;
use crate::study::statistics::Spread;
use crate::train::cost::Cost;
use crate::train::run_folder::{Existing, RunFolder};
use crate::train::schedule::Decay;
use crate::train::{Ending, Settings, Trainer, memory, optimizer};
use crate::trained_weights::Selection;

/// Arguments of `train`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    prompt-tuning train --model models/SmolLM2-135M-Instruct --task data/reviews/task.toml \\\n    \
    --train data/reviews/train.jsonl --dev data/reviews/dev.jsonl --out runs/reviews \\\n    \
    --init text:\"Is this review positive or negative?\" --steps 60 --batch 16 --lr 0.003 --schedule linear --clip 1 --eval-every 20")]
pub(super) struct TrainArgs {
    /// Model, whose file is only read: folder or hub id
    #[arg(long, value_name = "M")]
    pub(super) model: String,
    /// Training data: .jsonl, .csv or .tsv; with --task labelled texts, without {"prompt", "completion"} or raw ids
    #[arg(long, value_name = "F")]
    pub(super) train: PathBuf,
    /// Data to evaluate on; the best prompt on it is kept
    #[arg(long, value_name = "F")]
    pub(super) dev: Option<PathBuf>,
    /// Task file: template and verbalizer
    #[arg(long, value_name = "T.toml")]
    pub(super) task: Option<PathBuf>,
    /// Folder for the prompt (a PEFT adapter) or the model, metrics.jsonl, the training state and a picture
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// What is trained
    #[arg(long, value_enum, default_value_t = Method::Soft, value_name = "METHOD")]
    pub(super) method: Method,
    /// Where the prompt starts: text:"…", vocab, labels, random, normal:S, zero, an adapter folder or a .npy file
    /// [default: vocab; normal:1 for a prefix that cannot start from words]
    #[arg(long, value_name = "INIT")]
    pub(super) init: Option<String>,
    /// Network that makes the vectors of --method p-tuning [default: mlp]
    #[arg(long, value_enum, value_name = "NET")]
    pub(super) encoder: Option<EncoderKind>,
    /// Width of that network, or of --prefix-projection [default: that of the model]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(super) encoder_hidden: Option<u32>,
    /// With --method prefix: keys and values are made by two linear layers with tanh between them
    #[arg(long)]
    pub(super) prefix_projection: bool,
    /// With --method full: a linear layer at the last token, or at `[CLS]`, says which label, in place of label words
    #[arg(long)]
    pub(super) head: bool,
    /// Weights that --method full trains: all, bitfit (biases), last:N (the last N layers), or names with *, separated by
    /// commas; of a classifier its head in any case, with head nothing else [default: all]
    #[arg(long, value_name = "W")]
    pub(super) weights: Option<Selection>,
    /// Number format in which --method full writes the model [default: f32]
    #[arg(long, value_enum, value_name = "DTYPE")]
    pub(super) save_dtype: Option<SaveDtype>,
    /// Layers of --encoder lstm [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) encoder_layers: Option<u32>,
    /// Virtual tokens [default: those of the template, else 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) prompt_length: Option<u32>,
    /// Optimizer steps [default: one epoch]
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    pub(super) steps: Option<u64>,
    /// Passes over the data, instead of --steps
    #[arg(long, value_name = "N")]
    pub(super) epochs: Option<u64>,
    /// Examples computed at one time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = super::positive)]
    pub(super) batch: usize,
    /// Batches whose gradients make one step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::positive)]
    pub(super) accumulate: usize,
    /// Optimizer [default: adafactor for encoder-decoders (T5), as in Lester et al. 2021, else adamw]
    #[arg(long, value_enum, value_name = "OPT")]
    pub(super) optimizer: Option<optimizer::Kind>,
    /// Learning rate [default: 0.003 for adamw, 0.3 for adafactor (so for T5), 0.1 for sgd; with --method full 5e-5, 1e-3,
    /// 0.01]
    #[arg(long, value_name = "X", value_parser = not_negative)]
    pub(super) lr: Option<f32>,
    /// What the learning rate does after the warm-up
    #[arg(long, value_enum, default_value_t = Decay::Constant, value_name = "S")]
    pub(super) schedule: Decay,
    /// Steps of warm-up
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) warmup: u64,
    /// Largest norm of the gradient [default: no limit]
    #[arg(long, value_name = "X", value_parser = above_zero)]
    pub(super) clip: Option<f32>,
    /// Weight decay: decoupled for adamw and adafactor, added to the gradient for sgd
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = not_negative)]
    pub(super) weight_decay: f32,
    /// Seed of initialisation and order
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(super) seed: u64,
    /// Keep the order of the file in every epoch
    #[arg(long)]
    pub(super) no_shuffle: bool,
    /// Control experiment: give the training texts each other's labels
    #[arg(long, requires = "task")]
    pub(super) shuffle_labels: bool,
    /// Steps between evaluations on --dev [default: only at the end]
    #[arg(long, value_name = "N", requires = "dev", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) eval_every: Option<u64>,
    /// End the run after this many evaluations without gain
    #[arg(long, value_name = "N", requires = "eval_every", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) patience: Option<u64>,
    /// Compute activations again on the way back instead of keeping them: less memory, more time, the same bits
    #[arg(long)]
    pub(super) recompute: bool,
    /// Steps between savings of the training state [default: 10; with --method full 500, as it is three times the model]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) save_every: Option<u64>,
    /// Keep no training state: less disk, but the run cannot be continued
    #[arg(long, conflicts_with_all = ["save_every", "resume"])]
    pub(super) no_state: bool,
    /// Go on with the run in --out
    #[arg(long, conflicts_with = "overwrite")]
    pub(super) resume: bool,
    /// Replace a run in --out
    #[arg(long)]
    pub(super) overwrite: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Method {
    /// Vectors among the token embeddings
    Soft,
    /// Keys and values in every layer
    Prefix,
    /// Vectors made by a small network
    PTuning,
    /// The model's own weights, or some of them
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum EncoderKind {
    /// Three linear layers
    Mlp,
    /// A bidirectional LSTM, then two linear layers
    Lstm,
}

fn not_negative(text: &str) -> std::result::Result<f32, String> {
    let number = text.parse().ok().filter(|x: &f32| x.is_finite() && *x >= 0.0);
    number.ok_or_else(|| "a number that is not negative is needed".into())
}

fn above_zero(text: &str) -> std::result::Result<f32, String> {
    not_negative(text).ok().filter(|&x| x > 0.0).ok_or_else(|| "a number above 0 is needed".into())
}

impl TrainArgs {
    /// That every option has something to do.
    fn check_idle(&self) -> Result<()> {
        let is_lstm = self.method == Method::PTuning && self.encoder == Some(EncoderKind::Lstm);
        let has_network = self.method == Method::PTuning || self.prefix_projection;
        let idle = [
            ("--encoder", self.encoder.is_some() && self.method != Method::PTuning),
            ("--encoder-layers", self.encoder_layers.is_some() && !is_lstm),
            ("--encoder-hidden", self.encoder_hidden.is_some() && !has_network),
            ("--prefix-projection", self.prefix_projection && self.method != Method::Prefix),
            ("--head", self.head && self.method != Method::Full),
            ("--weights", self.weights.is_some() && self.method != Method::Full),
            ("--weights head", self.weights.as_ref().is_some_and(Selection::is_head) && !self.head),
            ("--save-dtype", self.save_dtype.is_some() && self.method != Method::Full),
            ("--init", self.init.is_some() && self.method == Method::Full),
            ("--prompt-length", self.prompt_length.is_some() && self.method == Method::Full),
        ];
        match idle.into_iter().find(|(_, idle)| *idle) {
            None => Ok(()),
            Some((flag, _)) => Err(Error::Input(format!(
                "{flag} does nothing here: --encoder and --encoder-hidden go with --method p-tuning, --encoder-layers with \
                 --encoder lstm, --prefix-projection (and --encoder-hidden) with --method prefix, --head, --weights and \
                 --save-dtype with --method full, --weights head with --head, --init and --prompt-length with the others"
            ))),
        }
    }

    /// What is trained, on a model of this width.
    fn method(&self, d_model: usize) -> prompt_encoder::Method {
        let hidden = self.encoder_hidden.map_or(d_model, |n| n as usize);
        match (self.method, self.encoder.unwrap_or(EncoderKind::Mlp)) {
            (Method::Soft, _) => prompt_encoder::Method::Soft,
            (Method::PTuning, EncoderKind::Mlp) => prompt_encoder::Method::Mlp { hidden },
            (Method::PTuning, EncoderKind::Lstm) => {
                let layers = self.encoder_layers.unwrap_or(2) as usize;
                prompt_encoder::Method::Lstm { hidden, layers }
            }
            (Method::Prefix, _) if self.prefix_projection => {
                prompt_encoder::Method::ProjectedPrefix { hidden }
            }
            (Method::Prefix, _) => prompt_encoder::Method::Prefix,
            // there is no prompt
            (Method::Full, _) => prompt_encoder::Method::default(),
        }
    }

    /// Virtual tokens of a prompt whose template does not say how many it has.
    pub(super) fn n_virtual_tokens(&self) -> usize {
        self.prompt_length.map_or(DEFAULT_PROMPT_LENGTH, |n| n as usize)
    }

    /// That a model can be trained so: it has the weights, or a place for the prompt, that these arguments name.
    pub(super) fn check_model(&self, model: &LanguageModel) -> Result<()> {
        if self.method == Method::Prefix {
            return Ok(model.check_prefix()?);
        }
        if self.method != Method::Full {
            return Ok(());
        }
        let selection = self.weights.clone().unwrap_or_default();
        match self.head {
            false => selection.names(model).map(|_| ()),
            true => {
                let labels = ["a", "b"].map(String::from);
                selection.names(&head::on(model, &labels, self.seed)?).map(|_| ())
            }
        }
    }

    fn lr(&self, optimizer: optimizer::Kind) -> f32 {
        let (of_prompts, of_weights) = match optimizer {
            optimizer::Kind::Adamw => (0.003, 5e-5),
            optimizer::Kind::Adafactor => (0.3, 1e-3),
            optimizer::Kind::Sgd => (0.1, 0.01),
        };
        self.lr.unwrap_or(if self.method == Method::Full { of_weights } else { of_prompts })
    }

    fn settings(&self, n_examples: usize, family: Family, method: prompt_encoder::Method) -> Settings {
        let optimizer = self.optimizer.unwrap_or(match family {
            Family::Seq2Seq => optimizer::Kind::Adafactor,
            Family::Causal | Family::Masked => optimizer::Kind::Adamw,
        });
        let steps_per_epoch = n_examples.div_ceil(self.batch.saturating_mul(self.accumulate)) as u64;
        Settings {
            steps: self.steps.unwrap_or(steps_per_epoch.saturating_mul(self.epochs.unwrap_or(1))),
            batch: self.batch,
            accumulate: self.accumulate,
            optimizer,
            lr: self.lr(optimizer),
            schedule: self.schedule,
            warmup: self.warmup,
            clip: self.clip,
            weight_decay: self.weight_decay,
            seed: self.seed,
            shuffle: !self.no_shuffle,
            eval_every: self.eval_every,
            patience: self.patience,
            recompute: self.recompute,
            method,
            weights: (self.method == Method::Full).then(|| self.weights.clone().unwrap_or_default()),
        }
    }
}

pub(super) fn run(args: &TrainArgs) -> Result<ExitCode> {
    args.common.apply()?;
    args.check_idle()?;
    super::catch_interrupts();
    let mut inputs = Inputs::read(args)?;
    super::check_not_the_model(&args.out, &inputs.session.folder)?;
    let method = args.method(inputs.session.model.config().d_model);
    let settings = args.settings(inputs.rows.len(), inputs.session.model.family(), method);
    // whatever can fail does so before the folder is touched: --overwrite must not cost the old prompt
    let initial = inputs.initial(args, &settings)?;
    let mut folder = RunFolder::open(
        &args.out,
        &settings,
        &inputs.fingerprint(args),
        Existing::of(args.resume, args.overwrite),
    )?;
    let state = if args.resume { folder.load_state(&initial)? } else { None };
    let resumed_at = state.as_ref().map(|s| s.progress.step);
    let mut trainer = match state {
        Some(state) => Trainer::resume(&inputs.session.model, &inputs.rows, settings.clone(), state),
        None => Trainer::new(&inputs.session.model, &inputs.rows, settings.clone(), initial),
    };
    let cost = Cost::of(&inputs.session.model, &trainer.state().learner)?;
    let mut watch = Watch::new(args, &inputs, &mut folder, (&settings, cost));
    watch.begin(&inputs, trainer.state(), resumed_at);
    let start = Instant::now();
    let mut evaluate = inputs.evaluation(args);
    let ending = trainer.run(&mut watch, evaluate.as_deref_mut(), &INTERRUPTED)?;
    let done = watch.finish();
    // before a file is written, which takes memory of its own
    let peak_rss_bytes = memory::peak_rss_bytes();
    if ending == Ending::Interrupted {
        return Err(Error::Interrupted(format!(
            "interrupted after step {}; {}",
            trainer.state().progress.step,
            if args.no_state {
                "nothing is saved (--no-state)"
            } else {
                "everything is saved, continue with --resume"
            }
        )));
    }
    let progress = &trainer.state().progress;
    inputs.write(args, method, trainer.best(), progress.best_step.unwrap_or(progress.step))?;
    let picture = folder.draw(&inputs.title(), inputs.metric_name())?;
    let summary = json!({
        "steps": trainer.state().progress.step,
        "trained_numbers": trainer.state().learner.len(),
        "examples_per_s": done.examples as f64 / start.elapsed().as_secs_f64(),
        "seconds": done.seconds.iter().sum::<f64>(),
        "seconds_per_step": Spread::of(&done.seconds).map(|spread| spread.median),
        "flops": done.flops,
        "peak_rss_bytes": peak_rss_bytes,
        "dev": trainer.state().progress.best_metrics,
        "best_step": trainer.state().progress.best_step,
        "stopped_early": ending == Ending::StoppedEarly,
        "out": args.out,
    });
    if args.common.json {
        super::print_json(&summary)?;
    } else {
        report(&summary, trainer.state().progress.best_step)?;
        let what = if args.method == Method::Full { "model " } else { "prompt" };
        super::print_line(&format!("{what}   {}", args.out.display()))?;
        super::print_line(&format!("picture  {}", picture.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(summary: &serde_json::Value, best_step: Option<u64>) -> Result<()> {
    let rate = summary["examples_per_s"].as_f64().unwrap_or(0.0);
    let memory = summary["peak_rss_bytes"].as_u64().unwrap_or(0) as f64 / 1e6;
    super::print_line(&format!("{} steps, {rate:.1} examples/s, {memory:.0} MB at most", summary["steps"]))?;
    let (Some(dev), Some(best)) = (summary["dev"].as_object(), best_step) else { return Ok(()) };
    let numbers: Vec<String> =
        dev.iter().filter_map(|(name, value)| Some(format!("{name} {:.4}", value.as_f64()?))).collect();
    super::print_line(&format!("dev      {} (best, step {best})", numbers.join(", ")))
}
