//! What a training run is made of: model, task, rows, the initial prompt and the dev evaluation.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::TrainArgs;
use crate::adapter::{Adapter, AdapterConfig, BaseModel, Provenance};
use crate::checkpoint_folder;
use crate::cli;
use crate::cli::session::{Session, check_prompt_length, task_for_prompt};
use crate::data::{self, Labels};
use crate::encode::TaskEncoder;
use crate::error::{Error, Result};
use crate::evaluate::{self, Exam};
use crate::head;
use crate::init::{Init, InitContext};
use crate::learner::Learner;
use crate::prompt_encoder::{Method, PromptEncoder};
use crate::rng::Rng;
use crate::soft_prompt::{Kind, SoftPrompt, Widths};
use crate::task::Task;
use crate::train::{DevReport, Evaluate, Settings};
use crate::trained_weights::TrainedWeights;
use model::{Family, Row, Source};

/// Virtual tokens when neither template nor `--prompt-length` says.
pub(in crate::cli) const DEFAULT_PROMPT_LENGTH: usize = 20;
/// Stream of the seed that permutes labels; other streams make the prompt and the order.
const LABELS_STREAM: u64 = 0x1abe1;

/// Everything that is read before training starts.
pub(super) struct Inputs {
    pub session: Session,
    pub task: Option<Task>,
    pub n_soft: usize,
    pub rows: Vec<Row>,
    init: Init,
    dev: Option<Dev>,
    /// The prompt before the first step, once it is known.
    start: Vec<f32>,
}

/// What the dev evaluation computes.
enum Dev {
    Task(Exam),
    Rows(Vec<Row>),
}

impl Inputs {
    pub(super) fn read(args: &TrainArgs) -> Result<Inputs> {
        let task = args.task.as_deref().map(Task::read).transpose()?;
        let init = args.init.as_deref().map(str::parse).transpose();
        let init = init.map_err(|e: String| Error::Input(format!("--init {e}")))?;
        let mut session = Session::open_any(&args.model, &args.common)?;
        put_head(args, &mut session, task.as_ref())?;
        if args.method == cli::train::Method::Prefix {
            session.model.check_prefix()?;
            let in_template = task.as_ref().and_then(|t| t.template.without_soft_prefix()).map(|(_, n)| n);
            let length = args.prompt_length.map(|n| n as usize).or(in_template);
            session.n_ahead = length.unwrap_or(DEFAULT_PROMPT_LENGTH);
            let n_positions = session.model.config().n_positions;
            if session.n_ahead >= n_positions {
                let n = session.n_ahead;
                return Err(Error::Input(format!(
                    "a prefix of {n} tokens leaves no room for text in the context window of {n_positions} tokens; use fewer"
                )));
            }
        }
        let init = init.unwrap_or_else(|| default_init(args, session.model.family()));
        match task {
            Some(task) => Inputs::of_task(args, session, task, init),
            None => Inputs::of_pairs(args, session, init),
        }
    }

    fn of_task(args: &TrainArgs, session: Session, task: Task, init: Init) -> Result<Inputs> {
        let length = args.prompt_length.map(|n| n as usize);
        let kind = if session.n_ahead > 0 { Kind::Prefix } else { Kind::Soft };
        let prompt = (args.method != cli::train::Method::Full)
            .then(|| (kind, length.unwrap_or(DEFAULT_PROMPT_LENGTH)));
        let task = task_for_prompt(task, prompt).map_err(|e| match prompt {
            None => Error::Input(format!(
                "the template of task `{}` has soft tokens, and --method full trains weights; use a template without",
                args.task.as_deref().unwrap_or(Path::new("")).display()
            )),
            Some(_) => e,
        })?;
        let encoder = session.task_encoder(&task)?;
        let n_soft = encoder.n_soft();
        if length.is_some_and(|length| length != n_soft + session.n_ahead) {
            return Err(Error::Input(format!(
                "--prompt-length {}: the template of `{}` has {n_soft} soft tokens; change one of the two",
                length.unwrap_or_default(),
                task.name
            )));
        }
        let mut examples = data::read_examples(&args.train, &task, Labels::Required)?;
        if args.shuffle_labels {
            let mut right: Vec<_> = examples.rows.iter().map(|e| (e.label, e.answer.clone())).collect();
            Rng::new(args.seed).fork(LABELS_STREAM).shuffle(&mut right);
            examples.rows.iter_mut().zip(right).for_each(|(e, right)| (e.label, e.answer) = right);
        }
        let rows = encoder.training_rows(&examples)?;
        let exam = |path| Exam::new(&encoder, &data::read_examples(path, &task, Labels::Required)?, |_| &[]);
        let dev = args.dev.as_deref().map(exam).transpose()?.map(Dev::Task);
        drop(encoder);
        Ok(Inputs { session, task: Some(task), n_soft, rows, init, dev, start: Vec::new() })
    }

    fn of_pairs(args: &TrainArgs, session: Session, init: Init) -> Result<Inputs> {
        let length = args.n_virtual_tokens();
        let n_soft = match args.method {
            cli::train::Method::Full => 0,
            _ => length - session.n_ahead,
        };
        let rows = session.pair_rows(&args.train, n_soft)?;
        let dev = args.dev.as_deref().map(|path| session.pair_rows(path, n_soft)).transpose()?.map(Dev::Rows);
        Ok(Inputs { session, task: None, n_soft, rows, init, dev, start: Vec::new() })
    }

    /// Virtual tokens, among the others or before them.
    pub(super) fn n_tokens(&self) -> usize {
        self.n_soft + self.session.n_ahead
    }

    /// What is trained, before the first step.
    pub(super) fn initial(&mut self, args: &TrainArgs, settings: &Settings) -> Result<Learner> {
        if let Some(selection) = &settings.weights {
            return Ok(TrainedWeights::of(&self.session.model, selection)?.into());
        }
        let encoder = self.first(args, settings.method)?;
        self.start = encoder.prompt().values;
        Ok(encoder.into())
    }

    /// Writes what was learned to the output folder, as it was after `steps` steps: an adapter, or a model.
    pub(super) fn write(
        &self,
        args: &TrainArgs,
        method: Method,
        learner: &Learner,
        steps: u64,
    ) -> Result<()> {
        match learner {
            Learner::Prompt(encoder) => self.adapter(args, method, encoder.prompt(), steps).write(&args.out),
            Learner::Weights(weights) => {
                let base = (self.session.folder.as_path(), &self.session.model);
                checkpoint_folder::write(&args.out, base, weights, args.save_dtype.unwrap_or_default())
            }
        }
    }

    fn first(&self, args: &TrainArgs, method: Method) -> Result<PromptEncoder> {
        let config = self.session.model.config();
        let (widths, n, seed) = (Widths::of(config), self.n_tokens(), args.seed);
        match method {
            Method::Prefix => {
                let table = match self.init.table(n, widths.prefix, seed) {
                    Some(table) => table,
                    None => self.prefix_like(self.initial_table(args)?)?,
                };
                Ok(PromptEncoder::new(method, table, widths.prefix, seed))
            }
            Method::ProjectedPrefix { .. } => {
                // as in PEFT: the table is as wide as the keys of a layer
                let is_zero = self.init == Init::Zero;
                let init = if is_zero { &Init::Normal(1.0) } else { &self.init };
                let table = init.table(n, config.prefix_width(), seed).ok_or_else(|| {
                    let why = "--prefix-projection starts from numbers, not from words: use --init normal:1, random:X or zero";
                    Error::Input(why.into())
                })?;
                let mut encoder = PromptEncoder::new(method, table, widths.prefix, seed);
                if is_zero {
                    encoder.zero_output();
                }
                Ok(encoder)
            }
            Method::Soft | Method::Mlp { .. } | Method::Lstm { .. } => {
                let table = self.initial_table(args)?;
                if table.kind == Kind::Prefix {
                    let why = format!("--init {}: it is a prefix; train it with --method prefix", self.init);
                    return Err(Error::Input(why));
                }
                Ok(PromptEncoder::new(method, table, widths.d_model, seed))
            }
        }
    }

    /// Keys and values that the model computes for the vectors of a soft prompt: a prefix that does what they would do.
    fn prefix_like(&self, prompt: SoftPrompt) -> Result<SoftPrompt> {
        if prompt.kind == Kind::Prefix {
            return Ok(prompt);
        }
        let prefix = self.session.model.prefix_like(&prompt.constant()).map_err(Error::from)?;
        let (n, width) = (prefix.rows(), prefix.width());
        Ok(SoftPrompt { kind: Kind::Prefix, ..SoftPrompt::new(n, width, prefix.f32s().to_vec()) })
    }

    fn initial_table(&self, args: &TrainArgs) -> Result<SoftPrompt> {
        let encoder = self.task.as_ref().map(|task| self.session.task_encoder(task)).transpose()?;
        let prompt = self.init.build(&InitContext {
            n_tokens: self.n_tokens(),
            widths: Widths::of(self.session.model.config()),
            embeddings: self.session.model.embedding(),
            tokenizer: self.session.encode(),
            answers: &encoder.as_ref().map_or_else(Vec::new, TaskEncoder::label_tokens),
            words: &encoder.as_ref().map_or_else(Vec::new, TaskEncoder::soft_words),
            seed: args.seed,
        })?;
        if let Some(encoder) = encoder.as_ref().filter(|_| self.session.n_ahead == 0) {
            check_prompt_length(encoder, Some(&prompt))?;
        }
        Ok(prompt)
    }

    /// Names model, initialisation, training rows and what is evaluated: a resumed run must have the same.
    pub(super) fn fingerprint(&self, args: &TrainArgs) -> String {
        let mut hash = Sha256::new();
        hash.update(self.session.model.fingerprint());
        hash.update(self.init.to_string());
        hash.update((self.session.n_ahead as u64).to_le_bytes());
        self.session.model.config().labels.iter().flatten().for_each(|label| hash.update(label));
        hash.update(args.common.arithmetic()); // other numbers at every step
        self.rows.iter().for_each(|row| hash_row(&mut hash, row));
        hash.update(self.metric_name());
        match &self.dev {
            None => hash.update("no dev"),
            Some(Dev::Rows(rows)) => rows.iter().for_each(|row| hash_row(&mut hash, row)),
            Some(Dev::Task(exam)) => {
                if let Some(task) = &self.task {
                    task.labels().iter().for_each(|label| hash.update(&label.name));
                    hash.update(format!("{:?}", task.scoring));
                }
                hash_exam(&mut hash, exam);
            }
        }
        format!("{:x}", hash.finalize())
    }

    /// The number that is evaluated on dev.
    pub(super) fn metric_name(&self) -> &'static str {
        self.task.as_ref().map_or("loss", |task| task.metric.name())
    }

    /// What the picture shows.
    pub(super) fn title(&self) -> String {
        let model = self
            .session
            .folder
            .file_name()
            .map_or(self.session.name.as_str().into(), |n| n.to_string_lossy());
        let task = self.task.as_ref().map_or("prompt tuning", |t| &t.name);
        let what = match self.n_tokens() {
            0 => "weights".into(),
            n => format!("{n} virtual tokens"),
        };
        format!("{task} on {model}: {what}, {} examples", self.rows.len())
    }

    /// The adapter folder's content for `prompt`, made by `steps` steps of `method`.
    fn adapter(&self, args: &TrainArgs, method: Method, prompt: SoftPrompt, steps: u64) -> Adapter {
        let config = self.session.model.config();
        let base = BaseModel::of(config, &self.session.name);
        let provenance = Provenance {
            version: env!("CARGO_PKG_VERSION").into(),
            model: self.session.name.clone(),
            model_fingerprint: self.session.model.fingerprint(),
            task: self.task.as_ref().map(|t| t.name.clone()),
            template: self.task.as_ref().map(|t| t.template.source().to_string()),
            init: self.init.to_string(),
            seed: args.seed,
            steps,
        };
        let config = AdapterConfig::new(prompt.n_tokens, &base, method, self.init.peft());
        // PEFT makes rows for the decoder of an encoder-decoder that no training changes
        let unread = if config.n_rows() > prompt.n_tokens { self.start.clone() } else { Vec::new() };
        Adapter { config, prompt, unread, provenance: Some(provenance) }
    }

    /// The dev evaluation, if there is dev data.
    pub(super) fn evaluation(&self, args: &TrainArgs) -> Option<Box<Evaluate<'_>>> {
        let batch = args.batch;
        match self.dev.as_ref()? {
            Dev::Task(exam) => {
                let task = self.task.as_ref()?;
                Some(Box::new(move |step, learner| self.examine(step, learner, (task, exam), batch)))
            }
            Dev::Rows(rows) => {
                Some(Box::new(move |step, learner| self.evaluate_rows(step, learner, rows, batch)))
            }
        }
    }

    fn examine(
        &self,
        step: u64,
        learner: &Learner,
        (task, exam): (&Task, &Exam),
        batch: usize,
    ) -> Result<DevReport> {
        let adapted = learner.adapted(&self.session.model);
        let answered = exam.answered(task, self.session.examinee_of(&adapted, batch), |_| ())?;
        let metrics = exam.metrics(task, &answered);
        let metrics = metrics.ok_or_else(|| Error::Input("--dev has no labelled rows".into()))?;
        let score =
            metrics.get(self.metric_name()).and_then(serde_json::Value::as_f64).unwrap_or(f64::NEG_INFINITY);
        Ok(DevReport { step, score, metrics })
    }

    /// Without a task, dev says the mean loss of its completion tokens.
    fn evaluate_rows(&self, step: u64, learner: &Learner, rows: &[Row], batch: usize) -> Result<DevReport> {
        let adapted = learner.adapted(&self.session.model);
        let loss = evaluate::mean_loss(rows, self.session.examinee_of(&adapted, batch));
        let metrics =
            serde_json::Map::from_iter([("n".into(), rows.len().into()), ("loss".into(), loss.into())]);
        Ok(DevReport { step, score: -loss, metrics })
    }
}

/// A classifier if `--head` asks for one: that of the model, or a new one for the labels of the task.
fn put_head(args: &TrainArgs, session: &mut Session, task: Option<&Task>) -> Result<()> {
    let labels = session.model.config().labels.as_ref().map(Vec::len);
    match (args.head, labels) {
        (true, _) if task.is_none() => {
            return Err(Error::Input(
                "--head says which label of a task; give the task file with --task".into(),
            ));
        }
        (true, Some(_)) | (false, None) => {}
        (true, None) => {
            let labels = task.map_or(&[][..], Task::labels);
            let names: Vec<String> = labels.iter().map(|label| label.name.clone()).collect();
            session.model = head::on(&session.model, &names, args.seed)?;
        }
        (false, Some(n)) => {
            return Err(Error::Input(format!(
                "`{}` has a classifier of {n} labels, which needs none of the label words; go on training it with \
                 --method full --head",
                session.name
            )));
        }
    }
    Ok(())
}

/// Where a prompt starts when nobody says: from common words, or from numbers as PEFT's prefixes do where no words can be.
fn default_init(args: &TrainArgs, family: Family) -> Init {
    let is_prefix = args.method == cli::train::Method::Prefix;
    match is_prefix && (args.prefix_projection || family == Family::Seq2Seq) {
        true => Init::Normal(1.0),
        false => Init::default(),
    }
}

fn hash_exam(hash: &mut Sha256, exam: &Exam) {
    match exam {
        Exam::Labels(questions) => {
            for question in questions {
                hash.update(question.gold.map_or(u64::MAX, |gold| gold as u64).to_le_bytes());
                question.candidates.iter().for_each(|c| hash_row(hash, &c.row));
            }
        }
        Exam::Texts(questions) => {
            for question in questions {
                hash.update(question.gold.as_deref().unwrap_or("\0"));
                question.row.iter().for_each(|source| hash_source(hash, *source));
            }
        }
    }
}

fn hash_row(hash: &mut Sha256, row: &Row) {
    hash.update((row.encoder.len() as u64).to_le_bytes());
    row.sources().for_each(|source| hash_source(hash, source));
    for scored in &row.scored {
        hash.update((scored.at as u64).to_le_bytes());
        hash.update(scored.token.to_le_bytes());
    }
}

fn hash_source(hash: &mut Sha256, source: Source) {
    let (kind, id) = match source {
        Source::Text(id) => (0u8, id),
        Source::Soft(k) => (1, k),
    };
    hash.update([kind]);
    hash.update(id.to_le_bytes());
}
