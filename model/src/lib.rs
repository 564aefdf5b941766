//! Language models from Hugging Face folders and GGUF files, with weights where they lie in the checkpoint.
//!
//! Reading order: [`forest`] (how rows of tokens become a batch without padding), [`config`], then [`gpt2`] beside
//! [`llama`] (the same items in the same order), [`language_model`] (what the rest of the world uses), [`cache`] and
//! [`mod@generate`].

#![forbid(unsafe_code)]

pub mod cache;
pub mod config;
pub mod error;
mod fingerprint;
mod gguf;
pub mod forest;
pub mod generate;
pub mod gpt2;
pub mod language_model;
pub mod llama;
mod read;
pub mod rope;
pub mod sample;
pub mod tokenizer;

pub use autograd::ops::Source;
pub use cache::KvCache;
pub use config::{Architecture, Config};
pub use error::{Error, Result};
pub use forest::{Forest, PackedBatch, Row};
pub use generate::{FinishReason, Generated, Hooks, generate};
pub use language_model::{LanguageModel, Step};
pub use sample::Sampling;
pub use tokenizer::Tokenizer;
