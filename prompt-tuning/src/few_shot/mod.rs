//! Demonstrations for few-shot prompts: which examples are shown, and in which order.
//!
//! [`choose`] picks from a pool of labelled examples, once for all texts or for each text those nearest to it ([`bm25`], or
//! [`embed`]dings of the model itself); [`order`] permutes what was chosen; [`crate::shots`] sees to it that it fits.

pub mod bm25;
pub mod choose;
pub mod embed;
pub mod order;
pub mod probe;
mod similar;

pub use choose::{Choice, Pool, choose};
pub use order::Ordering;
