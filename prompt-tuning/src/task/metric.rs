//! What an evaluation reports first, and what early stopping watches.

use serde::{Deserialize, Serialize};

use super::Answers;

/// What an evaluation reports first, and what early stopping watches. More is better for every one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of examples whose best label is the right one.
    Accuracy,
    /// F1 of each label, averaged with equal weight.
    MacroF1,
    /// Share of texts that are the right one.
    ExactMatch,
    /// F1 of the words of a text, averaged over texts.
    TokenF1,
    /// F1 of the items of lists, all lists together.
    EntityF1,
    /// BLEU of all texts together, as sacrebleu computes it.
    Bleu,
    /// chrF2 of all texts together, as sacrebleu computes it.
    Chrf,
    /// ROUGE-L, averaged over texts.
    RougeL,
}

impl Metric {
    /// As in task files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::MacroF1 => "macro_f1",
            Metric::ExactMatch => "exact_match",
            Metric::TokenF1 => "token_f1",
            Metric::EntityF1 => "entity_f1",
            Metric::Bleu => "bleu",
            Metric::Chrf => "chrf",
            Metric::RougeL => "rouge_l",
        }
    }

    /// What is measured when nobody says.
    pub(super) fn usual(answers: &Answers) -> Metric {
        match answers {
            Answers::Labels(_) => Metric::Accuracy,
            Answers::Text(text) if text.list.is_some() => Metric::EntityF1,
            Answers::Text(_) => Metric::ExactMatch,
        }
    }

    /// That answers of this kind can be measured so.
    pub(super) fn check(self, answers: &Answers) -> Result<(), String> {
        let name = self.name();
        let of_labels = matches!(self, Metric::Accuracy | Metric::MacroF1);
        match answers {
            Answers::Labels(_) if !of_labels => {
                Err(format!("metric {name} measures texts; labels have accuracy or macro_f1"))
            }
            Answers::Text(_) if of_labels => Err(format!(
                "metric {name} measures labels; texts have exact_match, token_f1, entity_f1, bleu, chrf or rouge_l"
            )),
            Answers::Text(text) if self == Metric::EntityF1 && text.list.is_none() => {
                Err("metric entity_f1 measures lists; say in [answer] what separates the items, as in list = \",\"".into())
            }
            _ => Ok(()),
        }
    }
}
