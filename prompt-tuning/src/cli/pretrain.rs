//! `pretrain`: a tokenizer and a small language model from nothing but text, or more text for a model that exists.
//!
//! A model of random weights is made first, unless one is given, and then all of its weights are trained as `train --method full`
//! trains those of any model. Only the examples differ: blocks of text in which every token, or every masked one, is scored.

mod material;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::json;

use self::material::Material;
use self::watch::Watch;
use super::{Common, INTERRUPTED};
use crate::checkpoint_folder::{self, SaveDtype};
use crate::error::{Error, Result};
use crate::evaluate::{self, Examinee};
use crate::learner::Learner;
use crate::pretrain::initial;
use crate::pretrain::tokenizer::Kind;
use crate::train::cost::Cost;
use crate::train::run_folder::{Existing, RunFolder};
use crate::train::schedule::Decay;
use crate::train::{DevReport, Ending, Settings, Trainer, memory};
use crate::trained_weights::{Selection, TrainedWeights};

/// Arguments of `pretrain`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    prompt-tuning pretrain --text corpus.jsonl --out models/small --layers 6 --d-model 192 --heads 6 \\\n    \
    --steps 3000 --batch 16 --context 128 --eval-every 500 --save-dtype bf16")]
pub(super) struct PretrainArgs {
    /// Text: .txt files (documents between blank lines), .jsonl files with a field \"text\", or folders of them
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    text: Vec<PathBuf>,
    /// Folder for the model, metrics.jsonl, the training state and a picture
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Go on from this model, with its tokenizer and its shape, instead of from nothing; its file is only read
    #[arg(
        long,
        value_name = "M",
        conflicts_with_all = ["architecture", "vocab_size", "d_model", "layers", "heads", "d_ff"]
    )]
    model: Option<String>,
    /// gpt2: causal; bert: masked
    #[arg(long, value_enum, default_value_t = Architecture::Gpt2, value_name = "A")]
    architecture: Architecture,
    /// Tokens of the vocabulary that is learnt from the text
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = super::positive)]
    vocab_size: usize,
    /// Context window of a new model, and the length of a block of text
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(8..))]
    context: u16,
    /// Width of the model
    #[arg(long, value_name = "N", default_value_t = 192, value_parser = super::positive)]
    d_model: usize,
    /// Layers
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = super::positive)]
    layers: usize,
    /// Attention heads
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = super::positive)]
    heads: usize,
    /// Inner width of the MLP [default: four times the width]
    #[arg(long, value_name = "N", value_parser = super::positive)]
    d_ff: Option<usize>,
    /// Share of the documents that is kept for validation
    #[arg(long, value_name = "X", default_value_t = 0.01)]
    valid_fraction: f64,
    /// Share of the tokens that a masked model is asked for in training; validation always asks for 15 % [default: 0.15]
    #[arg(long, value_name = "X", value_parser = share)]
    mask_probability: Option<f64>,
    /// Optimizer steps
    #[arg(long, value_name = "N")]
    steps: u64,
    /// Blocks of text computed at one time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = super::positive)]
    batch: usize,
    /// Batches whose gradients make one step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::positive)]
    accumulate: usize,
    /// Largest learning rate of AdamW
    #[arg(long, value_name = "X", default_value_t = 0.001)]
    lr: f32,
    /// What the learning rate does after the warm-up
    #[arg(long, value_enum, default_value_t = Decay::Cosine, value_name = "S")]
    schedule: Decay,
    /// Steps of warm-up
    #[arg(long, value_name = "N", default_value_t = 100)]
    warmup: u64,
    /// Weight decay of the matrices
    #[arg(long, value_name = "X", default_value_t = 0.1)]
    weight_decay: f32,
    /// Largest norm of the gradient
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    clip: f32,
    /// Seed of weights, order and masks
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Steps between evaluations on the validation text [default: only at the end]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    eval_every: Option<u64>,
    /// Steps between savings of the training state
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    save_every: u64,
    /// Number format of the model that is written
    #[arg(long, value_enum, default_value_t = SaveDtype::F32, value_name = "DTYPE")]
    save_dtype: SaveDtype,
    /// Compute activations again on the way back instead of keeping them: less memory, more time, the same bits
    #[arg(long)]
    recompute: bool,
    /// Go on with the run in --out
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Replace a run in --out
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Architecture {
    Gpt2,
    Bert,
}

fn share(text: &str) -> std::result::Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or("it is a number between 0 and 1".to_string())
}

impl PretrainArgs {
    fn kind(&self) -> Kind {
        match self.architecture {
            Architecture::Gpt2 => Kind::Causal,
            Architecture::Bert => Kind::Masked,
        }
    }

    /// The shape of the model with a tokenizer of so many tokens.
    fn shape(&self, vocab_size: usize) -> initial::Shape {
        initial::Shape {
            architecture: match self.architecture {
                Architecture::Gpt2 => initial::Architecture::Gpt2,
                Architecture::Bert => initial::Architecture::Bert,
            },
            vocab_size,
            n_positions: self.context.into(),
            d_model: self.d_model,
            n_layers: self.layers,
            n_heads: self.heads,
            d_ff: self.d_ff.unwrap_or(4 * self.d_model),
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            steps: self.steps,
            batch: self.batch,
            accumulate: self.accumulate,
            lr: self.lr,
            schedule: self.schedule,
            warmup: self.warmup,
            clip: Some(self.clip),
            weight_decay: self.weight_decay,
            seed: self.seed,
            eval_every: self.eval_every,
            recompute: self.recompute,
            weights: Some(Selection::default()),
            ..Settings::default()
        }
    }
}

pub(super) fn run(args: &PretrainArgs) -> Result<ExitCode> {
    args.common.apply()?;
    super::catch_interrupts();
    let material = Material::read(args)?;
    let (settings, model) = (args.settings(), &material.model);
    let initial: Learner = TrainedWeights::of(model, &Selection::default())?.into();
    super::check_not_the_model(&args.out, &material.folder)?;
    let mut folder = RunFolder::open(
        &args.out,
        &settings,
        &material.fingerprint(),
        Existing::of(args.resume, args.overwrite),
    )?;
    let state = if args.resume { folder.load_state(&initial)? } else { None };
    let mut trainer = match state {
        Some(state) => Trainer::resume(model, &*material.examples, settings.clone(), state),
        None => Trainer::new(model, &*material.examples, settings.clone(), initial),
    };
    let first = trainer.state().progress.step;
    let mut watch = Watch::new(args, &material, &mut folder);
    watch.begin(first, trainer.state().learner.len());
    let start = Instant::now();
    let mut evaluate = |step, learner: &Learner| Ok(valid(&material, learner, (step, args.batch)));
    let ending = trainer.run(&mut watch, Some(&mut evaluate), &INTERRUPTED)?;
    let done = watch.finish();
    let progress = &trainer.state().progress;
    if ending == Ending::Interrupted {
        return Err(Error::Interrupted(format!(
            "interrupted after step {}; everything is saved, continue with --resume",
            progress.step
        )));
    }
    if let Learner::Weights(weights) = trainer.best() {
        checkpoint_folder::write(&args.out, (&material.folder, model), weights, args.save_dtype)?;
    }
    let picture = folder.draw(&format!("pretraining {}", args.out.display()), "loss")?;
    let seconds = start.elapsed().as_secs_f64();
    let cost = Cost::of(model, &trainer.state().learner)?;
    let flops =
        cost.flops(done.tokens, done.scored_tokens) + material.scores_per_token() * done.tokens as f64;
    let summary = json!({
        "steps": progress.step,
        "parameters": trainer.state().learner.len(),
        "tokens_per_s": done.tokens as f64 / seconds,
        "gflop_per_s": flops / seconds / 1e9,
        "peak_rss_bytes": memory::peak_rss_bytes(),
        "valid": progress.best_metrics,
        "best_step": progress.best_step,
        "out": args.out,
    });
    if args.common.json {
        super::print_json(&summary)?;
    } else {
        let number = |key: &str| summary[key].as_f64().unwrap_or(f64::NAN);
        super::print_line(&format!(
            "{} steps, {:.0} tokens/s ({:.0} GFLOP/s, validation included), perplexity {:.2} on validation text",
            progress.step,
            number("tokens_per_s"),
            number("gflop_per_s"),
            summary["valid"]["perplexity"].as_f64().unwrap_or(f64::NAN),
        ))?;
        super::print_line(&format!("model    {}", args.out.display()))?;
        super::print_line(&format!("picture  {}", picture.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Loss and perplexity on the validation text.
fn valid(material: &Material, learner: &Learner, (step, batch): (u64, usize)) -> DevReport {
    let adapted = learner.adapted(&material.model);
    let examinee = Examinee { model: &adapted.model, prompt: None, tokenizer: None, batch };
    let loss = evaluate::mean_loss(&material.valid, examinee);
    let metrics = [("loss".into(), loss.into()), ("perplexity".into(), loss.exp().into())];
    DevReport { step, score: -loss, metrics: serde_json::Map::from_iter(metrics) }
}
