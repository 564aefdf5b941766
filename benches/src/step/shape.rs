//! Checkpoints of a known shape with random weights, and rows of token ids as long as SST-2's sentences.
//!
//! Speed and memory do not depend on the values, so this is enough to measure a model nobody has to download.
//! `scripts/make_gpt2_shape.py` writes the same for who has Python.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;

use kernels::testing::Rng;
use safetensors::Dtype as FileDtype;
use serde_json::{Value, json};

use crate::data::{self, Dtype, Numbers};

/// Which architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// GPT-2.
    Gpt2,
    /// Llama.
    Llama,
    /// BERT with the head of a masked language model.
    Bert,
    /// T5 v1.0: `n_layers` blocks in the encoder and as many in the decoder, heads that fill `d_model`.
    T5,
}

/// Sizes of a model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Which architecture.
    pub family: Family,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Inner width of the MLP.
    pub d_ff: usize,
    /// Rows of the embedding, which is the head too.
    pub vocab_size: usize,
    /// Context window.
    pub n_positions: usize,
    /// Of the weights.
    pub dtype: Dtype,
}

/// GPT-2 small.
pub const GPT2_SMALL: Shape = Shape {
    family: Family::Gpt2,
    d_model: 768,
    n_layers: 12,
    n_heads: 12,
    n_kv_heads: 12,
    d_ff: 3072,
    vocab_size: 50257,
    n_positions: 1024,
    dtype: Dtype::F32,
};

/// T5 small.
pub const T5_SMALL: Shape = Shape {
    family: Family::T5,
    d_model: 512,
    n_layers: 6,
    n_heads: 8,
    n_kv_heads: 8,
    d_ff: 2048,
    vocab_size: 32128,
    n_positions: 512,
    dtype: Dtype::F32,
};

/// BERT base, uncased.
pub const BERT_BASE: Shape = Shape {
    family: Family::Bert,
    d_model: 768,
    n_layers: 12,
    n_heads: 12,
    n_kv_heads: 12,
    d_ff: 3072,
    vocab_size: 30522,
    n_positions: 512,
    dtype: Dtype::F32,
};

/// Llama 3.2 1B.
pub const LLAMA_1B_BF16: Shape = Shape {
    family: Family::Llama,
    d_model: 2048,
    n_layers: 16,
    n_heads: 32,
    n_kv_heads: 8,
    d_ff: 8192,
    vocab_size: 128_256,
    n_positions: 2048,
    dtype: Dtype::Bf16,
};

/// Writes `config.json`, `model.safetensors` and `rows.jsonl` with `rows` rows into `folder`. One tensor at a time is in
/// memory.
///
/// # Errors
/// A file cannot be written.
pub fn write(shape: &Shape, folder: &Path, rows: usize, seed: u64) -> Result<(), String> {
    let failed = |name: &str, e: &dyn std::fmt::Display| format!("{}: {e}", folder.join(name).display());
    let text =
        |name: &str, text: String| std::fs::write(folder.join(name), text).map_err(|e| failed(name, &e));
    text("config.json", shape.config().to_string())?;
    text("rows.jsonl", make_rows(shape, rows, seed))?;
    let tensors = shape.tensors();
    let random = tensors.into_iter().enumerate().map(|(i, (name, size))| {
        let kind = if size.len() == 2 {
            Fill::Matrix
        } else if name.ends_with("bias") {
            Fill::Zero
        } else {
            Fill::One
        };
        (name, Random { size, kind, dtype: shape.dtype, seed: seed + 1 + i as u64 })
    });
    safetensors::serialize_to_file(random, None, &folder.join("model.safetensors"))
        .map_err(|e| failed("model.safetensors", &e))
}

/// As a fresh model: matrices of variance 0.02², biases 0, weights of norms 1.
enum Fill {
    Matrix,
    Zero,
    One,
}

/// A tensor that is made when it is written.
struct Random {
    size: Vec<usize>,
    kind: Fill,
    dtype: Dtype,
    seed: u64,
}

impl safetensors::View for Random {
    fn dtype(&self) -> FileDtype {
        match self.dtype {
            Dtype::F32 => FileDtype::F32,
            Dtype::F16 => FileDtype::F16,
            Dtype::Bf16 => FileDtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.size
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let n = self.size.iter().product();
        let numbers = match self.kind {
            Fill::Matrix => data::normals(self.seed, n, 0.02),
            Fill::Zero => vec![0.0; n],
            Fill::One => vec![1.0; n],
        };
        // the file is little-endian, and so is every CPU that runs this
        let bytes = match &Numbers::round(numbers, self.dtype) {
            Numbers::F32(x) => bytemuck::cast_slice(x).to_vec(),
            Numbers::F16(x) => bytemuck::cast_slice(x).to_vec(),
            Numbers::Bf16(x) => bytemuck::cast_slice(x).to_vec(),
        };
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.size.iter().product::<usize>() * self.dtype.size()
    }
}

/// Rows of 6 to 66 tokens, about 25 on average; the last token is the completion, or hidden by a mask.
fn make_rows(shape: &Shape, rows: usize, seed: u64) -> String {
    let mut rng = Rng(seed);
    let mut out = String::new();
    for _ in 0..rows {
        let length = (3.1 + 0.5 * rng.normal()).exp().round().clamp(6.0, 66.0) as usize;
        let mut ids: Vec<usize> = (0..length).map(|_| rng.below(shape.vocab_size)).collect();
        let last = ids.pop().expect("six tokens or more");
        let row = match shape.family {
            Family::Bert => {
                ids.push(0);
                json!({ "ids": ids, "mask_positions": [length - 1], "labels": [last] })
            }
            Family::Gpt2 | Family::Llama | Family::T5 => {
                json!({ "prompt_ids": ids, "completion_ids": [last] })
            }
        };
        let _ = writeln!(out, "{row}");
    }
    out
}

impl Shape {
    fn config(&self) -> Value {
        match self.family {
            Family::Gpt2 => json!({
                "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new",
                "n_embd": self.d_model, "n_layer": self.n_layers, "n_head": self.n_heads, "n_inner": self.d_ff,
                "n_positions": self.n_positions, "vocab_size": self.vocab_size, "tie_word_embeddings": true,
            }),
            Family::Llama => json!({
                "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
                "hidden_size": self.d_model, "num_hidden_layers": self.n_layers,
                "num_attention_heads": self.n_heads, "num_key_value_heads": self.n_kv_heads,
                "intermediate_size": self.d_ff, "max_position_embeddings": self.n_positions,
                "vocab_size": self.vocab_size, "rope_theta": 500_000.0, "tie_word_embeddings": true,
            }),
            Family::Bert => json!({
                "model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_act": "gelu",
                "hidden_size": self.d_model, "num_hidden_layers": self.n_layers, "num_attention_heads": self.n_heads,
                "intermediate_size": self.d_ff, "max_position_embeddings": self.n_positions,
                "vocab_size": self.vocab_size, "type_vocab_size": 2,
            }),
            Family::T5 => json!({
                "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "feed_forward_proj": "relu",
                "d_model": self.d_model, "num_layers": self.n_layers, "num_heads": self.n_heads,
                "d_kv": self.d_model / self.n_heads, "d_ff": self.d_ff, "vocab_size": self.vocab_size,
                "decoder_start_token_id": 0, "tie_word_embeddings": true,
            }),
        }
    }

    /// Name and size of each tensor.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        match self.family {
            Family::Gpt2 => self.gpt2(),
            Family::Llama => self.llama(),
            Family::Bert => self.bert(),
            Family::T5 => self.t5(),
        }
    }

    fn gpt2(&self) -> Vec<(String, Vec<usize>)> {
        let (d, ff) = (self.d_model, self.d_ff);
        let mut list = vec![
            ("transformer.wte.weight".into(), vec![self.vocab_size, d]),
            ("transformer.wpe.weight".into(), vec![self.n_positions, d]),
        ];
        let mut with_bias = |name: String, size: Vec<usize>| {
            list.push((format!("{name}.bias"), size[size.len() - 1..].to_vec()));
            list.push((format!("{name}.weight"), size));
        };
        for i in 0..self.n_layers {
            let mut layer =
                |part: &str, size: &[usize]| with_bias(format!("transformer.h.{i}.{part}"), size.into());
            layer("ln_1", &[d]);
            layer("attn.c_attn", &[d, 3 * d]);
            layer("attn.c_proj", &[d, d]);
            layer("ln_2", &[d]);
            layer("mlp.c_fc", &[d, ff]);
            layer("mlp.c_proj", &[ff, d]);
        }
        with_bias("transformer.ln_f".into(), vec![d]);
        list
    }

    fn bert(&self) -> Vec<(String, Vec<usize>)> {
        let (d, ff) = (self.d_model, self.d_ff);
        let mut list = vec![("cls.predictions.bias".into(), vec![self.vocab_size])];
        for (table, rows) in [("word", self.vocab_size), ("position", self.n_positions), ("token_type", 2)] {
            list.push((format!("bert.embeddings.{table}_embeddings.weight"), vec![rows, d]));
        }
        // matrices are [out, in]; a norm has one size
        let mut with_bias = |name: String, size: &[usize]| {
            list.push((format!("{name}.weight"), size.into()));
            list.push((format!("{name}.bias"), size[..1].into()));
        };
        with_bias("bert.embeddings.LayerNorm".into(), &[d]);
        for i in 0..self.n_layers {
            let mut layer =
                |part: &str, size: &[usize]| with_bias(format!("bert.encoder.layer.{i}.{part}"), size);
            ["query", "key", "value"]
                .iter()
                .for_each(|part| layer(&format!("attention.self.{part}"), &[d, d]));
            layer("attention.output.dense", &[d, d]);
            layer("attention.output.LayerNorm", &[d]);
            layer("intermediate.dense", &[ff, d]);
            layer("output.dense", &[d, ff]);
            layer("output.LayerNorm", &[d]);
        }
        with_bias("cls.predictions.transform.dense".into(), &[d, d]);
        with_bias("cls.predictions.transform.LayerNorm".into(), &[d]);
        list
    }

    fn t5(&self) -> Vec<(String, Vec<usize>)> {
        let (d, ff) = (self.d_model, self.d_ff);
        let mut list = vec![("shared.weight".into(), vec![self.vocab_size, d])];
        for (stack, attentions) in
            [("encoder", &["SelfAttention"][..]), ("decoder", &["SelfAttention", "EncDecAttention"])]
        {
            list.push((format!("{stack}.final_layer_norm.weight"), vec![d]));
            let bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight";
            list.push((format!("{stack}.{bias}"), vec![32, self.n_heads]));
            for i in 0..self.n_layers {
                let mut layer = |layer: usize, part: &str, size: &[usize]| {
                    list.push((format!("{stack}.block.{i}.layer.{layer}.{part}.weight"), size.into()));
                };
                for (at, attention) in attentions.iter().enumerate() {
                    layer(at, "layer_norm", &[d]);
                    ["q", "k", "v", "o"]
                        .iter()
                        .for_each(|part| layer(at, &format!("{attention}.{part}"), &[d, d]));
                }
                layer(attentions.len(), "layer_norm", &[d]);
                layer(attentions.len(), "DenseReluDense.wi", &[ff, d]);
                layer(attentions.len(), "DenseReluDense.wo", &[d, ff]);
            }
        }
        list
    }

    fn llama(&self) -> Vec<(String, Vec<usize>)> {
        let (d, ff) = (self.d_model, self.d_ff);
        let kv = d / self.n_heads * self.n_kv_heads;
        let mut list = vec![
            ("model.embed_tokens.weight".into(), vec![self.vocab_size, d]),
            ("model.norm.weight".into(), vec![d]),
        ];
        for i in 0..self.n_layers {
            let mut layer = |part: &str, size: &[usize]| {
                list.push((format!("model.layers.{i}.{part}.weight"), size.into()));
            };
            layer("input_layernorm", &[d]);
            layer("self_attn.q_proj", &[d, d]);
            layer("self_attn.k_proj", &[kv, d]);
            layer("self_attn.v_proj", &[kv, d]);
            layer("self_attn.o_proj", &[d, d]);
            layer("post_attention_layernorm", &[d]);
            layer("mlp.gate_proj", &[ff, d]);
            layer("mlp.up_proj", &[ff, d]);
            layer("mlp.down_proj", &[d, ff]);
        }
        list
    }
}
