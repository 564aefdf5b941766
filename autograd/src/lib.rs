//! The tape: which values need gradients, what each operation remembers, how it goes backward.
//!
//! A [`Value`] is a tensor and, when a gradient must flow through it, the number of its node on the [`Tape`]. A value
//! without a node is a constant: operations on constants record nothing, so inference is training without leaves.
//!
//! A [`Weight`] is frozen or trainable. A frozen one enters operations and never becomes a leaf: an operation over it
//! remembers nothing for its gradient and computes none. A trainable one is a value like any other.
//!
//! What backward needs and nothing else is remembered: [`tape`] says how rows whose gradient nobody wants are left out, and
//! [`ops::segment()`] how even the rest can be traded for one more forward pass.
//!
//! Each operation is one file in [`ops`]: formula, forward, what is remembered, backward.

pub mod linear;
pub mod ops;
pub mod tape;
pub mod weight;

pub use linear::Linear;
pub use tape::{Gradients, NodeId, Op, Tape, Value};
pub use weight::Weight;
