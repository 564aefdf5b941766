//! How a family of models is asked for an answer: where its tokens go, and which token predicts each of them.
//!
//! ```text
//! template      Review: {text} Sentiment: {mask}          answer of two tokens
//! causal        Review: … Sentiment: a1 a2                 each predicted by the token before it
//! masked        [CLS] Review: … Sentiment: [M] [M] [SEP]   each predicted at its own mask
//! seq2seq       Review: … Sentiment: <X> </s>              read by the encoder, and the decoder goes on from
//!               start <X> a1 a2                            what it is given: each predicted by the token before it
//! ```
//!
//! `<X>` is T5's `<extra_id_0>`, which stands for a gap of any length: masks side by side are one gap, the next gap has
//! the next number. A template with `{label}` has no gap: the decoder then answers `start a1 a2 </s>`, as in Lester et al.
//! 2021, and the end is scored as well.
//!
//! A classifier reads the template without its answer and says at one token which label it is: at the last, or a masked model
//! at the first, `[CLS]`. The labels are the tokens that it predicts there.

use autograd::ops::Source;
use model::{Family, Prediction, Row};

use super::{Encode, Reader};
use crate::error::Result as Outcome;
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The answer continues the text.
    Causal,
    /// The head at one token says which label.
    Classifier {
        /// Whether that is the first token or the last.
        first: bool,
    },
    /// Masks stand for the answer.
    Masked {
        /// The mask token.
        mask: u32,
    },
    /// The encoder reads the text, the decoder answers.
    Seq2Seq {
        /// What a decoder row begins with.
        start: u32,
        /// What ends an answer that fills no gap.
        end: Vec<u32>,
        /// What stands for each gap.
        gaps: Vec<u32>,
    },
}

impl Form {
    /// The form of a reader's family, with the special tokens that a template needs; `end` ends a text.
    pub(super) fn new(
        reader: Reader,
        tokenizer: &dyn Encode,
        template: &Template,
        end: &[u32],
    ) -> Result<Form, String> {
        match reader.family {
            family if reader.labels.is_some() => Ok(Form::Classifier { first: family == Family::Masked }),
            Family::Causal => Ok(Form::Causal),
            Family::Masked => match tokenizer.mask() {
                Some(mask) => Ok(Form::Masked { mask }),
                None => Err("the model's tokenizer has no mask token, such as [MASK]".into()),
            },
            Family::Seq2Seq => {
                let gap = |i| {
                    let why = || {
                        format!(
                            "the model's tokenizer has no <extra_id_{i}>; write `{{label}}` for `{{mask}}`"
                        )
                    };
                    tokenizer.gap(i).ok_or_else(why)
                };
                let gaps = (0..n_gaps(template)).map(gap).collect::<Result<_, _>>()?;
                Ok(Form::Seq2Seq { start: reader.decoder_start, end: end.to_vec(), gaps })
            }
        }
    }

    /// The tokens of an answer. In a decoder it is a text of its own, elsewhere it continues one.
    pub(super) fn tokens(&self, tokenizer: &dyn Encode, answer: &str) -> Outcome<Vec<u32>> {
        match self {
            Form::Seq2Seq { .. } => tokenizer.encode(answer, false),
            Form::Causal | Form::Classifier { .. } | Form::Masked { .. } => {
                tokenizer.encode_continuation(answer)
            }
        }
    }

    /// That the answer has a place, and one where the model can give it.
    pub(super) fn check(&self, template: &Template) -> Result<(), String> {
        let slots: Vec<Slot> = template.slots().collect();
        let parts = template.parts();
        let n_last = parts.iter().rev().take_while(|part| matches!(part, Part::Answer(_))).count();
        match (self, &slots[..]) {
            (Form::Causal, []) => {
                Err("it has no `{label}`; for a causal model end the template with it".into())
            }
            (Form::Masked { .. }, []) => {
                Err("it has no `{mask}`; write it where the answer belongs in the text".into())
            }
            (Form::Seq2Seq { .. }, []) => Err(
                "it has no `{label}` and no `{mask}`; end it with `{label}`, or write `{mask}` where the answer belongs"
                    .into(),
            ),
            (Form::Seq2Seq { .. }, [Slot::Label]) if parts.last() != Some(&Part::Answer(Slot::Label)) => Err(
                "something follows `{label}`; an encoder-decoder model needs it at the end, or `{mask}` in its place".into(),
            ),
            (Form::Causal, [_, _, ..]) => {
                Err("it has several `{mask}`; a causal model takes one at the end, for answers of any length"
                    .into())
            }
            (Form::Causal, [slot]) if parts.len() == 1 => {
                Err(format!("nothing is in front of {slot}; a causal model needs something to continue"))
            }
            (Form::Causal | Form::Classifier { first: false }, [slot, ..]) if n_last < slots.len() => {
                Err(format!("something follows {slot}; a causal model needs it at the end"))
            }
            _ => Ok(()),
        }
    }

    /// That an answer can be a text of its own, which has [`Form::check`]'s approval otherwise.
    pub(super) fn check_open(&self, template: &Template) -> Result<(), String> {
        match self {
            Form::Classifier { .. } => {
                Err("its answer is a text; a classifier says which label, give it [labels]".into())
            }
            Form::Masked { .. } => {
                Err("its answer is a text; a masked model only fills masks, give it [labels]".into())
            }
            Form::Seq2Seq { .. } if template.slots().any(|slot| slot == Slot::Mask) => Err(
                "its answer is a text; an encoder-decoder model writes one for `{label}`, not for `{mask}`"
                    .into(),
            ),
            _ => Ok(()),
        }
    }

    /// That an answer of these tokens fits the template; the error continues a sentence about the answer.
    pub(super) fn check_answer(&self, template: &Template, tokens: &[u32]) -> Result<(), String> {
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

    /// Tokens of the row that asks for an answer of `n_answer` tokens.
    pub(super) fn len(&self, pieces: &[Piece], n_answer: usize) -> usize {
        self.row(pieces, &vec![0; n_answer]).map_or(usize::MAX, |row| row.len())
    }

    /// The row that asks for `answer`, which passed [`Form::check_answer`].
    pub(super) fn row(&self, pieces: &[Piece], answer: &[u32]) -> Result<Row, String> {
        match self {
            Form::Causal => continuation(without_answer(pieces), answer),
            Form::Classifier { first } => labelled(without_answer(pieces), *first, answer),
            Form::Masked { mask } => Ok(masked(pieces, *mask, answer)),
            Form::Seq2Seq { start, end, gaps } => Ok(decoded(pieces, (*start, end, gaps), answer)),
        }
    }
}

/// The tokens of the text without its answer.
fn without_answer(pieces: &[Piece]) -> Vec<Source> {
    let source = |piece: &Piece| match piece {
        Piece::Token(source) => Some(*source),
        Piece::Answer(_) => None,
    };
    pieces.iter().filter_map(source).collect()
}

/// A text whose label, the only token of `answer`, is predicted at its first or its last token.
fn labelled(tokens: Vec<Source>, first: bool, answer: &[u32]) -> Result<Row, String> {
    let last = tokens.len().checked_sub(1).ok_or("there is no text that could have a label")?;
    let at = if first { 0 } else { last };
    let scored = answer.iter().map(|&token| Prediction { at, token }).collect();
    Ok(Row { encoder: Vec::new(), tokens, scored, weight: 1.0 })
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

/// Gaps of a template for a model that fills them: masks side by side are one.
fn n_gaps(template: &Template) -> usize {
    let is_mask = |part: &Part| *part == Part::Answer(Slot::Mask);
    let parts = template.parts();
    (0..parts.len()).filter(|&i| is_mask(&parts[i]) && (i == 0 || !is_mask(&parts[i - 1]))).count()
}

/// The encoder reads `encoder`; the decoder reads `start` and goes on with `answer`, all of which is scored.
pub(super) fn answered(encoder: Vec<Source>, start: u32, answer: &[u32]) -> Result<Row, String> {
    if answer.is_empty() {
        return Err("the completion has no tokens in this vocabulary; there is nothing to score".into());
    }
    if encoder.is_empty() {
        return Err("the prompt is empty; the encoder needs at least one token to read".into());
    }
    let tokens = std::iter::once(start).chain(answer.iter().copied()).map(Source::Text).collect();
    Ok(Row { encoder, ..Row::causal(tokens, 1, 1.0) })
}

/// The answer behind what the decoder is given.
fn decoded(pieces: &[Piece], (start, end, gaps): (u32, &[u32], &[u32]), answer: &[u32]) -> Row {
    let n_slots = pieces.iter().filter(|piece| matches!(piece, Piece::Answer(_))).count();
    let per_slot = answer.len() / n_slots.max(1);
    let (mut answer, mut gaps) = (answer.iter(), gaps.iter());
    let (mut encoder, mut tokens, mut scored) = (Vec::new(), vec![Source::Text(start)], Vec::new());
    let mut in_gap = false;
    for piece in pieces {
        match piece {
            Piece::Token(source) => encoder.push(*source),
            Piece::Answer(slot) => {
                let begins = *slot == Slot::Mask && !in_gap;
                let gap = begins.then(|| gaps.next()).flatten().map(|&id| Source::Text(id));
                encoder.extend(gap);
                tokens.extend(gap);
                let end = if *slot == Slot::Label { end } else { &[] };
                for &token in answer.by_ref().take(per_slot).chain(end) {
                    scored.push(Prediction { at: tokens.len() - 1, token });
                    tokens.push(Source::Text(token));
                }
            }
        }
        in_gap = matches!(piece, Piece::Answer(_));
    }
    Row { encoder, tokens, scored, weight: 1.0 }
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
