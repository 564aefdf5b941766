//! The operations, one file each. They are as coarse as the kernels are.

pub mod activation;
pub mod add;
pub mod attention;
pub mod cross_entropy;
pub mod embed;
pub mod gather_rows;
pub mod join;
pub mod layer_norm;
pub mod linear;
pub mod lstm;
pub mod rms_norm;
pub mod rope;
pub mod scale;
pub mod segment;
pub mod spread;
pub mod tanh;

pub use activation::{activation, gated};
pub use add::add;
pub use attention::{AttentionLayer, Intervals, Qkv, Relation, RelativeBias, attention};
pub use cross_entropy::{Scored, cross_entropy};
pub use embed::{Source, add_rows, embed};
pub use gather_rows::gather_rows;
pub use join::{beside, columns, stack};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use lstm::{Direction, lstm};
pub use rms_norm::rms_norm;
pub use rope::rope;
pub use scale::scale;
pub use segment::{segment, segment_of};
pub use spread::spread;
pub use tanh::tanh;
