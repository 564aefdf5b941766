//! Language models from Hugging Face folders and GGUF files, with weights where they lie in the checkpoint.
//!
//! Reading order: [`row`], [`forest`] and [`packed`] (how rows of tokens become a batch without padding), [`config`],
//! then [`gpt2`] beside [`llama`], [`bert`] and [`t5`] (the same items in the same order), [`language_model`] (what the
//! rest of the world uses), `classifier`, [`cache`] and
//! [`mod@generate`].

#![forbid(unsafe_code)]

mod beam;
pub mod bert;
pub mod cache;
mod chat;
mod classifier;
pub mod config;
mod decoder;
pub mod error;
mod fingerprint;
pub mod forest;
pub mod generate;
mod gguf;
pub mod gpt2;
pub mod language_model;
mod layers;
pub mod llama;
mod mean_states;
pub mod packed;
mod prompt;
mod read;
pub mod rope;
pub mod row;
pub mod sample;
pub mod t5;
pub mod tokenizer;
mod weights;

pub use autograd::ops::Source;
pub use cache::KvCache;
pub use chat::{ChatTemplate, Message};
pub use config::{Architecture, Config};
pub use error::{Error, Result};
pub use forest::Forest;
pub use generate::{FinishReason, Generated, Hooks, generate};
pub use language_model::{Encoded, LanguageModel, Step};
pub use packed::PackedBatch;
pub use prompt::Prompt;
pub use row::{Family, Prediction, Row};
pub use sample::Sampling;
pub use tokenizer::Tokenizer;
pub use weights::Trained;
