//! A real GGUF file read directly, against the same file dequantised by `scripts/gguf_to_f32.py`.
//!
//! `GGUF=model.gguf GGUF_F32=FOLDER cargo test -p prompt-tuning-model --test real_gguf -- --ignored --nocapture`

mod common;

use std::path::PathBuf;
use std::time::Instant;

use common::{forest_logits, sources};
use kernels::testing::{Tolerance, close};
use prompt_tuning_model::{Forest, LanguageModel, Tokenizer};

const TEXT: &str =
    "Review: A lovely film, if you like watching paint dry 1234.\nSentiment: negative\n\n It's";

#[test]
#[ignore = "needs a model"]
fn logits_are_those_of_the_dequantised_file() {
    let path = |name: &str| PathBuf::from(std::env::var(name).unwrap_or_else(|_| panic!("set {name}")));
    let start = Instant::now();
    let direct = LanguageModel::open(&path("GGUF")).unwrap();
    println!("opened in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    let ids = Tokenizer::open(&path("GGUF")).unwrap().encode(TEXT, false).unwrap();
    println!("tokenizer in {:.0} ms: {ids:?}", start.elapsed().as_secs_f64() * 1e3);
    assert_eq!(direct.checkpoint().copied_bytes(), 0);
    let wide = LanguageModel::open(&path("GGUF_F32")).unwrap();
    let forest = Forest::from_rows([sources(0, &ids).as_slice()]);
    let [direct, wide] = [&direct, &wide].map(|model| forest_logits(model, &forest, None));
    let apart = direct.f32s().iter().zip(wide.f32s()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{} logits, largest difference {apart:.1e}", direct.len());
    close(direct.f32s(), wide.f32s(), Tolerance { absolute: 1e-3, relative: 0.0 }).unwrap();
}
