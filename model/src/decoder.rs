//! Many sequences that grow, over one forest: the final hidden state of the last token of each, step by step.
//!
//! What the sequences begin with is a forest like any batch: what they share is computed and cached once. After that a
//! step has one query per living sequence. With the sequences in depth-first order ("ranks"), those below a token are
//! neighbours, so who sees a cached key is one interval of ranks, and a new token is seen by its own sequence. Every step
//! says which rank each of its sequences goes on from, in ascending order: those that end are not named, one that branches
//! (a beam) is named several times, and the intervals are counted again. Nothing in the cache moves.
//!
//! What a decoder sees of its encoder is counted the same way.

use std::sync::Arc;

use autograd::ops::{Intervals, gather_rows};
use autograd::{Tape, Value};
use kernels::threads::on_pool;
use tensor::Tensor;

use crate::language_model::{Encoded, Step};
use crate::packed::cross;
use crate::{Forest, KvCache, LanguageModel, Prompt, Source};

/// A sequence so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// What the encoder reads; empty for a model without.
    pub encoder: &'a [Source],
    /// What came until now.
    pub tokens: &'a [Source],
}

/// Computes the steps.
pub(crate) struct Decoder<'a> {
    model: &'a LanguageModel,
    prompt: Option<&'a Prompt>,
    /// `None` before the first step, and always if there shall be no cache.
    cached: Option<Cached>,
    use_cache: bool,
}

struct Cached {
    cache: KvCache,
    /// Which ranks see each cached key.
    seen: Intervals,
    /// The encoder's states, and which ranks see each of them.
    encoded: Option<(Value, Intervals)>,
}

impl<'a> Decoder<'a> {
    /// `prompt` is a constant. Without a cache, everything is computed again in every step.
    pub(crate) fn new(model: &'a LanguageModel, prompt: Option<&'a Prompt>, use_cache: bool) -> Decoder<'a> {
        Decoder { model, prompt, cached: None, use_cache }
    }

    /// The first step: everything the lines hold. Which line each rank is, and the hidden states by rank.
    pub(crate) fn start(&mut self, lines: &[Line]) -> (Vec<usize>, Tensor) {
        let mut order: Vec<usize> = (0..lines.len()).collect();
        if !self.use_cache {
            return (order, self.all_again(lines));
        }
        let trees = Trees::of(lines);
        let ends: Vec<u32> = trees.forest.ends().collect();
        order.sort_by_key(|&i| ends[i]);
        let outputs: Arc<[u32]> = order.iter().map(|&i| ends[i]).collect();
        let states = self.encode(&trees);
        let (positions, mask) = trees.forest.behind(Prompt::n_ahead(self.prompt));
        let mut cache = match self.prompt {
            Some(Prompt::Prefix(prefix)) => KvCache::after(prefix.tensor(), self.model.config()),
            _ => KvCache::new(self.model.config()),
        };
        let hidden = self.hidden(
            &trees.forest.sources,
            Step {
                positions: &positions,
                mask: &mask,
                outputs: Some(&outputs),
                cache: Some(&mut cache),
                encoded: trees.encoded(states.as_ref()),
            },
        );
        let encoded = states.map(|states| (states, trees.cross.for_queries(&outputs)));
        self.cached = Some(Cached { cache, seen: mask.for_queries(&outputs), encoded });
        (order, hidden)
    }

    /// One more step: line `i` is that of rank `parents[i]` (ascending) and a token more. The hidden states by line, whose
    /// numbers are the ranks from now on.
    pub(crate) fn next(&mut self, parents: &[u32], lines: &[Line]) -> Tensor {
        let Some(mut cached) = self.cached.take() else { return self.all_again(lines) };
        let ranks = 0..lines.len() as u32;
        cached.seen = cached.seen.for_queries(parents);
        cached.seen.begin.numbers_mut().extend(ranks.clone());
        cached.seen.end.numbers_mut().extend(ranks.map(|rank| rank + 1));
        cached.encoded = cached.encoded.map(|(states, seen)| (states, seen.for_queries(parents)));
        let encoded = cached.encoded.as_ref().map(|(states, seen)| (states, Arc::new(seen.clone())));
        let sources: Arc<[Source]> = lines.iter().map(|line| line.tokens[line.tokens.len() - 1]).collect();
        let n_ahead = Prompt::n_ahead(self.prompt) as u32;
        let positions: Vec<u32> = lines.iter().map(|line| n_ahead + line.tokens.len() as u32 - 1).collect();
        let hidden = self.hidden(
            &sources,
            Step {
                positions: &positions,
                mask: &Arc::new(cached.seen.clone()),
                outputs: None,
                cache: Some(&mut cached.cache),
                encoded: encoded.as_ref().map(|(states, mask)| Encoded { states, mask }),
            },
        );
        self.cached = Some(cached);
        hidden
    }

    fn all_again(&self, lines: &[Line]) -> Tensor {
        let trees = Trees::of(lines);
        let states = self.encode(&trees);
        let encoded = trees.encoded(states.as_ref());
        let hidden = on_pool(|| {
            let states = self.model.states(&Tape::new(), &trees.forest, self.prompt, (None, encoded));
            states.tensor().clone()
        });
        let ends: Arc<[u32]> = trees.forest.ends().collect();
        gather_rows(&Tape::new(), &Value::constant(hidden), &ends).tensor().clone()
    }

    fn encode(&self, trees: &Trees) -> Option<Value> {
        let encode = || self.model.encode(&Tape::new(), &trees.encoder, self.prompt.and_then(Prompt::soft));
        (!trees.encoder.is_empty()).then(|| on_pool(encode))
    }

    fn hidden(&self, sources: &Arc<[Source]>, step: Step) -> Tensor {
        on_pool(|| {
            let tape = Tape::new();
            let embeds = self.model.embed(&tape, sources, self.prompt.and_then(Prompt::soft));
            self.model.hidden(&tape, &embeds, step).tensor().clone()
        })
    }
}

/// Lines packed.
struct Trees {
    encoder: Forest,
    forest: Forest,
    cross: Arc<Intervals>,
}

impl Trees {
    fn of(lines: &[Line]) -> Trees {
        let encoder = Forest::segments(lines.iter().map(|line| line.encoder));
        let group = |i| encoder.path(i).first().copied();
        let forest = Forest::trees(lines.iter().enumerate().map(|(i, line)| (group(i), line.tokens)));
        let cross = Arc::new(cross(&encoder, &forest, lines.len()));
        Trees { encoder, forest, cross }
    }

    fn encoded<'a>(&'a self, states: Option<&'a Value>) -> Option<Encoded<'a>> {
        states.map(|states| Encoded { states, mask: &self.cross })
    }
}
