//! Beam search: the likeliest continuations of a length, not the likeliest token each time.
//!
//! ```text
//! score(tokens) = Σ log p(token | tokens before) / n^length_penalty         n counts the end token
//! ```
//!
//! Of all continuations of a text's beams, the best twice as many as there are beams are looked at: one that ends is
//! finished if it is among the first half, the best that do not end go on. A text is done when it has as many finished
//! continuations as beams and none that goes on scores better than the worst of them, at its present length. These are the
//! rules of transformers (`early_stopping=False`).
//!
//! The beams of a text are branches of one tree, so they share what they have in common in the cache of a [`Decoder`], and
//! the encoder's keys and values as well.

use std::cmp::Ordering;

use kernels::{Isa, cross_entropy};

use crate::decoder::{Decoder, Line};
use crate::generate::{FinishReason, Options, Row};
use crate::{LanguageModel, Prompt, Result, Source};

/// A finished continuation.
pub(crate) struct Finished {
    pub tokens: Vec<u32>,
    pub reason: FinishReason,
    score: f32,
}

/// The beams of one text.
struct Search<'r> {
    row: &'r Row<'r>,
    beams: Vec<Beam>,
    /// The best first.
    finished: Vec<Finished>,
    limit: usize,
}

struct Beam {
    tokens: Vec<Source>,
    /// `Σ log p` of the new tokens.
    score: f32,
}

/// A beam and one token more.
#[derive(Clone, Copy)]
struct Continuation {
    beam: usize,
    token: u32,
    score: f32,
}

/// The best continuation of each row. A row that may get no token is left out.
///
/// # Errors
/// The model computed a number that is not finite.
pub(crate) fn search(
    model: &LanguageModel,
    rows: &[Row],
    prompt: Option<&Prompt>,
    options: &Options,
) -> Result<Vec<Option<Finished>>> {
    let mut searches: Vec<Search> = rows.iter().map(|row| Search::new(row, options)).collect();
    let mut live: Vec<usize> = (0..rows.len()).filter(|&i| searches[i].limit > 0).collect();
    if !live.is_empty() {
        let mut decoder = Decoder::new(model, prompt, options.use_cache);
        let (order, mut hidden) = decoder.start(&lines(&searches, &live));
        live = order.into_iter().map(|i| live[i]).collect();
        while !live.is_empty() {
            let logits = model.logits(&hidden);
            let mut by_rank = logits.f32s().chunks_exact(logits.width());
            let (mut parents, mut first) = (Vec::new(), 0);
            for &i in &live {
                let n = searches[i].beams.len();
                let of_search: Vec<&[f32]> = by_rank.by_ref().take(n).collect();
                let next = searches[i]
                    .step(&of_search, options)
                    .ok_or_else(|| crate::generate::not_finite(model))?;
                parents.extend(next.into_iter().map(|beam| first + beam as u32));
                first += n as u32;
            }
            live.retain(|&i| !searches[i].beams.is_empty());
            if !live.is_empty() {
                hidden = decoder.next(&parents, &lines(&searches, &live));
            }
        }
    }
    Ok(searches.into_iter().map(|search| search.finished.into_iter().next()).collect())
}

/// The beams of the living searches, in order.
fn lines<'a>(searches: &'a [Search], live: &[usize]) -> Vec<Line<'a>> {
    let of_search = |&i: &usize| {
        let Search { row, beams, .. } = &searches[i];
        beams.iter().map(move |beam| Line { encoder: row.encoder, tokens: &beam.tokens })
    };
    live.iter().flat_map(of_search).collect()
}

impl<'r> Search<'r> {
    fn new(row: &'r Row<'r>, options: &Options) -> Search<'r> {
        let beams = vec![Beam { tokens: row.tokens.clone(), score: 0.0 }];
        Search { row, beams, finished: Vec::new(), limit: row.room(options) }
    }

    /// Puts the next beams in the place of these; returns from which of these each goes on, ascending. There are none when
    /// the search is done. `None` when the logits are no distribution.
    fn step(&mut self, logits: &[&[f32]], options: &Options) -> Option<Vec<usize>> {
        let n_looked_at = options.beams * (1 + options.eos.len().max(1));
        let continuations = continuations(&self.beams, logits, n_looked_at)?;
        let n = self.beams[0].tokens.len() - self.row.tokens.len() + 1;
        let length = (n as f32).powf(options.length_penalty);
        let mut next: Vec<Continuation> = Vec::new();
        for (place, c) in continuations.into_iter().enumerate() {
            let ends = options.eos.contains(&c.token);
            if !ends && n < self.limit {
                next.push(c);
            } else if place < options.beams {
                let reason = if ends { FinishReason::Eos } else { self.row.full(n, options) };
                self.finish(c, reason, length);
            }
        }
        next.truncate(options.beams);
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(options.beams);
        let worst = self.finished.last().filter(|_| self.finished.len() == options.beams);
        if worst.is_some_and(|worst| next.first().is_none_or(|best| best.score / length <= worst.score)) {
            next.clear();
        }
        next.sort_by_key(|c| c.beam);
        self.beams = next
            .iter()
            .map(|c| {
                let tokens = [&self.beams[c.beam].tokens[..], &[Source::Text(c.token)]].concat();
                Beam { tokens, score: c.score }
            })
            .collect();
        Some(next.into_iter().map(|c| c.beam).collect())
    }

    fn finish(&mut self, c: Continuation, reason: FinishReason, length: f32) {
        let new = &self.beams[c.beam].tokens[self.row.tokens.len()..];
        let id = |source: &Source| if let Source::Text(id) = source { Some(*id) } else { None };
        let mut tokens: Vec<u32> = new.iter().filter_map(id).collect();
        if reason != FinishReason::Eos {
            tokens.push(c.token);
        }
        self.finished.push(Finished { tokens, reason, score: c.score / length });
    }
}

/// The `n` best continuations of all beams, the best first.
fn continuations(beams: &[Beam], logits: &[&[f32]], n: usize) -> Option<Vec<Continuation>> {
    let mut all: Vec<Continuation> = Vec::new();
    for (i, (beam, logits)) in beams.iter().zip(logits).enumerate() {
        if !logits.iter().all(|x| x.is_finite()) {
            return None;
        }
        let mut lse = [0.0];
        cross_entropy::log_sum_exp(Isa::best(), logits, logits.len(), &mut lse);
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        if n < ids.len() {
            let by_logit =
                |&a: &u32, &b: &u32| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b));
            ids.select_nth_unstable_by(n - 1, by_logit);
            ids.truncate(n);
        }
        let score = |id: u32| beam.score + (logits[id as usize] - lse[0]);
        all.extend(ids.into_iter().map(|token| Continuation { beam: i, token, score: score(token) }));
    }
    all.sort_by(better);
    all.truncate(n);
    Some(all)
}

fn better(a: &Continuation, b: &Continuation) -> Ordering {
    b.score.total_cmp(&a.score).then((a.beam, a.token).cmp(&(b.beam, b.token)))
}
