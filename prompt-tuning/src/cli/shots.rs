//! Options about demonstrations that several commands have, and the examples behind them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::progress::Progress;
use super::session::Session;
use crate::data::{self, Dataset, Example, Labels};
use crate::encode::{Demonstration, TaskEncoder};
use crate::error::{Error, Result};
use crate::few_shot::embed::{Embeddings, embed};
use crate::few_shot::{Choice, Pool, choose};
use crate::rng::Rng;
use crate::shots::{Policy, Shots};
use crate::study::conduct::shown;
use crate::task::Task;

/// Which demonstrations stand in front of an example.
#[derive(Debug, Args)]
pub(super) struct ShotArgs {
    /// Labelled data that demonstrations are chosen from
    #[arg(long, value_name = "F")]
    pub train: Option<PathBuf>,
    /// How they are chosen: the first of the file, at random, equally many of each label, or for each text the nearest by the model's embeddings, by
    /// BM25, or by marginal relevance
    #[arg(long, value_enum, default_value_t = Choice::Balanced, value_name = "C")]
    pub choice: Choice,
    /// When they do not fit the context window: an error, each text without its farthest, or the largest number that all
    /// texts have room for
    #[arg(long, value_enum, default_value_t = Policy::Error, value_name = "P")]
    pub policy: Policy,
    /// What the choice draws from
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
}

/// The examples that can be shown, and the texts that are asked.
pub(super) struct Candidates {
    pub train: Dataset<Example>,
    texts: Vec<String>,
    labels: Vec<usize>,
    label_names: Vec<String>,
    queries: Vec<String>,
    embeddings: Option<(Embeddings, Embeddings)>,
}

impl ShotArgs {
    /// Reads the training data and embeds it, if the choice needs that, for `data` to be asked.
    pub(super) fn candidates(
        &self,
        (session, task): (&Session, &Task),
        data: &Dataset<Example>,
        quiet: bool,
    ) -> Result<Candidates> {
        let path = self.train.as_deref().ok_or_else(|| {
            Error::Input("--shots needs examples to show; give labelled data with --train".into())
        })?;
        let train = data::read_examples(path, task, Labels::Required)?;
        let text = |e: &Example| e.fields.values().cloned().collect::<Vec<_>>().join("\n");
        let texts: Vec<String> = train.rows.iter().map(text).collect();
        let queries: Vec<String> = data.rows.iter().map(text).collect();
        let label_names = label_names(task);
        let embeddings = match self.choice.needs_embeddings() {
            true => Some((embedded(session, &texts, quiet)?, embedded(session, &queries, quiet)?)),
            false => None,
        };
        Ok(Candidates {
            labels: train.rows.iter().map(|e| e.label.unwrap_or(0)).collect(),
            label_names,
            train,
            texts,
            queries,
            embeddings,
        })
    }

    /// `k` demonstrations for each example, as far as they fit.
    pub(super) fn choose(
        &self,
        candidates: &Candidates,
        encoder: &TaskEncoder,
        data: &Dataset<Example>,
        k: usize,
    ) -> Result<(Shots, Vec<Arc<[Demonstration]>>)> {
        let shown = shown(encoder.task(), &candidates.train)?;
        let chosen = choose(&candidates.pool(), self.choice, k, self.seed)?;
        let shots = Shots::fit(encoder, data, (&shown, chosen), self.policy)?;
        let demonstrations = shots.demonstrations(&shown);
        Ok((shots, demonstrations))
    }
}

impl Candidates {
    /// Nothing to show, where nothing is asked for.
    pub(super) fn none(task: &Task, data: &Dataset<Example>) -> Candidates {
        Candidates {
            train: Dataset { path: PathBuf::new(), rows: Vec::new() },
            texts: Vec::new(),
            labels: Vec::new(),
            label_names: label_names(task),
            queries: vec![String::new(); data.rows.len()],
            embeddings: None,
        }
    }

    pub(super) fn pool(&self) -> Pool<'_> {
        Pool {
            texts: &self.texts,
            labels: &self.labels,
            label_names: &self.label_names,
            queries: &self.queries,
            embeddings: self.embeddings.as_ref().map(|(a, b)| (a, b)),
        }
    }
}

/// Where answers are texts, all of them count as one label.
fn label_names(task: &Task) -> Vec<String> {
    match task.labels() {
        [] => vec!["answer".into()],
        labels => labels.iter().map(|l| l.name.clone()).collect(),
    }
}

/// So many of the rows, drawn at random but always the same, in their order.
pub(super) fn sampled(mut data: Dataset<Example>, most: Option<usize>) -> Dataset<Example> {
    let n = data.rows.len();
    if let Some(most) = most.filter(|&most| most < n) {
        let mut kept = Rng::new(0).sample(n, most);
        kept.sort_unstable();
        data.rows = kept.into_iter().map(|i| data.rows[i].clone()).collect();
    }
    data
}

/// How many texts are embedded at a time.
const EMBEDDED: usize = 64;

fn embedded(session: &Session, texts: &[String], quiet: bool) -> Result<Embeddings> {
    // a text that occurs again is embedded once
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut distinct: Vec<String> = Vec::new();
    for text in texts {
        places.entry(text).or_insert_with(|| {
            distinct.push(text.clone());
            distinct.len() - 1
        });
    }
    let mut progress = Progress::new("embed", distinct.len() as u64, quiet);
    let tokenizer = session.tokenizer()?;
    let all = embed(&session.model, tokenizer, &distinct, EMBEDDED, |n| progress.at(n as u64, ""))?;
    progress.finish();
    let width = session.model.config().d_model;
    Ok(Embeddings::new(
        width,
        texts.iter().flat_map(|text| all.row(places[text.as_str()]).to_vec()).collect(),
    ))
}
