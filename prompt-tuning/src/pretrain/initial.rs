//! A model that knows nothing: the files of a Hugging Face folder, `config.json` and `model.safetensors` (f32), with random
//! weights.
//!
//! ```text
//! matrices, embeddings    N(0, 0.02²)
//! GPT-2's c_proj          N(0, 0.02² / 2 n_layers)     each block adds two of them to the residual stream, whose
//!                                                      variance then does not grow with the depth
//! norms                   weight 1, bias 0
//! other biases            0
//! ```
//!
//! Sources: Radford et al. 2019, section 2.3; Devlin et al. 2018 and its code. The head is the token embedding.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::atomic;
use crate::error::{Error, Result};
use crate::rng::Rng;

/// Standard deviation of a weight.
const STD: f64 = 0.02;

/// The architectures that can be trained from nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `GPT2LMHeadModel`, causal.
    Gpt2,
    /// `BertForMaskedLM`, with one kind of token (`type_vocab_size` 1).
    Bert,
}

/// The shape of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How it is wired.
    pub architecture: Architecture,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Context window, in tokens.
    pub n_positions: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Attention heads; they share `d_model` evenly.
    pub n_heads: usize,
    /// Inner width of the MLP, mostly `4 d_model`.
    pub d_ff: usize,
}

/// What a tensor starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    /// Normal, with this standard deviation.
    Normal(f64),
    One,
    Zero,
}

/// A tensor to be made.
#[derive(Clone, Debug, PartialEq)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    start: Start,
}

impl Shape {
    /// Number of parameters, the shared head counted once.
    pub fn n_parameters(&self) -> usize {
        self.tensors().iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
    }

    /// Writes `config.json` and `model.safetensors` into `folder`. The same seed gives the same bytes. Special tokens have the
    /// ids that [`super::tokenizer`] gives them.
    ///
    /// # Errors
    /// [`Error::Input`] for a shape that no model can have, [`Error::Write`].
    pub fn write(&self, folder: &Path, seed: u64) -> Result<()> {
        self.check()?;
        let rng = Rng::new(seed);
        let tensors = self.tensors();
        let bytes: Vec<Vec<u8>> =
            tensors.iter().enumerate().map(|(i, tensor)| tensor.values(rng.fork(i as u64))).collect();
        let failed = |e: safetensors::SafeTensorError| Error::Failure(format!("weights cannot be made: {e}"));
        let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map_err(failed)?;
            Ok((tensor.name.clone(), view))
        });
        let views: Vec<_> = views.collect::<Result<_>>()?;
        let metadata = [("format".to_string(), "pt".to_string())].into();
        let file = safetensors::serialize(views, Some(metadata)).map_err(failed)?;
        let config = serde_json::to_string_pretty(&self.config()).expect("strings and numbers become JSON");
        atomic::write(&folder.join("model.safetensors"), &file)?;
        atomic::write(&folder.join("config.json"), (config + "\n").as_bytes())
    }

    fn check(&self) -> Result<()> {
        let Shape { vocab_size, n_positions, d_model, n_layers, n_heads, d_ff, .. } = *self;
        let sizes = [
            ("vocabulary", vocab_size),
            ("context window", n_positions),
            ("width", d_model),
            ("number of layers", n_layers),
            ("number of heads", n_heads),
            ("inner width", d_ff),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, n)| *n == 0) {
            return Err(Error::Input(format!("the {name} of the model is 0, but must be at least 1")));
        }
        match d_model % n_heads {
            0 => Ok(()),
            _ => Err(Error::Input(format!(
                "a width of {d_model} cannot be divided among {n_heads} heads; choose a multiple of {n_heads}"
            ))),
        }
    }

    /// Every tensor of the checkpoint, in the order of the computation.
    fn tensors(&self) -> Vec<Tensor> {
        match self.architecture {
            Architecture::Gpt2 => gpt2(self),
            Architecture::Bert => bert(self),
        }
    }

    /// As transformers writes it. No dropout: a small model sees its text a few times only.
    fn config(&self) -> Value {
        match self.architecture {
            Architecture::Gpt2 => json!({
                "activation_function": "gelu_new",
                "architectures": ["GPT2LMHeadModel"],
                "attn_pdrop": 0.0,
                "bos_token_id": 0,
                "dtype": "float32",
                "embd_pdrop": 0.0,
                "eos_token_id": 0,
                "initializer_range": STD,
                "layer_norm_epsilon": 1e-5,
                "model_type": "gpt2",
                "n_embd": self.d_model,
                "n_head": self.n_heads,
                "n_inner": self.d_ff,
                "n_layer": self.n_layers,
                "n_positions": self.n_positions,
                "resid_pdrop": 0.0,
                "tie_word_embeddings": true,
                "vocab_size": self.vocab_size,
            }),
            Architecture::Bert => json!({
                "architectures": ["BertForMaskedLM"],
                "attention_probs_dropout_prob": 0.0,
                "dtype": "float32",
                "hidden_act": "gelu",
                "hidden_dropout_prob": 0.0,
                "hidden_size": self.d_model,
                "initializer_range": STD,
                "intermediate_size": self.d_ff,
                "layer_norm_eps": 1e-12,
                "max_position_embeddings": self.n_positions,
                "model_type": "bert",
                "num_attention_heads": self.n_heads,
                "num_hidden_layers": self.n_layers,
                "pad_token_id": 0,
                "tie_word_embeddings": true,
                "type_vocab_size": 1,
                "vocab_size": self.vocab_size,
            }),
        }
    }
}

impl Tensor {
    fn new(name: String, shape: &[usize], start: Start) -> Tensor {
        Tensor { name, shape: shape.to_vec(), start }
    }

    /// f32, little-endian.
    fn values(&self, mut rng: Rng) -> Vec<u8> {
        let n = self.shape.iter().product();
        let value = || match self.start {
            Start::Normal(std) => (std * rng.normal()) as f32,
            Start::One => 1.0,
            Start::Zero => 0.0,
        };
        std::iter::repeat_with(value).take(n).flat_map(f32::to_le_bytes).collect()
    }
}

/// `{name}.weight` and `{name}.bias` of a norm.
fn norm(name: &str, d_model: usize) -> [Tensor; 2] {
    [
        Tensor::new(format!("{name}.weight"), &[d_model], Start::One),
        Tensor::new(format!("{name}.bias"), &[d_model], Start::Zero),
    ]
}

/// `{name}.weight`, whose shape is given as the file has it, and `{name}.bias` of `n_out` zeros.
fn linear(name: &str, shape: [usize; 2], n_out: usize, std: f64) -> [Tensor; 2] {
    [
        Tensor::new(format!("{name}.weight"), &shape, Start::Normal(std)),
        Tensor::new(format!("{name}.bias"), &[n_out], Start::Zero),
    ]
}

/// Matrices are `[in, out]`.
fn gpt2(shape: &Shape) -> Vec<Tensor> {
    let Shape { vocab_size, n_positions, d_model: d, n_layers, d_ff, .. } = *shape;
    let onto_residual = STD / (2.0 * n_layers as f64).sqrt();
    let conv1d = |name: String, n_in, n_out, std| linear(&name, [n_in, n_out], n_out, std);
    let mut tensors = vec![
        Tensor::new("transformer.wte.weight".into(), &[vocab_size, d], Start::Normal(STD)),
        Tensor::new("transformer.wpe.weight".into(), &[n_positions, d], Start::Normal(STD)),
    ];
    for i in 0..n_layers {
        let block = format!("transformer.h.{i}");
        tensors.extend(norm(&format!("{block}.ln_1"), d));
        tensors.extend(conv1d(format!("{block}.attn.c_attn"), d, 3 * d, STD));
        tensors.extend(conv1d(format!("{block}.attn.c_proj"), d, d, onto_residual));
        tensors.extend(norm(&format!("{block}.ln_2"), d));
        tensors.extend(conv1d(format!("{block}.mlp.c_fc"), d, d_ff, STD));
        tensors.extend(conv1d(format!("{block}.mlp.c_proj"), d_ff, d, onto_residual));
    }
    tensors.extend(norm("transformer.ln_f", d));
    tensors
}

/// Matrices are `[out, in]`.
fn bert(shape: &Shape) -> Vec<Tensor> {
    let Shape { vocab_size, n_positions, d_model: d, n_layers, d_ff, .. } = *shape;
    let dense = |name: String, n_in, n_out| linear(&name, [n_out, n_in], n_out, STD);
    let table = |part: &str, rows| {
        Tensor::new(format!("bert.embeddings.{part}_embeddings.weight"), &[rows, d], Start::Normal(STD))
    };
    let mut tensors = vec![table("word", vocab_size), table("position", n_positions), table("token_type", 1)];
    tensors.extend(norm("bert.embeddings.LayerNorm", d));
    for i in 0..n_layers {
        let block = format!("bert.encoder.layer.{i}");
        for part in ["query", "key", "value"] {
            tensors.extend(dense(format!("{block}.attention.self.{part}"), d, d));
        }
        tensors.extend(dense(format!("{block}.attention.output.dense"), d, d));
        tensors.extend(norm(&format!("{block}.attention.output.LayerNorm"), d));
        tensors.extend(dense(format!("{block}.intermediate.dense"), d, d_ff));
        tensors.extend(dense(format!("{block}.output.dense"), d_ff, d));
        tensors.extend(norm(&format!("{block}.output.LayerNorm"), d));
    }
    tensors.extend(dense("cls.predictions.transform.dense".into(), d, d));
    tensors.extend(norm("cls.predictions.transform.LayerNorm", d));
    tensors.push(Tensor::new("cls.predictions.bias".into(), &[vocab_size], Start::Zero));
    tensors
}

#[cfg(test)]
mod tests {
    use ::tensor::Checkpoint;
    use model::{Family, LanguageModel};

    use super::*;

    fn small(architecture: Architecture) -> Shape {
        Shape {
            architecture,
            vocab_size: 300,
            n_positions: 24,
            d_model: 64,
            n_layers: 3,
            n_heads: 4,
            d_ff: 96,
        }
    }

    #[test]
    fn parameters_are_those_of_the_published_models() {
        let base = |architecture, vocab_size, n_positions| Shape {
            architecture,
            vocab_size,
            n_positions,
            d_model: 768,
            n_layers: 12,
            n_heads: 12,
            d_ff: 3072,
        };
        // GPT-2 small; bert-base-uncased with its masked-language-model head, without the second kind of token
        assert_eq!(base(Architecture::Gpt2, 50257, 1024).n_parameters(), 124_439_808);
        assert_eq!(base(Architecture::Bert, 30522, 512).n_parameters(), 109_514_298 - 768);
    }

    #[test]
    fn the_folder_opens_with_the_shape_asked_for_and_no_tensor_is_left_over() {
        for (architecture, family) in
            [(Architecture::Gpt2, Family::Causal), (Architecture::Bert, Family::Masked)]
        {
            let (folder, shape) = (tempfile::tempdir().unwrap(), small(architecture));
            shape.write(folder.path(), 1).unwrap();
            let model = LanguageModel::open(folder.path()).unwrap();
            let config = model.config();
            assert_eq!(model.family(), family);
            assert_eq!((config.vocab_size, config.n_positions, config.d_model), (300, 24, 64));
            assert_eq!((config.n_layers, config.n_heads, config.d_ff), (3, 4, 96));
            let file = std::fs::read(folder.path().join("model.safetensors")).unwrap();
            let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            assert_eq!(file.len(), 8 + header + 4 * shape.n_parameters());
            assert_eq!(model.checkpoint().copied_bytes(), 0);
        }
    }

    #[test]
    fn weights_have_the_spread_they_should() {
        for architecture in [Architecture::Gpt2, Architecture::Bert] {
            let (folder, shape) = (tempfile::tempdir().unwrap(), small(architecture));
            shape.write(folder.path(), 1).unwrap();
            let checkpoint = Checkpoint::open(folder.path()).unwrap();
            for name in checkpoint.names() {
                let tensor = checkpoint.tensor_of_any_shape(name).unwrap().widened();
                let values = tensor.f32s();
                let n = values.len() as f64;
                let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
                let std = (values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n).sqrt();
                let is_norm = name.contains("ln_") || name.contains("LayerNorm");
                let expected = match () {
                    () if name.ends_with("bias") => (0.0, 0.0),
                    () if is_norm => (1.0, 0.0),
                    () if name.ends_with("c_proj.weight") => (0.0, 0.02 / 6f64.sqrt()),
                    () => (0.0, 0.02),
                };
                // five standard errors of the mean and of the standard deviation
                let (mean_bound, std_bound) =
                    (5.0 * expected.1 / n.sqrt(), 5.0 * expected.1 / (2.0 * n).sqrt());
                assert!((mean - expected.0).abs() <= mean_bound, "{name}: mean {mean}");
                assert!((std - expected.1).abs() <= std_bound, "{name}: standard deviation {std}");
            }
        }
    }

    #[test]
    fn a_seed_is_a_model() {
        let bytes = |seed| {
            let folder = tempfile::tempdir().unwrap();
            small(Architecture::Gpt2).write(folder.path(), seed).unwrap();
            std::fs::read(folder.path().join("model.safetensors")).unwrap()
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = |shape: Shape| {
            let error = shape.write(folder.path(), 1).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        let shape = small(Architecture::Gpt2);
        assert!(refusal(Shape { n_heads: 5, ..shape }).contains("64 cannot be divided among 5 heads"));
        assert!(refusal(Shape { d_ff: 0, ..shape }).contains("inner width"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
