//! Answers that the model writes: greedily, until a stop string, its end token or the limit, and measured against the
//! right ones.

use model::generate::{Hooks, Options, generate};
use model::{Config, Row, Source, Tokenizer};
use serde::Serialize;

use super::{Examinee, token_log_probs};
use crate::data::Example;
use crate::encode::{Demonstration, TaskEncoder};
use crate::error::{Error, Result};
use crate::metrics;
use crate::soft_prompt::SoftPrompt;
use crate::study::statistics::wilson;
use crate::task::FreeText;

/// A text that the model is to answer with another.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenQuestion {
    /// The right answer, where it is known.
    pub gold: Option<String>,
    /// What the model is given.
    pub row: Vec<Source>,
}

impl OpenQuestion {
    /// The question that an example asks after `demonstrations`.
    ///
    /// # Errors
    /// As [`TaskEncoder::open_row`].
    pub fn new(
        encoder: &TaskEncoder,
        example: &Example,
        demonstrations: &[Demonstration],
    ) -> Result<OpenQuestion, String> {
        let row = encoder.open_row(example, demonstrations)?;
        Ok(OpenQuestion { gold: example.answer.clone(), row })
    }
}

/// What the model writes, `examinee.batch` questions at a time; `progress` is told how many are done.
pub(super) fn write(
    questions: &[OpenQuestion],
    text: &FreeText,
    examinee: Examinee,
    mut progress: impl FnMut(usize),
) -> Result<Vec<String>> {
    let Examinee { model, prompt, tokenizer, batch } = examinee;
    let tokenizer =
        tokenizer.ok_or_else(|| Error::Input("an answer that is a text needs a tokenizer".into()))?;
    let options = Options {
        max_new_tokens: text.max_new_tokens,
        eos: end_tokens(model.config(), Some(tokenizer)),
        ..Options::default()
    };
    let ends = |written: &str| text.end(written);
    let prompt = prompt.map(SoftPrompt::constant);
    let mut written = Vec::with_capacity(questions.len());
    for part in questions.chunks(batch.max(1)) {
        let rows: Vec<Vec<Source>> = part.iter().map(|question| question.row.clone()).collect();
        let hooks = Hooks { tokenizer: Some(tokenizer), ends: Some(&ends), ..Hooks::default() };
        for answer in generate(model, &rows, prompt.as_ref(), &options, hooks)? {
            written.push(text.answer(&answer.text.unwrap_or_default()).to_string());
        }
        progress(written.len());
    }
    Ok(written)
}

/// Perplexity of the right texts, `exp(-1/N sum log p)` over the `N` scored tokens of all `rows` together, `examinee.batch`
/// of them at a time. What ends a text counts as a token of it. `NaN` without tokens.
///
/// Tokens are those of the model's own vocabulary: models with the same tokenizer can be compared by it.
pub fn perplexity(rows: &[Row], examinee: Examinee) -> f64 {
    mean_loss(rows, examinee).exp()
}

/// Mean of `-log p` over the scored tokens of all `rows` together, `examinee.batch` of them at a time. `NaN` without tokens.
pub fn mean_loss(rows: &[Row], examinee: Examinee) -> f64 {
    let (mut sum, mut n) = (0.0, 0);
    for part in rows.chunks(examinee.batch.max(1)) {
        for log_probs in token_log_probs(examinee.model, examinee.prompt, part) {
            n += log_probs.len();
            sum += log_probs.into_iter().map(f64::from).sum::<f64>();
        }
    }
    -sum / n as f64
}

/// Tokens that end a text. A folder may name its own beside the tokenizer only.
pub fn end_tokens(config: &Config, tokenizer: Option<&Tokenizer>) -> Vec<u32> {
    let mut tokens = config.eos_token_ids.clone();
    if tokens.is_empty() {
        tokens.extend(tokenizer.and_then(Tokenizer::eos));
    }
    tokens
}

/// How good a list of texts is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextMetrics {
    /// Texts whose right answer is known.
    pub n: usize,
    /// Share of texts that are the right one, without case, punctuation and articles.
    pub exact_match: f64,
    /// 95 % confidence interval of the share (Wilson 1927).
    pub exact_match_ci95: [f64; 2],
    /// Mean F1 of the words of a text.
    pub token_f1: f64,
    /// F1 of the items of all lists together, for answers that are lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_f1: Option<f64>,
    /// BLEU of all texts together, from 0 to 1.
    pub bleu: f64,
    /// chrF2 of all texts together, from 0 to 1.
    pub chrf: f64,
    /// Mean ROUGE-L.
    pub rouge_l: f64,
}

/// Compares texts with the right ones; questions without one are left out. `None` when none has one.
pub fn metrics(text: &FreeText, questions: &[OpenQuestion], answers: &[String]) -> Option<TextMetrics> {
    let pairs: Vec<(&str, &str)> =
        questions.iter().zip(answers).filter_map(|(q, a)| Some((a.as_str(), q.gold.as_deref()?))).collect();
    if pairs.is_empty() {
        return None;
    }
    let exact_match = metrics::exact_match(&pairs);
    let items =
        |(a, b): &(&str, &str)| [*a, *b].map(|list| text.items(list).iter().map(|i| i.to_string()).collect());
    Some(TextMetrics {
        n: pairs.len(),
        exact_match,
        exact_match_ci95: wilson((exact_match * pairs.len() as f64).round() as usize, pairs.len()),
        token_f1: metrics::token_f1(&pairs),
        entity_f1: text
            .list
            .as_ref()
            .map(|_| metrics::entity_f1(&pairs.iter().map(items).collect::<Vec<_>>())),
        bleu: metrics::bleu(&pairs),
        chrf: metrics::chrf(&pairs),
        rouge_l: metrics::rouge_l(&pairs),
    })
}
