//! What a model is asked: a sequence of tokens, and what it should say at which of them.

use autograd::ops::Source;

/// How a model reads, and where it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A token sees the tokens before it; the hidden state of the last one says which comes next (GPT-2, Llama).
    Causal,
    /// Every token sees every other; the hidden state of a mask token says what it hides (BERT).
    Masked,
    /// An encoder, in which every token sees every other, and a causal decoder that sees all of it (T5).
    Seq2Seq,
}

/// What a model reads, and the tokens whose probability is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What the encoder of a [`Family::Seq2Seq`] model reads; empty for the others.
    pub encoder: Vec<Source>,
    /// The sequence that is scored: the text of a causal or masked model, what the decoder reads of the third family
    /// (from its start token on). In a causal sequence, tokens after the last of `scored` are not computed.
    pub tokens: Vec<Source>,
    /// What is scored. Not empty; in the order in which log-probabilities are wanted.
    pub scored: Vec<Prediction>,
    /// What each of them weighs in the loss.
    pub weight: f32,
}

/// One scored token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prediction {
    /// Index into [`Row::tokens`] of the token whose final hidden state predicts: the one before in a causal
    /// sequence, the mask itself in a masked one.
    pub at: usize,
    /// What it should predict.
    pub token: u32,
}

impl Row {
    /// A row of a causal model: the tokens from `start` on are scored, each by the one before it.
    ///
    /// Panics when one of them is a soft token or the first of the row: the data reader checks that.
    pub fn causal(tokens: Vec<Source>, start: usize, weight: f32) -> Row {
        assert!(start > 0, "the first token of a row has none before it that could predict it");
        let prediction = |(i, source): (usize, &Source)| match *source {
            Source::Text(token) => Prediction { at: start + i - 1, token },
            Source::Soft(_) => panic!("a soft token cannot be scored"),
        };
        let scored = tokens[start..].iter().enumerate().map(prediction).collect();
        Row { encoder: Vec::new(), tokens, scored, weight }
    }

    /// Number of tokens the model is given.
    pub fn len(&self) -> usize {
        self.encoder.len() + self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every token the model is given, the encoder's first.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        self.encoder.iter().chain(&self.tokens).copied()
    }

    /// The tokens up to the last scored one: what a causal sequence needs.
    pub(crate) fn causal_part(&self) -> &[Source] {
        let last = self.scored.iter().map(|p| p.at).max();
        &self.tokens[..last.map_or(0, |at| at + 1)]
    }
}
