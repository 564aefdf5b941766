//! Training against torch: the losses of ten steps, the prompt after them, and what must not change.

mod fixture;

use std::sync::atomic::AtomicBool;

use autograd::Tape;
use kernels::matmul::Precision;
use kernels::testing::{Tolerance, close};
use model::{LanguageModel, PackedBatch, Prediction, Prompt, Row};
use prompt_tuning::error::Result;
use prompt_tuning::train::optimizer::Kind;
use prompt_tuning::train::state::State;
use prompt_tuning::train::{DevReport, Ending, Observer, Settings, StepReport, Trainer};
use prompt_tuning::{Learner, evaluate};
use sha2::{Digest, Sha256};

fn settings(optimizer: Kind, lr: f32, batch: usize) -> Settings {
    Settings { steps: 10, batch, optimizer, lr, shuffle: false, ..Settings::default() }
}

#[test]
fn ten_steps_of_every_optimizer_are_those_of_torch() {
    let mut wrong = Vec::new();
    for name in fixture::ALL {
        let model = LanguageModel::open(&fixture::model_path(name)).expect("a model");
        let (rows, expected) = (fixture::rows(name), fixture::expected(name));
        for (kind, key) in [(Kind::Adamw, "adamw"), (Kind::Sgd, "sgd"), (Kind::Adafactor, "adafactor")] {
            let lr = expected["optimizers"][key]["lr"].as_f64().expect("a recorded learning rate") as f32;
            let mut trainer =
                Trainer::new(&model, &rows, settings(kind, lr, rows.len()), fixture::initial_prompt(name));
            let losses: Vec<f64> = (0..10).map(|_| trainer.step().expect("a step").loss).collect();
            let recorded: Vec<f64> = expected["losses"][key]
                .as_array()
                .expect("losses")
                .iter()
                .filter_map(|x| x.as_f64())
                .collect();
            let prompt = fixture::tensor(name, &format!("{key}.prompt"));
            let checks = [
                close(&losses, &recorded, Tolerance::both(1e-4)),
                close(
                    &trainer.state().learner.prompt().expect("a prompt").values,
                    &prompt,
                    Tolerance::both(1e-4),
                ),
            ];
            wrong.extend(checks.into_iter().filter_map(|c| c.err()).map(|e| format!("{name}, {key}: {e}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn accumulated_batches_make_the_step_of_one_large_batch() {
    let model = LanguageModel::open(&fixture::model_path("llama-gqa-tied-bf16")).expect("a model");
    let (rows, prompt) =
        (fixture::rows("llama-gqa-tied-bf16"), fixture::initial_prompt("llama-gqa-tied-bf16"));
    let large = settings(Kind::Sgd, 0.1, rows.len());
    let small = Settings { batch: 2, accumulate: rows.len().div_ceil(2), ..large.clone() };
    let run = |settings: Settings| {
        let mut trainer = Trainer::new(&model, &rows, settings, prompt.clone());
        let loss = trainer.step().expect("a step").loss;
        (loss, trainer.state().learner.prompt().expect("a prompt").values.clone())
    };
    let ((loss_a, a), (loss_b, b)) = (run(large), run(small));
    close(&[loss_a], &[loss_b], Tolerance::both(1e-6)).expect("the same loss");
    close(&a, &b, Tolerance::both(1e-6)).expect("the same prompt");
}

/// Log-probabilities of the batch without any prompt.
fn base_log_probs(model: &LanguageModel, rows: &[Row], n_soft: usize) -> Vec<Vec<f32>> {
    let bare: Vec<Row> = rows
        .iter()
        .map(|row| Row {
            tokens: row.tokens[n_soft..].to_vec(),
            scored: row.scored.iter().map(|p| Prediction { at: p.at - n_soft, ..*p }).collect(),
            ..row.clone()
        })
        .collect();
    evaluate::token_log_probs(model, None, &bare)
}

#[test]
fn only_the_prompt_changes() {
    let name = "gpt2-tied-f32";
    let file = fixture::folder(name).join("model.safetensors");
    let hash = || Sha256::digest(std::fs::read(&file).expect("the checkpoint"));
    let model = LanguageModel::open(&fixture::model_path(name)).expect("a model");
    let (rows, prompt) = (fixture::rows(name), fixture::initial_prompt(name));
    let (before, base) = (hash(), base_log_probs(&model, &rows, prompt.n_tokens));

    let mut trainer = Trainer::new(&model, &rows, settings(Kind::Adamw, 0.01, rows.len()), prompt.clone());
    for _ in 0..5 {
        trainer.step().expect("a step");
    }
    assert_ne!(trainer.state().learner.prompt().expect("a prompt"), prompt);

    assert_eq!(hash(), before, "the checkpoint was written to");
    assert_eq!(
        base_log_probs(&model, &rows, prompt.n_tokens),
        base,
        "without its prompt the model is the base model"
    );
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let path = file.canonicalize().expect("a path");
    let lines: Vec<&str> = maps.lines().filter(|l| l.ends_with(&*path.to_string_lossy())).collect();
    assert!(!cfg!(target_os = "linux") || !lines.is_empty(), "the checkpoint is mapped");
    for line in lines {
        let permissions = line.split_whitespace().nth(1).unwrap_or_default();
        assert!(permissions.starts_with("r--"), "the map is not read-only: {line}");
    }
}

#[test]
fn gradients_and_losses_have_the_same_bits_for_any_number_of_threads() {
    for name in ["gpt2-square", "llama-untied-sharded-f32", "t5-v1.1-gated-bf16", "bert-english"] {
        let model = LanguageModel::open(&fixture::model_path(name)).expect("a model");
        let (rows, prompt) = (fixture::rows(name), fixture::initial_prompt(name));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| {
                let tape = Tape::new();
                let leaf = tape.leaf(&[prompt.n_tokens, prompt.d_model], prompt.values.clone());
                let prompt = Prompt::Soft(leaf.clone());
                let scored =
                    model.score(&tape, &PackedBatch::from_rows(model.family(), &rows), Some(&prompt));
                let grad = tape.backward(&scored.loss).take(&leaf).f32s().to_vec();
                (scored.log_probs, grad)
            })
        };
        let one = run(1);
        assert!(one.1.iter().any(|&g| g != 0.0));
        assert_eq!(one, run(2), "{name}: 2 threads");
        assert_eq!(one, run(5), "{name}: 5 threads");
    }
}

#[test]
fn recomputing_changes_no_bit() {
    for name in fixture::ALL {
        let model = LanguageModel::open(&fixture::model_path(name)).expect("a model");
        let rows = fixture::rows(name);
        let run = |recompute: bool| {
            let settings = Settings { recompute, ..settings(Kind::Sgd, 0.1, rows.len()) };
            let mut trainer = Trainer::new(&model, &rows, settings, fixture::initial_prompt(name));
            let step = |_| trainer.step().map(|report| (report.loss.to_bits(), report.grad_norm.to_bits()));
            let steps: Vec<_> = (0..4).map(step).collect::<Result<_>>().expect("steps");
            (
                steps,
                trainer
                    .state()
                    .learner
                    .prompt()
                    .expect("a prompt")
                    .values
                    .iter()
                    .map(|x| x.to_bits())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(run(false), run(true), "{name}");
    }
}

/// In bf16 the losses of the fixtures are those of f32 to two digits or more, and not the same.
#[test]
fn bf16_precision_trains_nearly_as_f32_does() {
    for name in fixture::ALL {
        let mut model = LanguageModel::open(&fixture::model_path(name)).expect("a model");
        let rows = fixture::rows(name);
        let mut losses = |precision: Precision| {
            model.set_precision(precision);
            let settings = settings(Kind::Sgd, 0.1, rows.len());
            let mut trainer = Trainer::new(&model, &rows, settings, fixture::initial_prompt(name));
            (0..5).map(|_| trainer.step().expect("a step").loss).collect::<Vec<f64>>()
        };
        let (exact, rounded) = (losses(Precision::F32), losses(Precision::Bf16));
        assert_ne!(exact, rounded, "{name}");
        close(&rounded, &exact, Tolerance { absolute: 0.0, relative: 0.01 }).expect(name);
        assert_eq!(exact, losses(Precision::F32), "{name}: and back");
    }
}

/// Keeps the evaluations; saves nothing.
#[derive(Default)]
struct Silent {
    evaluations: Vec<(u64, bool)>,
}

impl Observer for Silent {
    fn step(&mut self, _: &StepReport) -> Result<()> {
        Ok(())
    }
    fn evaluated(&mut self, report: &DevReport, improved: bool, _: &Learner) -> Result<()> {
        self.evaluations.push((report.step, improved));
        Ok(())
    }
    fn checkpoint(&mut self, _: &State, _: bool) -> Result<()> {
        Ok(())
    }
}

#[test]
fn early_stopping_keeps_the_best_prompt() {
    let name = "gpt2-tied-f32";
    let model = LanguageModel::open(&fixture::model_path(name)).expect("a model");
    let rows = fixture::rows(name);
    let settings = Settings {
        steps: 100,
        eval_every: Some(2),
        patience: Some(3),
        ..settings(Kind::Adamw, 0.01, rows.len())
    };
    let mut trainer = Trainer::new(&model, &rows, settings, fixture::initial_prompt(name));
    // dev gets better until step 4, then never again
    let scores = [0.1, 0.5, 0.5, 0.3, 0.2];
    let mut seen = Vec::new();
    let mut evaluate = |step: u64, learner: &Learner| {
        let prompt = &learner.prompt().expect("a prompt");
        seen.push(prompt.clone());
        Ok(DevReport { step, score: scores[step as usize / 2 - 1], metrics: serde_json::Map::new() })
    };
    let mut silent = Silent::default();
    let ending = trainer.run(&mut silent, Some(&mut evaluate), &AtomicBool::new(false)).expect("a run");
    assert_eq!(ending, Ending::StoppedEarly);
    assert_eq!(silent.evaluations, [(2, true), (4, true), (6, false), (8, false), (10, false)]);
    assert_eq!(trainer.best().prompt().expect("a prompt"), seen[1]);
    assert_ne!(
        trainer.best().prompt().expect("a prompt"),
        trainer.state().learner.prompt().expect("a prompt")
    );
}

#[test]
fn a_run_can_be_interrupted() {
    let name = "gpt2-tied-f32";
    let model = LanguageModel::open(&fixture::model_path(name)).expect("a model");
    let rows = fixture::rows(name);
    let mut trainer = Trainer::new(&model, &rows, settings(Kind::Sgd, 0.1, 2), fixture::initial_prompt(name));
    let ending = trainer.run(&mut Silent::default(), None, &AtomicBool::new(true)).expect("a run");
    assert_eq!((ending, trainer.state().progress.step), (Ending::Interrupted, 0));
}
