//! Generation of several unequal sequences at once: with and without the cache, alone and together, and how it ends.

mod common;

use common::{Fixture, folder, ids, sources};
use kernels::testing::Rng;
use prompt_tuning_model::generate::Options;
use prompt_tuning_model::{
    FinishReason, Generated, Hooks, LanguageModel, Sampling, Source, Tokenizer, generate,
};

fn run(f: &Fixture, rows: &[Vec<Source>], options: &Options) -> Vec<Generated> {
    generate(&f.model, rows, Some(&f.constant_prompt()), options, Hooks::default()).unwrap()
}

fn refused(f: &Fixture, rows: &[Vec<Source>], options: &Options) -> String {
    let refused = generate(&f.model, rows, Some(&f.constant_prompt()), options, Hooks::default());
    refused.expect_err("must be refused").to_string()
}

/// Rows with common beginnings, repeated, one a beginning of another, soft tokens in front, inside, or none.
fn rows(f: &Fixture, seed: u64) -> Vec<Vec<Source>> {
    let mut rng = Rng(seed);
    let mut text =
        |n: usize| (0..n).map(|_| rng.below(f.model.config().vocab_size) as u32).collect::<Vec<_>>();
    let n = f.n_virtual();
    let (a, b, c) = (text(4), text(9), text(1));
    let mut inside = sources(0, &text(3));
    inside.extend([Source::Soft(2), Source::Soft(0)]);
    vec![
        sources(n, &a),
        sources(0, &b),
        sources(n, &[a.as_slice(), &text(5)].concat()),
        sources(n, &a),
        inside,
        sources(n, &[a.as_slice(), &text(2)].concat()),
        sources(0, &c),
        sources(n, &[]),
    ]
}

fn sampled(seed: u64) -> Sampling {
    Sampling { temperature: 0.9, top_k: Some(40), top_p: Some(0.95), seed }
}

#[test]
fn cached_equals_uncached() {
    for f in common::all() {
        for (seed, sampling) in [(1, Sampling::GREEDY), (2, sampled(1)), (3, sampled(2))] {
            let rows = rows(&f, seed);
            let options =
                |use_cache| Options { max_new_tokens: 9, sampling, use_cache, ..Options::default() };
            assert_eq!(run(&f, &rows, &options(true)), run(&f, &rows, &options(false)), "{} {seed}", f.name);
        }
    }
}

#[test]
fn a_sequence_does_not_depend_on_the_others() {
    for name in ["gpt2-tied-f32", "llama3-rope", "t5-v1.1-gated-bf16"] {
        let f = Fixture::open(name);
        let rows = rows(&f, 4);
        let options = Options { max_new_tokens: 8, sampling: sampled(3), ..Options::default() };
        let all = run(&f, &rows, &options);
        assert_eq!(run(&f, &rows[..1], &options), all[..1]);
        let mut changed = rows.clone();
        changed[0] = rows[1].clone();
        changed.truncate(5);
        assert_eq!(run(&f, &changed, &options)[1..], all[1..5]);
        // rows 0 and 3 are the same text with random numbers of their own
        assert_ne!(all[0].tokens, all[3].tokens);
        let other_seed = Options { sampling: sampled(4), ..options };
        assert_ne!(run(&f, &rows, &other_seed), all);
    }
}

/// Sequences that end early leave the batch; the others go on as if nothing had happened.
#[test]
fn sequences_end_at_different_times() {
    for f in common::all() {
        let rows = rows(&f, 5);
        let options = Options { max_new_tokens: 12, ..Options::default() };
        let free = run(&f, &rows, &options);
        let eos = vec![free[0].tokens[2], free[1].tokens[5], free[4].tokens[0]];
        for use_cache in [true, false] {
            let ended = run(&f, &rows, &Options { eos: eos.clone(), use_cache, ..options.clone() });
            for (free, ended) in free.iter().zip(&ended) {
                let at = free.tokens.iter().position(|t| eos.contains(t));
                assert_eq!(ended.tokens, free.tokens[..at.unwrap_or(12)], "{}", f.name);
                let reason = if at.is_some() { FinishReason::Eos } else { FinishReason::MaxNewTokens };
                assert_eq!(ended.reason, reason);
            }
        }
    }
}

/// As transformers does it, with texts that end early and texts that do not, alone and together.
#[test]
fn beams_of_transformers() {
    for f in common::T5.map(Fixture::open) {
        let items = f.expected["generate"].as_array().unwrap();
        let rows: Vec<_> = items.iter().map(|item| sources(f.n_virtual(), &ids(&item["ids"]))).collect();
        for (i, item) in items.iter().enumerate() {
            for beam in item["beams"].as_array().unwrap() {
                let options = |use_cache| Options {
                    max_new_tokens: 10,
                    beams: beam["num_beams"].as_u64().unwrap() as usize,
                    length_penalty: beam["length_penalty"].as_f64().unwrap() as f32,
                    eos: vec![beam["eos"].as_u64().unwrap() as u32],
                    use_cache,
                    ..Options::default()
                };
                for use_cache in [true, false] {
                    let all = run(&f, &rows, &options(use_cache));
                    assert_eq!(all[i].tokens, ids(&beam["tokens"]), "{} {i} {beam}", f.name);
                }
                let alone = run(&f, &rows[i..=i], &options(true));
                assert_eq!(alone[0].tokens, ids(&beam["tokens"]), "{} {i} alone", f.name);
            }
        }
    }
}

/// A beam for every token there is, and no end: the result is the likeliest of all texts of two tokens.
#[test]
fn enough_beams_find_the_best_of_all_texts() {
    for name in ["gpt2-square", "t5-v1.1-gated-bf16"] {
        let f = Fixture::open(name);
        let rows = rows(&f, 8);
        let vocab = f.model.config().vocab_size;
        let options = Options { max_new_tokens: 2, beams: vocab, ..Options::default() };
        let found = run(&f, &rows[..2], &options);
        for (row, found) in rows[..2].iter().zip(found) {
            let score = |tokens: &[u32]| common::all_log_probs(&f, row, &[tokens.to_vec()])[0];
            let best = score(&found.tokens);
            assert_eq!((found.tokens.len(), found.reason), (2, FinishReason::MaxNewTokens));
            let greedy =
                run(&f, std::slice::from_ref(row), &Options { max_new_tokens: 2, ..Options::default() });
            assert!(best >= score(&greedy[0].tokens) - 1e-5);
            for first in 0..vocab as u32 {
                let follow = (0..vocab as u32).map(|second| vec![first, second]).collect::<Vec<_>>();
                let better = common::all_log_probs(&f, row, &follow).into_iter().find(|lp| *lp > best + 1e-4);
                assert_eq!(better, None, "{name}");
            }
        }
    }
}

#[test]
fn the_context_window_ends_a_sequence() {
    let f = Fixture::open("gpt2-square");
    let n = f.model.config().n_positions;
    let row = |len: usize| sources(0, &vec![7; len]);
    let rows = [row(n - 3), row(n), row(4)];
    for use_cache in [true, false] {
        let all = run(&f, &rows, &Options { max_new_tokens: 6, use_cache, ..Options::default() });
        let ends: Vec<_> = all.iter().map(|g| (g.tokens.len(), g.reason)).collect();
        assert_eq!(
            ends,
            [(3, FinishReason::Length), (0, FinishReason::Length), (6, FinishReason::MaxNewTokens)]
        );
    }
    let none = run(&f, &rows, &Options { max_new_tokens: 0, ..Options::default() });
    assert!(none.iter().all(|g| g.tokens.is_empty() && g.reason == FinishReason::MaxNewTokens));
    assert!(run(&f, &[], &Options::default()).is_empty());
}

#[test]
fn tokens_are_reported_as_they_come() {
    let f = Fixture::open("llama-gqa-tied-bf16");
    let rows = rows(&f, 6);
    let mut heard = vec![Vec::new(); rows.len()];
    let mut hear = |i: usize, id: u32| heard[i].push(id);
    let free = run(&f, &rows, &Options { max_new_tokens: 7, ..Options::default() });
    let options = Options { max_new_tokens: 7, eos: vec![free[1].tokens[3]], ..Options::default() };
    let hooks = Hooks { on_token: Some(&mut hear), ..Hooks::default() };
    let all = generate(&f.model, &rows, Some(&f.constant_prompt()), &options, hooks).unwrap();
    assert_eq!(heard, all.iter().map(|g| g.tokens.clone()).collect::<Vec<_>>());
}

#[test]
fn stop_strings_cut_the_text() {
    let f = Fixture::open("gpt2-text");
    let tokenizer = Tokenizer::open(&folder("gpt2-text")).unwrap();
    let hooks = || Hooks { tokenizer: Some(&tokenizer), ..Hooks::default() };
    let rows = rows(&f, 7);
    let options = Options { max_new_tokens: 16, sampling: sampled(9), ..Options::default() };
    let free = generate(&f.model, &rows, Some(&f.constant_prompt()), &options, hooks()).unwrap();
    let whole = free[0].text.clone().unwrap();
    assert_eq!(whole, tokenizer.decode(&free[0].tokens, true).unwrap());
    // a piece from the middle of the text, whatever the tokens are
    let (from, to) = (whole.chars().count() / 3, whole.chars().count() / 3 + 3);
    let stop: String = whole.chars().skip(from).take(to - from).collect();
    let options = Options { stop: vec!["never in there".into(), stop.clone()], ..options };
    let stopped = generate(&f.model, &rows, Some(&f.constant_prompt()), &options, hooks()).unwrap();
    for (free, stopped) in free.iter().zip(&stopped) {
        let text = free.text.as_ref().unwrap();
        let expected = text.find(&stop).map_or(text.as_str(), |at| &text[..at]);
        assert_eq!(stopped.text.as_deref(), Some(expected));
        assert_eq!(stopped.reason == FinishReason::Stop, text.contains(&stop));
        assert_eq!(stopped.tokens, free.tokens[..stopped.tokens.len()]);
    }
    assert_eq!(stopped[0].reason, FinishReason::Stop);
    assert!(stopped[0].tokens.len() < free[0].tokens.len());
}

#[test]
fn what_cannot_be_generated_is_refused() {
    let f = Fixture::open("gpt2-tied-f32");
    let options = Options::default();
    let cases = [
        (vec![sources(0, &[131])], "token id 131 is not in the vocabulary of 131"),
        (vec![sources(6, &[1])], "soft token 5 is asked for, but the prompt has 5 tokens"),
        (vec![sources(5, &[1]), Vec::new()], "a row has no tokens"),
        (
            vec![sources(5, &[1; 60])],
            "a row has 65 tokens (5 of the prompt and 60 of text), but the model's context window is 64",
        ),
    ];
    for (rows, expected) in cases {
        let why = refused(&f, &rows, &options);
        assert!(why.starts_with(expected), "{why}");
    }
    let row = [sources(0, &[1])];
    let stop = Options { stop: vec!["x".into()], ..Options::default() };
    assert!(refused(&f, &row, &stop).contains("stop strings need a tokenizer"));
    let hot = Options {
        sampling: Sampling { temperature: f32::INFINITY, ..Sampling::GREEDY },
        ..Options::default()
    };
    assert!(refused(&f, &row, &hot).contains("temperature is inf"));
    let beams = |beams, options: &Options| refused(&f, &row, &Options { beams, ..options.clone() });
    assert!(beams(0, &options).contains("beams is 0"));
    let warm = Options { sampling: sampled(1), ..Options::default() };
    assert!(beams(2, &warm).contains("beam search does not sample"));
    let endless = Options { length_penalty: f32::NAN, ..Options::default() };
    assert!(beams(2, &endless).contains("length penalty"));
}

#[test]
fn nan_in_the_weights_is_explained() {
    let copy = common::copy("gpt2-tied-f32");
    let path = copy.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header: usize = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let names: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let name = "transformer.h.1.mlp.c_fc.weight";
    let at = header + names[name]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let model = LanguageModel::open(copy.path()).unwrap();
    assert!(model.explain_non_finite().unwrap().contains(name));
    let refused = generate(&model, &[sources(0, &[1, 2])], None, &Options::default(), Hooks::default());
    let why = refused.expect_err("NaN must be refused").to_string();
    assert!(why.contains("not finite") && why.contains(name), "{why}");
    assert_eq!(Fixture::open("gpt2-tied-f32").model.explain_non_finite(), None);
}
