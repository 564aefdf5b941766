//! The logits a model gives after a soft prompt, as JSON: `{"ids": [...], "logits": [[...], ...]}`, one row per text
//! token. Shows how a crate uses the model, the forest and an adapter; also what
//! `scripts/make_fixtures.py --check-adapter` compares PEFT with.
//!
//! `cargo run --example prompted_logits -- MODEL_FOLDER ADAPTER_FOLDER 5,6,7`

use std::path::Path;

use prompt_tuning::adapter::Adapter;
use prompt_tuning::autograd::Tape;
use prompt_tuning::model::{Forest, LanguageModel, Source};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, adapter, ids] = &args[..] else {
        return Err("usage: MODEL_FOLDER ADAPTER_FOLDER 5,6,7".into());
    };
    let ids: Vec<u32> = ids.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let model = LanguageModel::open(Path::new(model))?;
    let prompt = Adapter::read(Path::new(adapter))?.prompt;

    // a row: the virtual tokens, unless they are a prefix, then the text
    let soft = (0..prompt.n_soft() as u32).map(Source::Soft);
    let row: Vec<Source> = soft.chain(ids.iter().map(|&id| Source::Text(id))).collect();
    let in_front = prompt.constant();
    model.check_row(&row, Some(&in_front))?;

    // a batch of one row is a forest of one path
    let forest = Forest::from_rows([&row[..]]);
    let states = model.states(&Tape::new(), &forest, Some(&in_front), (None, None));
    let logits = model.logits(states.tensor());

    let text_rows: Vec<&[f32]> = logits.f32s().chunks(logits.width()).skip(prompt.n_soft()).collect();
    println!("{}", serde_json::json!({ "ids": ids, "logits": text_rows }));
    Ok(())
}
