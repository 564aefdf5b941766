//! What every command that computes begins with: the model, its tokenizer, the task, the prompt.

use std::path::{Path, PathBuf};

use model::{ChatTemplate, LanguageModel, Row, Tokenizer};

use clap::Args;

use super::Common;
use crate::adapter::{Adapter, BaseModel, ModelIdentity};
use crate::data;
use crate::encode::{Encode, PairEncoder, Reader, TaskEncoder};
use crate::error::{Error, Result};
use crate::evaluate::Examinee;
use crate::learner::Adapted;
use crate::soft_prompt::{Kind, SoftPrompt, Widths};
use crate::task::Task;
use crate::{hub, npy};

/// A model, and what may stand in front of its texts.
#[derive(Debug, Args)]
pub(super) struct PromptedModel {
    /// Model: folder, .gguf file or hub id
    #[arg(long, value_name = "M")]
    pub model: String,
    /// Trained prompt, put in front of every text: adapter folder or .npy file
    #[arg(long, value_name = "DIR")]
    pub prompt: Option<PathBuf>,
    /// Use the prompt even if it was trained on another model
    #[arg(long)]
    pub force: bool,
}

impl PromptedModel {
    pub(super) fn open(&self, common: &Common) -> Result<(Session, Option<SoftPrompt>)> {
        let mut session = Session::open(&self.model, common)?;
        let prompt = self.prompt.as_deref().map(|path| session.prompt(path, self.force)).transpose()?;
        Ok((session, prompt))
    }

    /// The same for a command that wants labels, which a classifier has too; but nothing stands in front of its texts.
    pub(super) fn open_for_labels(&self, common: &Common) -> Result<(Session, Option<SoftPrompt>)> {
        match &self.prompt {
            Some(_) => self.open(common),
            None => Ok((Session::open_any(&self.model, common)?, None)),
        }
    }
}

/// An opened model.
pub(super) struct Session {
    /// As given on the command line.
    pub name: String,
    pub folder: PathBuf,
    pub model: LanguageModel,
    /// Why there is none is told when one is needed: raw token ids do without.
    tokenizer: std::result::Result<Tokenizer, model::Error>,
    /// Positions that a prefix takes before the first token.
    pub n_ahead: usize,
}

impl Session {
    /// Opens the model `name`, which predicts tokens: a folder or a hub id.
    pub(super) fn open(name: &str, common: &Common) -> Result<Session> {
        let session = Session::open_any(name, common)?;
        session.model.check_speaks()?;
        Ok(session)
    }

    /// Opens the model `name`, which may be a classifier.
    pub(super) fn open_any(name: &str, common: &Common) -> Result<Session> {
        let folder = hub::model_folder(name)?;
        let model = common.model(&folder)?;
        Ok(Session { name: name.to_string(), tokenizer: Tokenizer::open(&folder), folder, model, n_ahead: 0 })
    }

    /// The tokenizer.
    pub(super) fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().map_err(|e| Error::Input(format!("text needs a tokenizer: {e}")))
    }

    /// The tokenizer as the encoders take it, if there is one.
    pub(super) fn encode(&self) -> Option<&dyn Encode> {
        self.tokenizer.as_ref().ok().map(|t| t as &dyn Encode)
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        let reader = Reader::of(self.model.config());
        Reader { n_positions: reader.n_positions.saturating_sub(self.n_ahead), ..reader }
    }

    /// The prompt in a folder, which must have been made for this model unless `force`, or in a `.npy` file, of which only
    /// the width is known. Rows are read for it from now on.
    pub(super) fn prompt(&mut self, path: &Path, force: bool) -> Result<SoftPrompt> {
        if path.is_file() {
            let prompt = npy::read(path)?;
            prompt.check(path, Widths::of(self.model.config()))?;
            return Ok(prompt);
        }
        let prompt = self.adapter(path, force)?.prompt;
        self.n_ahead = prompt.n_ahead();
        Ok(prompt)
    }

    /// The adapter in a folder, which must have been made for this model unless `force`.
    pub(super) fn adapter(&self, folder: &Path, force: bool) -> Result<Adapter> {
        let adapter = Adapter::read(folder)?;
        let base = BaseModel::of(self.model.config(), &self.name);
        adapter.check(
            folder,
            ModelIdentity { base: &base, fingerprint: &self.model.fingerprint() },
            force,
        )?;
        if adapter.prompt.kind == Kind::Prefix {
            self.model.check_prefix()?;
        }
        Ok(adapter)
    }

    /// As it is examined.
    pub(super) fn examinee<'a>(&'a self, prompt: Option<&'a SoftPrompt>, batch: usize) -> Examinee<'a> {
        Examinee { model: &self.model, prompt, tokenizer: self.tokenizer.as_ref().ok(), batch }
    }

    /// The same, as training has adapted it.
    pub(super) fn examinee_of<'a>(&'a self, adapted: &'a Adapted<'_>, batch: usize) -> Examinee<'a> {
        let Adapted { model, prompt } = adapted;
        Examinee { model, prompt: prompt.as_ref(), tokenizer: self.tokenizer.as_ref().ok(), batch }
    }

    /// The encoder of a task.
    pub(super) fn task_encoder<'a>(&'a self, task: &'a Task) -> Result<TaskEncoder<'a>> {
        let chat = match task.chat {
            true => Some(ChatTemplate::open(&self.folder)?.ok_or_else(|| {
                let why = "chat = true needs a model with a chat template (tokenizer_config.json or chat_template.jinja)";
                Error::Input(format!("task `{}`: {why}; `{}` has none", task.name, self.name))
            })?),
            false => None,
        };
        TaskEncoder::in_chat(task, self.tokenizer()?, self.reader(), chat)
    }

    /// Rows of a file without a task: `n_soft` soft tokens, then what the file has.
    pub(super) fn pair_rows(&self, path: &Path, n_soft: usize) -> Result<Vec<Row>> {
        let pairs = data::read_pairs(path)?;
        PairEncoder { tokenizer: self.encode(), n_soft, reader: self.reader() }.rows(&pairs)
    }
}

/// The task with as many soft tokens as the prompt has: those of its template, or, where it has none, in front. A prefix
/// takes the place of those in front.
pub(super) fn task_for_prompt(mut task: Task, prompt: Option<(Kind, usize)>) -> Result<Task> {
    let in_template = !task.template.soft().is_empty();
    match prompt {
        Some((Kind::Soft, n)) if !in_template => {
            task.template = task.template.with_soft_prefix(n).map_err(|e| Error::Input(e.to_string()))?;
        }
        Some((Kind::Prefix, _)) if in_template => {
            let Some((template, _)) = task.template.without_soft_prefix() else {
                return Err(Error::Input(format!(
                    "the template of task `{}` has soft tokens within or words for them; a prefix can only stand in front",
                    task.name
                )));
            };
            task.template = template;
        }
        None if in_template => {
            return Err(Error::Input(format!(
                "the template of task `{}` has soft tokens; give the trained ones with --prompt DIR, or use a template without",
                task.name
            )));
        }
        _ => {}
    }
    Ok(task)
}

/// What [`task_for_prompt`] needs to know of a prompt.
pub(super) fn kind_and_length(prompt: &SoftPrompt) -> (Kind, usize) {
    (prompt.kind, prompt.n_tokens)
}

/// That the prompt has as many virtual tokens as the template asks for.
pub(super) fn check_prompt_length(encoder: &TaskEncoder, prompt: Option<&SoftPrompt>) -> Result<()> {
    match prompt {
        Some(prompt) if prompt.n_soft() != encoder.n_soft() => Err(Error::Input(format!(
            "the prompt has {} virtual tokens, but the template has {} soft tokens",
            prompt.n_soft(),
            encoder.n_soft()
        ))),
        _ => Ok(()),
    }
}
