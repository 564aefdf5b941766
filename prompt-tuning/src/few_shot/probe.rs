//! Texts that the model writes itself, to rank orders of demonstrations without labelled data (Lu et al. 2022).
//!
//! Behind each order of the demonstrations the model continues the template up to where its first field ends: one text per
//! order, sampled. All of them together are what the orders are compared on.

use model::generate::{Hooks, Options, generate};
use model::{Family, Sampling, Source};

use crate::encode::{Demonstration, TaskEncoder};
use crate::error::{Error, Result};
use crate::evaluate::Examinee;
use crate::soft_prompt::SoftPrompt;
use crate::template::{Part, Template};

/// Tokens of a text.
const MOST_TOKENS: usize = 48;

/// One text for each list of demonstrations; those that are empty are left out.
///
/// # Errors
/// A model that does not continue texts, a template without exactly one field, or nothing but empty texts.
pub fn probes<D: AsRef<[Demonstration]>>(
    encoder: &TaskEncoder,
    examinee: Examinee,
    orders: &[D],
    seed: u64,
) -> Result<Vec<String>> {
    let wrong = |why: &str| Error::Input(format!("--order global-e and local-e: {why}"));
    let Examinee { model, prompt, tokenizer, batch } = examinee;
    if model.family() != Family::Causal {
        return Err(wrong("they need a model that continues texts, such as GPT-2 or Llama"));
    }
    let template = &encoder.task().template;
    if template.fields().count() != 1 {
        return Err(wrong("they need a template with one field, for which the model writes texts"));
    }
    let row = |order: &D| encoder.opening(order.as_ref());
    let rows =
        orders.iter().map(row).collect::<Result<Vec<Vec<Source>>, String>>().map_err(|why| wrong(&why))?;
    let end = end_of_field(template);
    let ends =
        |text: &str| [end, &encoder.task().separator].iter().filter_map(|end| position(text, end)).min();
    let sampling = Sampling { temperature: 1.0, seed, ..Sampling::GREEDY };
    let options = Options { max_new_tokens: MOST_TOKENS, sampling, ..Options::default() };
    let prompt = prompt.map(SoftPrompt::constant);
    let mut texts = Vec::new();
    for rows in rows.chunks(batch.max(1)) {
        let hooks = Hooks { tokenizer, ends: Some(&ends), ..Hooks::default() };
        let written = generate(model, rows, prompt.as_ref(), &options, hooks)?;
        texts.extend(written.into_iter().filter_map(|g| g.text).map(|text| text.trim().to_string()));
    }
    texts.retain(|text| !text.is_empty());
    match texts.is_empty() {
        true => Err(wrong("the model writes nothing but empty texts behind these demonstrations")),
        false => Ok(texts),
    }
}

/// The words of the template that follow its field.
fn end_of_field(template: &Template) -> &str {
    let after = template.parts().iter().skip_while(|part| !matches!(part, Part::Field(_)));
    let text = after.skip(1).find_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        _ => None,
    });
    text.unwrap_or("\n")
}

fn position(text: &str, end: &str) -> Option<usize> {
    if end.is_empty() { None } else { text.find(end) }
}
