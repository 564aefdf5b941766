//! A whole training step: its arithmetic counted, its time measured.

pub mod count;
pub mod report;
pub mod shape;

use std::path::Path;

use model::{Config, LanguageModel};
use model::{PackedBatch, Row};
use prompt_tuning::SoftPrompt;
use prompt_tuning::data::read_pairs;
use prompt_tuning::encode::{PairEncoder, Reader};
use prompt_tuning::train::batches::Batches;
use prompt_tuning::train::{Examples, Settings, Trainer, memory};
use tensor::Device;

use crate::ceilings::{Arithmetic, Threads, operations_per_second};
use crate::data;
use crate::machine::Machine;
use report::{Step, StepRun};

/// How to step.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Virtual tokens.
    pub prompt: usize,
    /// Examples of a step.
    pub batch: usize,
    /// Steps that are measured, after one that is not.
    pub steps: usize,
}

/// Rows of raw token ids, as [`shape::write`] writes them, behind `prompt` soft tokens.
///
/// # Errors
/// The file cannot be read, or its rows do not fit the model.
pub fn rows(file: &Path, config: &Config, prompt: usize) -> Result<Vec<Row>, String> {
    let encoder = PairEncoder { tokenizer: None, n_soft: prompt, reader: Reader::of(config) };
    read_pairs(file).and_then(|pairs| encoder.rows(&pairs)).map_err(|e| e.to_string())
}

/// A training run through the library, from a random prompt, in the order of the file.
pub fn trainer<'a>(model: &'a LanguageModel, rows: &'a dyn Examples, plan: Plan) -> Trainer<'a> {
    let d_model = model.config().d_model;
    let prompt = SoftPrompt::new(plan.prompt, d_model, data::normals(1, plan.prompt * d_model, 0.02));
    let settings = Settings {
        steps: 1 + plan.steps as u64,
        batch: plan.batch,
        lr: 1e-3,
        shuffle: false,
        ..Settings::default()
    };
    Trainer::new(model, rows, settings, prompt)
}

/// Takes the steps of `plan` on a device. On the CPU, the peak of the arithmetic is measured before each of them.
///
/// # Errors
/// The model or its rows cannot be read, or the loss is not finite.
pub fn run(folder: &Path, rows_file: &Path, plan: Plan, device: Device) -> Result<StepRun, String> {
    let model = LanguageModel::open_on(folder, device).map_err(|e| e.to_string())?;
    let rows = rows(rows_file, model.config(), plan.prompt)?;
    let mut trainer = trainer(&model, &rows, plan);
    let mut batches = Batches::new(rows.len(), plan.batch, None);
    let isa = kernels::Isa::best();
    let mut steps = Vec::new();
    for step in 0..=plan.steps {
        let batch: Vec<Row> = batches.at(step as u64).iter().map(|&i| rows[i].clone()).collect();
        let flops = count::step(model.config(), &PackedBatch::from_rows(model.family(), &batch));
        let peak = || operations_per_second(isa, Arithmetic::F32, Threads::All).unwrap_or(0.0);
        let peak = if device == Device::Cpu { peak() } else { 0.0 };
        let done = trainer.step().map_err(|e| e.to_string())?;
        // the first step reads the weights from the file
        if step > 0 {
            steps.push(Step {
                seconds: done.seconds,
                examples: done.examples,
                tokens: done.tokens,
                computed_tokens: done.computed_tokens,
                loss: done.loss,
                gflop: flops / 1e9,
                peak_gflops: peak / 1e9,
            });
        }
    }
    Ok(StepRun {
        machine: Machine::here(),
        model: model.config().name_or_path.clone(),
        tier: if device == Device::Cpu { isa.name() } else { "cuda" }.into(),
        prompt: plan.prompt,
        batch: plan.batch,
        steps,
        peak_rss_bytes: memory::peak_rss_bytes(),
    })
}
