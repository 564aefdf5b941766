//! A language model from nothing but text: what has to be there before the first step of training.
//!
//! ```text
//! corpus       files            -> documents, split into train and valid
//! tokenizer    documents        -> tokenizer.json, a byte-level BPE of their language
//! initial      a shape, a seed  -> config.json and model.safetensors with random weights
//! blocks       documents        -> token ids -> blocks as long as the context -> rows that score them
//! ```
//!
//! The folder of `tokenizer` and `initial` together is a model as any other: [`model::LanguageModel`] and transformers open it.

pub mod blocks;
pub mod corpus;
pub mod initial;
pub mod tokenizer;

#[cfg(test)]
mod tests;
