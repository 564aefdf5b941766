//! The arithmetic of a step of prompt tuning, counted from its packed batch.
//!
//! Counted is what the mathematics needs, whatever the code does: a step that computes more has a lower share of the
//! peak. A multiply-add is two operations. Of each layer, with `Q` the tokens that need a query (all; in the last layer
//! those that predict a target) and `W` the tokens whose gradient is wanted (all; in the first layer the soft ones):
//!
//! | | forward | backward (inputs only: weights are frozen) |
//! |---|---|---|
//! | queries, keys, values | `2 C (Q HD + 2 T KV)` | `2 C ((Q∩W) HD + 2 W KV)` |
//! | scores and mixing, per visible pair | `4 HD` | `8 HD` where the key is in `W`; `2 HD` where the query is, and `4 HD` more if the key is not |
//! | output projection, MLP of 2 or 3 matrices | `2 Q C (HD + n F)` | the same |
//!
//! `HD` is the width of all query heads, `KV` of all keys, `F` the inner width of the MLP. Backward makes the scores
//! again (as FlashAttention counts it): `q kᵀ`, `d_o vᵀ`, `pᵀ d_o`, `d_sᵀ q` for a key, `d_s k` for a query. The head
//! is `2 R C V` both ways for the `R` tokens that predict a target. Norms, activations, softmax and the optimizer are
//! left out: together below a hundredth.
//!
//! An encoder's layers are all of that kind, and all its tokens need a query in the last one. A decoder's have a second
//! attention, whose keys are the encoder's tokens, all wanted; before the first of these its tokens are constants, so
//! nothing goes backward there.

use autograd::ops::{Intervals, Source};
use model::{Architecture, Config, Forest, PackedBatch};

/// Operations of one step on `batch`.
pub fn step(config: &Config, batch: &PackedBatch) -> f64 {
    let (all, soft) = (everyone(&batch.forest), soft(&batch.forest));
    // BERT's head has a layer of its own before the decoder
    let transform = if config.architecture == Architecture::Bert { config.d_model } else { 0 };
    let head = 2 * batch.outputs.len() * config.d_model * (config.vocab_size + transform);
    let layers = |n: usize, of_layer: &dyn Fn(usize) -> f64| (0..n).map(of_layer).sum::<f64>();
    let queries = |i: usize, n: usize| if i == n - 1 { &*batch.outputs } else { &all };
    let n = config.seq2seq.map_or(config.n_layers, |seq2seq| seq2seq.n_decoder_layers);
    let body = match config.seq2seq {
        None => layers(n, &|i| {
            let wanted = if i == 0 { &soft } else { &all };
            layer(config, &batch.forest.mask, queries(i, n), wanted)
        }),
        Some(_) => {
            let (of_encoder, soft) = (everyone(&batch.encoder), self::soft(&batch.encoder));
            let encoder = layers(config.n_layers, &|i| {
                let wanted = if i == 0 { &soft } else { &of_encoder };
                layer(config, &batch.encoder.mask, &of_encoder, wanted)
            });
            encoder + layers(n, &|i| decoder_layer(config, batch, queries(i, n), i > 0))
        }
    };
    body + 2.0 * head as f64
}

fn everyone(forest: &Forest) -> Vec<u32> {
    (0..forest.len() as u32).collect()
}

fn soft(forest: &Forest) -> Vec<u32> {
    let is_soft = |&t: &u32| matches!(forest.sources[t as usize], Source::Soft(_));
    everyone(forest).into_iter().filter(is_soft).collect()
}

/// Forward and backward of one layer. Both lists are ascending.
fn layer(config: &Config, mask: &Intervals, queries: &[u32], wanted: &[u32]) -> f64 {
    among(config, mask, queries, wanted) + 2.0 * (mixed(config, queries.len()) + mlp(config, queries.len()))
}

/// The same of a decoder; `wanted` says whether its tokens depend on the prompt already.
fn decoder_layer(config: &Config, batch: &PackedBatch, queries: &[u32], wanted: bool) -> f64 {
    let (d, width, q) = (config.d_model, config.n_heads * config.head_dim, queries.len());
    let all = if wanted { everyone(&batch.forest) } else { Vec::new() };
    let both = |wanted: bool| if wanted { 2.0 } else { 1.0 };
    let own = among(config, &batch.forest.mask, queries, &all) + both(wanted) * mixed(config, q);
    let seen = pairs(&batch.cross, queries, &everyone(&batch.encoder));
    let pairs = width * seen * (4 + 8 + if wanted { 2 } else { 0 });
    let projections = both(wanted) * (2 * d * width * q) as f64;
    let of_encoder = 2.0 * (2 * d * 2 * width * batch.encoder.len()) as f64;
    own + pairs as f64 + projections + of_encoder + 2.0 * (mixed(config, q) + mlp(config, q))
}

/// The projection behind attention, one way.
fn mixed(config: &Config, q: usize) -> f64 {
    (2 * q * config.d_model * config.n_heads * config.head_dim) as f64
}

/// The MLP, one way.
fn mlp(config: &Config, q: usize) -> f64 {
    let matrices = match (config.architecture, config.seq2seq) {
        (Architecture::Gpt2 | Architecture::Bert, _) => 2,
        (_, Some(seq2seq)) if !seq2seq.gated_mlp => 2,
        _ => 3,
    };
    (2 * q * config.d_model * matrices * config.d_ff) as f64
}

/// Queries, keys, values, scores and mixing of one layer, both ways.
fn among(config: &Config, mask: &Intervals, queries: &[u32], wanted: &[u32]) -> f64 {
    let d = config.d_model;
    let (width, kv) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
    let (keys, q) = (mask.begin.len(), queries.len());
    let wanted_queries: Vec<u32> =
        queries.iter().copied().filter(|t| wanted.binary_search(t).is_ok()).collect();

    let forward = 2 * d * (q * width + 2 * keys * kv);
    let backward = 2 * d * (wanted_queries.len() * width + 2 * wanted.len() * kv);

    // pairs whose query is in the first list and whose key is in the second
    let every: Vec<u32> = (0..keys as u32).collect();
    let seen = |by: &[u32], keys: &[u32]| pairs(mask, by, keys);
    let by_wanted = seen(&wanted_queries, &every);
    let forward_pairs = 4 * seen(queries, &every);
    let backward_pairs =
        8 * seen(queries, wanted) + 2 * by_wanted + 4 * (by_wanted - seen(&wanted_queries, wanted));
    (forward + backward + width * (forward_pairs + backward_pairs)) as f64
}

/// How many of the queries see how many of the keys.
fn pairs(mask: &Intervals, queries: &[u32], keys: &[u32]) -> usize {
    let mask = mask.for_queries(queries);
    keys.iter().map(|&j| (mask.end[j as usize] - mask.begin[j as usize]) as usize).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::testing::Rng;
    use model::Row;

    use crate::data::Dtype;
    use crate::step::shape::{Family, Shape};

    fn config(family: Family, n_layers: usize) -> Config {
        let shape = Shape {
            family,
            d_model: 8,
            n_layers,
            n_heads: 4,
            n_kv_heads: if matches!(family, Family::Gpt2 | Family::Bert) { 4 } else { 2 },
            d_ff: 10,
            vocab_size: 12,
            n_positions: 32,
            dtype: Dtype::F32,
        };
        let folder = tempfile::tempdir().unwrap();
        crate::step::shape::write(&shape, folder.path(), 1, 0).unwrap();
        Config::open(folder.path()).unwrap()
    }

    fn row(soft: u32, text: &[u32]) -> Row {
        let tokens: Vec<Source> =
            (0..soft).map(Source::Soft).chain(text.iter().map(|&id| Source::Text(id))).collect();
        let start = tokens.len() - 1;
        Row::causal(tokens, start, 1.0)
    }

    #[test]
    fn one_row_by_hand() {
        // tokens P a, then b is predicted: T = 2, R = 1, pairs 3; one layer is the first and the last
        let batch = PackedBatch::from_rows(model::Family::Causal, &[row(1, &[3, 4])]);
        let projections = 2 * 8 * (8 + 2 * 2 * 8) + 2 * 8 * (2 * 8); // forward: Q = 1; backward: P's key and value
        let pairs = 8 * (4 * 2 + 8); // a sees P and a; backward only P's key is wanted
        let behind = 2 * (2 * 8 * (8 + 2 * 10));
        let head = 2 * (2 * 8 * 12);
        assert_eq!(step(&config(Family::Gpt2, 1), &batch), f64::from(projections + pairs + behind + head));
    }

    #[test]
    fn a_mask_by_hand() {
        // P and a mask, which sees P; one layer is the first and the last, and P is wanted
        let row = Row {
            encoder: Vec::new(),
            tokens: vec![Source::Soft(0), Source::Text(3)],
            scored: vec![model::Prediction { at: 1, token: 4 }],
            weight: 1.0,
        };
        let batch = PackedBatch::from_rows(model::Family::Masked, &[row]);
        let projections = 2 * 8 * (8 + 2 * 2 * 8) + 2 * 8 * (2 * 8);
        let pairs = 8 * (4 * 2 + 8);
        let behind = 2 * (2 * 8 * (8 + 2 * 10));
        let head = 2 * (2 * 8 * (12 + 8));
        assert_eq!(step(&config(Family::Bert, 1), &batch), f64::from(projections + pairs + behind + head));
    }

    #[test]
    fn an_encoder_and_a_decoder_by_hand() {
        // the encoder reads P a, the decoder a start token; both have one layer, and heads that fill the width
        let row = Row {
            encoder: vec![Source::Soft(0), Source::Text(3)],
            ..Row::causal(vec![Source::Text(0), Source::Text(4)], 1, 1.0)
        };
        let batch = PackedBatch::from_rows(model::Family::Seq2Seq, &[row]);
        let projections = 2 * 8 * (2 * 8 + 2 * 2 * 8) + 2 * 8 * (8 + 2 * 8); // backward: what P is made into
        let pairs = 8 * (4 * 4 + 8 * 2 + 2 * 2 + 4);
        let behind = 2 * (2 * 2 * 8 * 8 + 2 * 2 * 8 * 2 * 10);
        let encoder = projections + pairs + behind;
        let own = 2 * 8 * 3 * 8 + 8 * 4 + 2 * 8 * 8; // nothing goes backward
        let cross = 2 * 8 * 8 + 2 * (2 * 8 * 2 * 8 * 2) + 8 * 2 * (4 + 8);
        let behind = 2 * (2 * 8 * 8 + 2 * 8 * 2 * 10);
        let head = 2 * (2 * 8 * 12);
        let expected = f64::from(encoder + own + cross + behind + head);
        assert_eq!(step(&config(Family::T5, 1), &batch), expected);
    }

    #[test]
    fn text_before_the_prompt_is_seen_by_it() {
        let mask = Intervals::causal(3);
        // keys and queries of token 1 are wanted: it sees 0 and 1, and is seen by 1 and 2
        let config = config(Family::Llama, 3);
        let all = [0, 1, 2];
        let rest = layer(&config, &mask, &all, &[1]) - layer(&config, &mask, &all, &[]);
        let projections = 2 * 8 * (8 + 2 * 4);
        let pairs = 8 * (8 * 2 + 2 * 2 + 4);
        assert_eq!(rest, f64::from(projections + pairs));
    }

    #[test]
    fn pairs_are_those_that_the_mask_shows() {
        let mut rng = Rng(3);
        for _ in 0..100 {
            let rows: Vec<Row> = (0..1 + rng.below(6))
                .map(|_| row(2, &(0..2 + rng.below(5)).map(|_| rng.below(3) as u32).collect::<Vec<_>>()))
                .collect();
            let batch = PackedBatch::from_rows(model::Family::Causal, &rows);
            let n = batch.forest.len();
            let mut some = || (0..n as u32).filter(|_| rng.below(2) == 0).collect::<Vec<_>>();
            let (queries, keys) = (some(), some());
            let mask = &batch.forest.mask;
            let sees = |i: u32, j: u32| (mask.begin[j as usize]..mask.end[j as usize]).contains(&i);
            let expected =
                queries.iter().map(|&i| keys.iter().filter(|&&j| sees(i, j)).count()).sum::<usize>();
            assert_eq!(pairs(mask, &queries, &keys), expected);
        }
    }
}
