//! Greedy generation: new tokens per second, beside what reading every weight once a token allows.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use kernels::testing::Rng;
use model::generate::Options;
use model::{Hooks, LanguageModel, Prompt, Source, generate};
use prompt_tuning::SoftPrompt;
use prompt_tuning::train::memory;
use serde::{Deserialize, Serialize};

use crate::ceilings::{Streams, Threads};
use crate::clock::Times;
use crate::data;
use crate::machine::Machine;
use crate::report::percent;

/// What to generate.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Rows that are continued at once.
    pub batch: usize,
    /// Virtual tokens in front of every row, random.
    pub prompt: usize,
    /// Random tokens of text of each row.
    pub text: usize,
    /// New tokens of each row, at least 2.
    pub new: usize,
    /// How often.
    pub repeats: usize,
}

/// What it took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GenerationRun {
    /// Where it ran.
    pub machine: Machine,
    /// Name of the model.
    pub model: String,
    /// Number format of its weights.
    pub dtype: String,
    /// What was generated.
    pub plan: Plan,
    /// Time of the first new token, which is that of reading prompt and text.
    pub first_token_s: f64,
    /// New tokens per second after the first of each row: best and median.
    pub tokens_per_s: [f64; 2],
    /// Bytes of weights that every new token needs, whatever the batch.
    pub weight_bytes: usize,
    /// Bytes per second of reading, best and median of rounds between the generations.
    pub read: [f64; 2],
    /// Most memory that the process had, the mapped weights included.
    pub peak_rss_bytes: Option<u64>,
}

/// Generates as `plan` says, from random tokens. The clock is read at the first and at the last new tokens: reading prompt and
/// text is not counted among the others.
///
/// # Errors
/// The model cannot be read, or does not take so many tokens.
pub fn run(folder: &Path, plan: Plan) -> Result<GenerationRun, String> {
    let model = LanguageModel::open(folder).map_err(|e| e.to_string())?;
    let config = model.config();
    let mut rng = Rng(1);
    let soft = (0..plan.prompt as u32).map(Source::Soft);
    let rows: Vec<Vec<Source>> = (0..plan.batch)
        .map(|_| {
            let text = (0..plan.text).map(|_| Source::Text(rng.below(config.vocab_size) as u32));
            soft.clone().chain(text.collect::<Vec<_>>()).collect()
        })
        .collect();
    let prompt = data::normals(1, plan.prompt * config.d_model, 0.02);
    let prompt = SoftPrompt::new(plan.prompt, config.d_model, prompt).constant();
    let time = || Timed::new(&model, &rows, &prompt, plan.new);
    let weight_bytes = weight_bytes(&model);
    let streams = Streams::new(weight_bytes, Threads::All);
    let [mut first, mut rest, mut read] = [(); 3].map(|()| Times::default());
    time()?;
    for _ in 0..plan.repeats {
        read.push(streams.measure().read.recip());
        let timed = time()?;
        first.push(timed.first);
        rest.push(timed.rest);
    }
    let after = (plan.batch * (plan.new - 1)) as f64;
    Ok(GenerationRun {
        machine: Machine::here(),
        model: config.name_or_path.clone(),
        dtype: model.embedding().dtype().to_string().to_lowercase(),
        plan,
        first_token_s: first.best(),
        tokens_per_s: [after / rest.best(), after / rest.median()],
        weight_bytes,
        read: [read.best().recip(), read.median().recip()],
        peak_rss_bytes: memory::peak_rss_bytes(),
    })
}

/// Seconds of one generation.
struct Timed {
    /// Until every row has its first new token.
    first: f64,
    /// From then until every row has its last.
    rest: f64,
}

impl Timed {
    fn new(
        model: &LanguageModel,
        rows: &[Vec<Source>],
        prompt: &Prompt,
        new: usize,
    ) -> Result<Timed, String> {
        let options = Options { max_new_tokens: new, ..Options::default() };
        let (mut tokens, mut first, mut all) = (0, 0.0, 0.0);
        let start = Instant::now();
        let mut clock = |_row: usize, _token: u32| {
            tokens += 1;
            all = start.elapsed().as_secs_f64();
            if tokens == rows.len() {
                first = all;
            }
        };
        let hooks = Hooks { on_token: Some(&mut clock), ..Hooks::default() };
        let made = generate(model, rows, Some(prompt), &options, hooks).map_err(|e| e.to_string())?;
        match made.iter().all(|row| row.tokens.len() == new) {
            true => Ok(Timed { first, rest: all - first }),
            false => Err("a row ended early: the context window is too short for so many tokens".into()),
        }
    }
}

/// All of the files, but for the embedding where the head is another matrix: a token needs one row of it.
fn weight_bytes(model: &LanguageModel) -> usize {
    let all: usize = model.checkpoint().files().iter().map(|file| file.bytes().len()).sum();
    let embedding = model.embedding();
    let untied = model.checkpoint().contains("lm_head.weight");
    all - if untied { embedding.dtype().bytes(embedding.elements().len()) } else { 0 }
}

impl GenerationRun {
    /// Tokens per second that reading the weights allows, best and median.
    pub fn bound(&self) -> [f64; 2] {
        self.read.map(|read| read * self.plan.batch as f64 / self.weight_bytes as f64)
    }

    /// Some runs as a Markdown table.
    pub fn markdown(runs: &[GenerationRun]) -> String {
        let mut out = runs.first().map_or(String::new(), |run| format!("{}.\n\n", run.machine.line()));
        out +=
            "| model | weights | batch | prompt | tokens/s (median) | of the bound by bandwidth (median) |\n";
        out += "|---|---|---|---|---|---|\n";
        for run in runs {
            let ([best, median], bound) = (run.tokens_per_s, run.bound());
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {best:.1} ({median:.1}) | {} ({}) |",
                run.model,
                run.dtype,
                run.plan.batch,
                run.plan.prompt,
                percent(best / bound[0]),
                percent(median / bound[1]),
            );
        }
        out
    }
}
