//! Which model a prompt was made for, in 64 hex digits.
//!
//! Hashing gigabytes would take longer than many runs do. The headers name every tensor, its shape and place; blocks
//! spread evenly over the data tell two trainings of one architecture apart.

use kernels::activation::Activation;
use sha2::{Digest, Sha256};
use tensor::Checkpoint;

use crate::Config;

/// Bytes of one sampled block, and how many there are per file at most.
const BLOCK: usize = 4096;
const BLOCKS: usize = 256;

/// SHA-256 of the shape in `config`, and of size, header and sampled data of every file.
pub(crate) fn fingerprint(config: &Config, checkpoint: &Checkpoint) -> String {
    let mut hash = Sha256::new();
    hash.update(essentials(config));
    for file in checkpoint.files() {
        let bytes = file.bytes();
        hash.update((bytes.len() as u64).to_le_bytes());
        let (header, data) = bytes.split_at(header_len(checkpoint, bytes));
        hash.update(header);
        blocks(data).for_each(|block| hash.update(block));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes before the data: of a safetensors file a length and so many bytes, of a GGUF file what is before every tensor.
fn header_len(checkpoint: &Checkpoint, bytes: &[u8]) -> usize {
    if let Some(start) = checkpoint.gguf_data_start() {
        return start;
    }
    let length = bytes.first_chunk::<8>().map_or(0, |n| u64::from_le_bytes(*n)) as usize;
    length.saturating_add(8).min(bytes.len())
}

/// What changes the computation: sizes, epsilon, activation and rotation frequencies, as numbers. Names in the code
/// may change; a fingerprint that is stored beside a prompt must not.
fn essentials(c: &Config) -> Vec<u8> {
    let sizes = [c.d_model, c.n_layers, c.n_heads, c.n_kv_heads, c.head_dim, c.d_ff, c.vocab_size];
    let activation = match c.activation {
        Activation::GeluTanh => 1,
        Activation::GeluErf => 2,
        Activation::Silu => 3,
        Activation::Relu => 4,
    };
    let frequencies = c.rope.as_ref().map_or_else(Vec::new, |rope| rope.frequencies(c.head_dim));
    let of_decoder = c.seq2seq.iter();
    let of_decoder =
        of_decoder.flat_map(|s| [s.n_decoder_layers, s.n_buckets, s.max_distance, s.gated_mlp.into()]);
    let sizes = sizes.into_iter().chain([activation]).chain(of_decoder);
    let numbers = sizes.flat_map(|n| (n as u64).to_le_bytes());
    let frequencies = frequencies.into_iter().chain(c.seq2seq.map(|s| s.head_scale));
    numbers.chain([c.norm_eps].into_iter().chain(frequencies).flat_map(f32::to_le_bytes)).collect()
}

/// All of `data` when it is small, else [`BLOCKS`] blocks evenly spread, the first and the last block among them.
fn blocks(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let n = data.len().div_ceil(BLOCK).min(BLOCKS);
    let sampled = data.len() > BLOCK * BLOCKS;
    (0..n).map(move |i| match sampled {
        true => &data[(data.len() - BLOCK) / (n - 1) * i..][..BLOCK],
        false => &data[i * BLOCK..data.len().min((i + 1) * BLOCK)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_data_is_hashed_whole_and_large_data_from_end_to_end() {
        for len in [0, 1, BLOCK, BLOCK + 1, BLOCK * BLOCKS] {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            assert_eq!(blocks(&data).flatten().copied().collect::<Vec<_>>(), data);
        }
        let large = vec![0u8; 3 * BLOCK * BLOCKS + 17];
        let starts: Vec<usize> =
            blocks(&large).map(|b| b.as_ptr() as usize - large.as_ptr() as usize).collect();
        assert_eq!((starts.len(), starts[0]), (BLOCKS, 0));
        assert!(starts.is_sorted() && large.len() - starts[BLOCKS - 1] < 2 * BLOCK);
    }
}
