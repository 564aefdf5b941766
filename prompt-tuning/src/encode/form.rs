//! How a family of models is asked for an answer: where its tokens go, and which token predicts each of them.
//!
//! ```text
//! template      Review: {text} Sentiment: {mask}          answer of two tokens
//! causal        Review: … Sentiment: a1 a2                 each predicted by the token before it
//! masked        [CLS] Review: … Sentiment: [M] [M] [SEP]   each predicted at its own mask
//! ```

use autograd::ops::Source;
use model::{Family, Prediction, Row};

use super::Encode;
use crate::template::{Part, Slot, Template};

/// A piece of a rendered template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A token of the text or of the soft prompt.
    Token(Source),
    /// Where the answer goes.
    Answer(Slot),
}

/// How a model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The answer continues the text.
    Causal,
    /// Masks stand for the answer.
    Masked {
        /// The mask token.
        mask: u32,
    },
}

impl Form {
    /// The form of a family, with the special tokens it needs.
    pub(super) fn new(family: Family, tokenizer: &dyn Encode) -> Result<Form, String> {
        match family {
            Family::Causal => Ok(Form::Causal),
            Family::Masked => match tokenizer.mask() {
                Some(mask) => Ok(Form::Masked { mask }),
                None => Err("the model's tokenizer has no mask token, such as [MASK]".into()),
            },
            Family::Seq2Seq => Err("an encoder-decoder model cannot be asked for labels yet".into()),
        }
    }

    /// That the answer has a place, and one where the model can give it.
    pub(super) fn check(self, template: &Template) -> Result<(), String> {
        let slots: Vec<Slot> = template.slots().collect();
        let parts = template.parts();
        match (self, &slots[..]) {
            (Form::Causal, []) => {
                Err("it has no `{label}`; for a causal model end the template with it".into())
            }
            (Form::Masked { .. }, []) => {
                Err("it has no `{mask}`; write it where the answer belongs in the text".into())
            }
            (Form::Causal, [_, _, ..]) => {
                Err("it has several `{mask}`; a causal model takes one at the end, for answers of any length"
                    .into())
            }
            (Form::Causal, [slot]) if parts.len() == 1 => {
                Err(format!("nothing is in front of {slot}; a causal model needs something to continue"))
            }
            (Form::Causal, [slot]) if parts.last() != Some(&Part::Answer(*slot)) => {
                Err(format!("something follows {slot}; a causal model needs it at the end"))
            }
            _ => Ok(()),
        }
    }

    /// That an answer of these tokens fits the template; the error continues a sentence about the answer.
    pub(super) fn check_answer(self, template: &Template, tokens: &[u32]) -> Result<(), String> {
        let (n, n_slots) = (tokens.len(), template.slots().count());
        match n {
            0 => Err("has no tokens in this vocabulary".into()),
            _ if n_slots > 1 && n != n_slots => Err(format!(
                "has {n} tokens in this vocabulary, but the template has {n_slots} `{{mask}}`; written once, it stands for \
                 as many masks as each answer has tokens"
            )),
            _ => Ok(()),
        }
    }

    /// The row that asks for `answer`, which passed [`Form::check_answer`].
    pub(super) fn row(self, pieces: &[Piece], answer: &[u32]) -> Result<Row, String> {
        match self {
            Form::Causal => {
                let front = pieces.iter().filter_map(|piece| match piece {
                    Piece::Token(source) => Some(*source),
                    Piece::Answer(_) => None,
                });
                continuation(front.collect(), answer)
            }
            Form::Masked { mask } => Ok(masked(pieces, mask, answer)),
        }
    }
}

/// `front`, and then `answer`, which is scored.
pub(super) fn continuation(front: Vec<Source>, answer: &[u32]) -> Result<Row, String> {
    if answer.is_empty() {
        return Err("the completion has no tokens in this vocabulary; there is nothing to score".into());
    }
    if front.is_empty() {
        return Err(
            "nothing is in front of the completion; a causal model needs at least one token there".into()
        );
    }
    let start = front.len();
    let mut tokens = front;
    tokens.extend(answer.iter().map(|&id| Source::Text(id)));
    Ok(Row::causal(tokens, start, 1.0))
}

/// One slot takes the whole answer, of several each takes one token.
fn masked(pieces: &[Piece], mask: u32, answer: &[u32]) -> Row {
    let n_slots = pieces.iter().filter(|piece| matches!(piece, Piece::Answer(_))).count();
    let per_slot = answer.len() / n_slots.max(1);
    let mut answer = answer.iter();
    let (mut tokens, mut scored) = (Vec::with_capacity(pieces.len() + answer.len()), Vec::new());
    for piece in pieces {
        match piece {
            Piece::Token(source) => tokens.push(*source),
            Piece::Answer(_) => {
                for &token in answer.by_ref().take(per_slot) {
                    scored.push(Prediction { at: tokens.len(), token });
                    tokens.push(Source::Text(mask));
                }
            }
        }
    }
    Row { encoder: Vec::new(), tokens, scored, weight: 1.0 }
}
