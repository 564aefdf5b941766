//! Random checkpoints of any size, written by the test that wants one.

use std::path::Path;

use kernels::testing::Rng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

#[derive(Clone, Copy)]
pub struct Shape {
    pub d_model: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub d_ff: usize,
    pub vocab_size: usize,
}

pub struct Synthetic {
    pub config: Value,
    pub tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Synthetic {
    pub fn gpt2(s: Shape, seed: u64) -> Synthetic {
        let (d, v) = (s.d_model, s.vocab_size);
        let config = json!({
            "model_type": "gpt2", "n_embd": d, "n_head": s.n_heads, "n_layer": s.n_layers, "n_inner": s.d_ff,
            "n_positions": 256, "vocab_size": v,
        });
        let mut names = vec![("wte.weight".into(), vec![v, d]), ("wpe.weight".into(), vec![256, d])];
        for i in 0..s.n_layers {
            let mut add = |name: &str, shape: &[usize]| {
                names.push((format!("h.{i}.{name}.weight"), shape.to_vec()));
                names.push((format!("h.{i}.{name}.bias"), shape[shape.len() - 1..].to_vec()));
            };
            add("ln_1", &[d]);
            add("attn.c_attn", &[d, 3 * d]);
            add("attn.c_proj", &[d, d]);
            add("ln_2", &[d]);
            add("mlp.c_fc", &[d, s.d_ff]);
            add("mlp.c_proj", &[s.d_ff, d]);
        }
        names.extend([("ln_f.weight".into(), vec![d]), ("ln_f.bias".into(), vec![d])]);
        Synthetic::fill(config, names, seed)
    }

    pub fn llama(s: Shape, seed: u64) -> Synthetic {
        let (d, v, head_dim) = (s.d_model, s.vocab_size, s.d_model / s.n_heads);
        let config = json!({
            "model_type": "llama", "hidden_size": d, "num_attention_heads": s.n_heads,
            "num_key_value_heads": s.n_kv_heads, "num_hidden_layers": s.n_layers, "intermediate_size": s.d_ff,
            "max_position_embeddings": 256, "vocab_size": v, "rope_theta": 100.0,
        });
        let mut names =
            vec![("model.embed_tokens.weight".into(), vec![v, d]), ("model.norm.weight".into(), vec![d])];
        for i in 0..s.n_layers {
            let mut add = |name: &str, shape: &[usize]| {
                names.push((format!("model.layers.{i}.{name}.weight"), shape.to_vec()));
            };
            add("input_layernorm", &[d]);
            add("self_attn.q_proj", &[d, d]);
            add("self_attn.k_proj", &[s.n_kv_heads * head_dim, d]);
            add("self_attn.v_proj", &[s.n_kv_heads * head_dim, d]);
            add("self_attn.o_proj", &[d, d]);
            add("post_attention_layernorm", &[d]);
            add("mlp.gate_proj", &[s.d_ff, d]);
            add("mlp.up_proj", &[s.d_ff, d]);
            add("mlp.down_proj", &[d, s.d_ff]);
        }
        Synthetic::fill(config, names, seed)
    }

    pub fn bert(s: Shape, seed: u64) -> Synthetic {
        let (d, v) = (s.d_model, s.vocab_size);
        let config = json!({
            "model_type": "bert", "hidden_size": d, "num_attention_heads": s.n_heads, "num_hidden_layers": s.n_layers,
            "intermediate_size": s.d_ff, "max_position_embeddings": 256, "vocab_size": v, "type_vocab_size": 2,
        });
        let mut names: Vec<(String, Vec<usize>)> = vec![
            ("bert.embeddings.word_embeddings.weight".into(), vec![v, d]),
            ("bert.embeddings.position_embeddings.weight".into(), vec![256, d]),
            ("bert.embeddings.token_type_embeddings.weight".into(), vec![2, d]),
            ("cls.predictions.bias".into(), vec![v]),
        ];
        let mut add = |name: &str, shape: &[usize]| {
            names.push((format!("{name}.weight"), shape.to_vec()));
            names.push((format!("{name}.bias"), shape[..1].to_vec()));
        };
        add("bert.embeddings.LayerNorm", &[d]);
        for i in 0..s.n_layers {
            let name = |part: &str| format!("bert.encoder.layer.{i}.{part}");
            for part in ["self.query", "self.key", "self.value", "output.dense"] {
                add(&name(&format!("attention.{part}")), &[d, d]);
            }
            add(&name("attention.output.LayerNorm"), &[d]);
            add(&name("intermediate.dense"), &[s.d_ff, d]);
            add(&name("output.dense"), &[d, s.d_ff]);
            add(&name("output.LayerNorm"), &[d]);
        }
        add("cls.predictions.transform.dense", &[d, d]);
        add("cls.predictions.transform.LayerNorm", &[d]);
        Synthetic::fill(config, names, seed)
    }

    /// v1.1: gated, heads of half the width that would fill `d_model`, tied head.
    pub fn t5(s: Shape, seed: u64) -> Synthetic {
        let (d, v, d_kv) = (s.d_model, s.vocab_size, s.d_model / s.n_heads / 2);
        let inner = s.n_heads * d_kv;
        let config = json!({
            "model_type": "t5", "d_model": d, "num_heads": s.n_heads, "d_kv": d_kv, "num_layers": s.n_layers,
            "d_ff": s.d_ff, "vocab_size": v, "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0,
            "relative_attention_num_buckets": 8, "relative_attention_max_distance": 6,
        });
        let mut names = vec![("shared.weight".into(), vec![v, d])];
        for (stack, attentions) in
            [("encoder", &["SelfAttention"][..]), ("decoder", &["SelfAttention", "EncDecAttention"])]
        {
            names.push((format!("{stack}.final_layer_norm.weight"), vec![d]));
            let bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight";
            names.push((format!("{stack}.{bias}"), vec![8, s.n_heads]));
            for i in 0..s.n_layers {
                let mut add = |layer: usize, name: &str, shape: &[usize]| {
                    names.push((format!("{stack}.block.{i}.layer.{layer}.{name}.weight"), shape.to_vec()));
                };
                for (layer, attention) in attentions.iter().enumerate() {
                    add(layer, "layer_norm", &[d]);
                    for part in ["q", "k", "v"] {
                        add(layer, &format!("{attention}.{part}"), &[inner, d]);
                    }
                    add(layer, &format!("{attention}.o"), &[d, inner]);
                }
                let mlp = attentions.len();
                add(mlp, "layer_norm", &[d]);
                add(mlp, "DenseReluDense.wi_0", &[s.d_ff, d]);
                add(mlp, "DenseReluDense.wi_1", &[s.d_ff, d]);
                add(mlp, "DenseReluDense.wo", &[d, s.d_ff]);
            }
        }
        Synthetic::fill(config, names, seed)
    }

    fn fill(config: Value, names: Vec<(String, Vec<usize>)>, seed: u64) -> Synthetic {
        let mut rng = Rng(seed);
        let tensors = names.into_iter().map(|(name, shape)| {
            let norm = shape.len() == 1 && name.ends_with("weight");
            let scale = if shape.len() == 2 { (shape[0] as f32).sqrt().recip() } else { 0.2 };
            let shift = if norm { 1.0 } else { 0.0 };
            let data = rng.normals(shape.iter().product()).into_iter().map(|x| shift + scale * x).collect();
            (name, shape, data)
        });
        Synthetic { config, tensors: tensors.collect() }
    }

    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        let views = self.tensors.iter().map(|(name, shape, data)| {
            (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(data)).unwrap())
        });
        safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.iter().any(|(n, ..)| n == name)
    }

    /// The numbers of a tensor in f64.
    pub fn wide(&self, name: &str) -> Vec<f64> {
        let (.., data) = self.tensors.iter().find(|(n, ..)| n == name).unwrap_or_else(|| panic!("no {name}"));
        data.iter().map(|&x| f64::from(x)).collect()
    }
}
