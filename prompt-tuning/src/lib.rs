//! Prompt tuning: adapting a frozen language model by what is put in front of it.
//!
//! The model's weights stay in a read-only memory map of the original file; a soft prompt of a few vectors is all that is trained,
//! unless copies of the weights are, for comparison. Reading order: [`template`] and [`task`] (what is put around a text), [`data`] and
//! [`encode`] (from files to rows of tokens), [`verbalizer`] (from answer strings to labels), [`soft_prompt`], [`init`] and [`prompt_encoder`], [`trained_weights`], [`head`], [`learner`] (either of the two), [`mod@train`], [`evaluate`], and
//! [`adapter`] (prompts on disk, as PEFT reads and writes them).
//!
//! The layers below are re-exported for crates that embed this one: [`kernels`], [`tensor`], [`autograd`], [`model`].

#![forbid(unsafe_code)]

pub mod adapter;
pub mod atomic;
pub mod checkpoint_folder;
pub mod cli;
pub mod compare;
pub mod data;
pub mod encode;
pub mod error;
pub mod evaluate;
pub mod few_shot;
pub mod fill_mask;
pub mod head;
pub mod hub;
pub mod init;
pub mod label_words;
pub mod learner;
pub mod metrics;
pub mod nearest;
pub mod npy;
mod page;
pub mod parameter;
pub mod plot;
pub mod pretrain;
pub mod prompt_encoder;
pub mod rng;
pub mod shots;
pub mod soft_prompt;
pub mod study;
pub mod task;
pub mod template;
mod text_table;
pub mod train;
pub mod trained_weights;
pub mod verbalizer;

pub use autograd;
pub use error::{Error, Result};
pub use kernels;
pub use learner::Learner;
pub use model;
pub use prompt_encoder::PromptEncoder;
pub use soft_prompt::SoftPrompt;
pub use task::Task;
pub use tensor;
