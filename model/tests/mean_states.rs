//! The mean of the hidden states of a text, against transformers and against the text alone.

mod common;

use common::{Fixture, MASKED, T5, floats, ids, sources};
use kernels::testing::{Rng, Tolerance, close};
use prompt_tuning_model::{LanguageModel, Source};

fn means(model: &LanguageModel, rows: &[Vec<Source>]) -> Vec<Vec<f32>> {
    let means = model.mean_states(rows).expect("rows that fit");
    assert_eq!(means.shape(), [rows.len(), model.config().d_model]);
    means.f32s().chunks_exact(means.width()).map(<[f32]>::to_vec).collect()
}

#[test]
fn what_transformers_computes() {
    let recorded: serde_json::Value =
        serde_json::from_str(include_str!("fixtures/mean-states.json")).unwrap();
    let rows: Vec<_> = recorded["rows"].as_array().unwrap().iter().map(|r| sources(0, &ids(r))).collect();
    let names = ["gpt2-square", "llama-gqa-tied-bf16", "qwen2-bias-tied"].into_iter().chain(MASKED).chain(T5);
    for name in names {
        let expected = recorded["means"][name].as_array().unwrap();
        for (i, mean) in means(&Fixture::open(name).model, &rows).iter().enumerate() {
            close(mean, &floats(&expected[i]), Tolerance { absolute: 1e-5, relative: 1e-5 })
                .unwrap_or_else(|e| panic!("{name} {i}: {e}"));
        }
    }
}

/// Rows with common beginnings, repetitions and empty ones among them.
#[test]
fn a_row_in_any_batch_is_the_row_alone() {
    for f in ["gpt2-tied-f32", "bert-english", "t5-v1.0-relu-tied"].map(Fixture::open) {
        let mut rng = Rng(5);
        let mut rows: Vec<Vec<Source>> = vec![Vec::new()];
        for _ in 0..60 {
            let mut row = rows[rng.below(rows.len())].clone();
            row.truncate(rng.below(20));
            row.extend(
                (0..rng.below(24)).map(|_| Source::Text(rng.below(f.model.config().vocab_size) as u32)),
            );
            rows.push(row);
        }
        let packed = f.model.mean_states(&rows).unwrap();
        for i in 0..rows.len() {
            let alone = means(&f.model, std::slice::from_ref(&rows[i])).remove(0);
            let in_batch = &packed.f32s()[i * packed.width()..][..packed.width()];
            if rows[i].is_empty() {
                assert!(alone.iter().chain(in_batch).all(|&x| x == 0.0));
            } else {
                close(in_batch, &alone, Tolerance { absolute: 4e-6, relative: 4e-6 })
                    .unwrap_or_else(|e| panic!("{} {i}: {e}", f.name));
            }
        }
    }
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let f = Fixture::open("gpt2-tied-f32");
    let refusal = |row: Vec<Source>| f.model.mean_states(&[row]).unwrap_err().to_string();
    assert!(refusal(vec![Source::Text(5000)]).contains("token id 5000"));
    assert!(refusal(vec![Source::Text(1); 5000]).contains("context window"));
    assert!(refusal(vec![Source::Soft(0)]).contains("soft token 0"));
}
