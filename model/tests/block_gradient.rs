//! The gradient of a whole small model with respect to the soft prompt, against finite differences in f64 of a model
//! put together from the reference kernels, row by row.

mod common;

use autograd::ops::Intervals;
use common::synthetic::{Shape, Synthetic};
use common::{largest, loss_and_gradient, sources};
use kernels::activation::{Activation, reference as activation};
use kernels::attention::{Bias, Heads, reference as attention};
use kernels::cross_entropy::reference as cross_entropy;
use kernels::layer_norm::reference as layer_norm;
use kernels::matmul::{Layout, reference as matmul};
use kernels::rms_norm::reference as rms_norm;
use kernels::rope::reference as rope;
use kernels::testing::{Rng, Tolerance, close};
use prompt_tuning_model::t5::relative::Buckets;
use prompt_tuning_model::{LanguageModel, Prediction, Row, Source};

const SHAPE: Shape = Shape { d_model: 12, n_layers: 2, n_heads: 2, n_kv_heads: 1, d_ff: 20, vocab_size: 17 };
const N_SOFT: usize = 3;

/// Final hidden states of one row from its embeddings and those of its encoder input, `[T, d_model]` all.
type Forward = fn(&Synthetic, &[f64], &[f64]) -> Vec<f64>;

fn rows(mut x: impl FnMut(&[f64]) -> Vec<f64>, input: &[f64], width: usize) -> Vec<f64> {
    input.chunks(width).flat_map(&mut x).collect()
}

fn linear(
    m: &Synthetic,
    x: &[f64],
    name: &str,
    layout: Layout,
    sizes: (usize, usize),
    bias: bool,
) -> Vec<f64> {
    let (n_in, n_out) = sizes;
    let weight = m.wide(&format!("{name}.weight"));
    let bias = bias.then(|| m.wide(&format!("{name}.bias")));
    let mut y = vec![0.0; x.len() / n_in * n_out];
    matmul::forward(x, (&weight, matmul::Shape { layout, n_in, n_out }), bias.as_deref(), None, &mut y);
    y
}

fn attend(q: &[f64], k: &[f64], v: &[f64], heads: Heads) -> Vec<f64> {
    attend_by(&Intervals::causal(q.len() / (heads.n_heads * heads.head_dim)), [q, k, v], heads)
}

fn attend_by(mask: &Intervals, [q, k, v]: [&[f64]; 3], heads: Heads) -> Vec<f64> {
    attention::forward(&attention::Inputs { heads, q, k, v, mask: mask.mask(), bias: None }).0
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn gpt2(m: &Synthetic, embeds: &[f64], _: &[f64]) -> Vec<f64> {
    let d = SHAPE.d_model;
    let norm = |x: &[f64], name: &str| {
        let (w, b) = (m.wide(&format!("{name}.weight")), m.wide(&format!("{name}.bias")));
        rows(|x| layer_norm::forward(x, &w, &b, f64::from(1e-5f32)).0, x, d)
    };
    let conv = |x: &[f64], name: &str, n_in, n_out| linear(m, x, name, Layout::InOut, (n_in, n_out), true);
    let heads = Heads { n_heads: 2, n_kv_heads: 2, head_dim: d / 2, scale: ((d / 2) as f32).sqrt().recip() };
    let mut x = add(embeds, &m.wide("wpe.weight")[..embeds.len()]);
    for i in 0..SHAPE.n_layers {
        let qkv = conv(&norm(&x, &format!("h.{i}.ln_1")), &format!("h.{i}.attn.c_attn"), d, 3 * d);
        let [q, k, v] = [0, 1, 2].map(|part| rows(|row| row[part * d..][..d].to_vec(), &qkv, 3 * d));
        x = add(&x, &conv(&attend(&q, &k, &v, heads), &format!("h.{i}.attn.c_proj"), d, d));
        let inner = conv(&norm(&x, &format!("h.{i}.ln_2")), &format!("h.{i}.mlp.c_fc"), d, SHAPE.d_ff);
        let inner: Vec<f64> = inner.iter().map(|&x| activation::forward(Activation::GeluTanh, x)).collect();
        x = add(&x, &conv(&inner, &format!("h.{i}.mlp.c_proj"), SHAPE.d_ff, d));
    }
    norm(&x, "ln_f")
}

fn llama(m: &Synthetic, embeds: &[f64], _: &[f64]) -> Vec<f64> {
    let (d, head_dim) = (SHAPE.d_model, SHAPE.d_model / SHAPE.n_heads);
    let norm = |x: &[f64], name: &str| {
        let w = m.wide(&format!("{name}.weight"));
        rows(|x| rms_norm::forward(x, &w, f64::from(1e-6f32)).0, x, d)
    };
    let project =
        |x: &[f64], name: &str, n_in, n_out| linear(m, x, name, Layout::OutIn, (n_in, n_out), false);
    let rotate = |x: &[f64], width: usize| {
        let mut position = 0.0;
        let turn = |row: &[f64]| {
            let angles: Vec<f64> =
                (0..head_dim / 2).map(|i| position / 100f64.powf((2 * i) as f64 / head_dim as f64)).collect();
            position += 1.0;
            rows(|head| rope::forward(&angles, head), row, head_dim)
        };
        rows(turn, x, width)
    };
    let heads = Heads { n_heads: 2, n_kv_heads: 1, head_dim, scale: (head_dim as f32).sqrt().recip() };
    let mut x = embeds.to_vec();
    for i in 0..SHAPE.n_layers {
        let name = |part: &str| format!("model.layers.{i}.{part}");
        let n = norm(&x, &name("input_layernorm"));
        let q = rotate(&project(&n, &name("self_attn.q_proj"), d, d), d);
        let k = rotate(&project(&n, &name("self_attn.k_proj"), d, head_dim), head_dim);
        let v = project(&n, &name("self_attn.v_proj"), d, head_dim);
        x = add(&x, &project(&attend(&q, &k, &v, heads), &name("self_attn.o_proj"), d, d));
        let m = norm(&x, &name("post_attention_layernorm"));
        let gate = project(&m, &name("mlp.gate_proj"), d, SHAPE.d_ff);
        let up = project(&m, &name("mlp.up_proj"), d, SHAPE.d_ff);
        let inner: Vec<f64> =
            gate.iter().zip(&up).map(|(&g, u)| activation::forward(Activation::Silu, g) * u).collect();
        x = add(&x, &project(&inner, &name("mlp.down_proj"), SHAPE.d_ff, d));
    }
    norm(&x, "model.norm")
}

fn bert(m: &Synthetic, embeds: &[f64], _: &[f64]) -> Vec<f64> {
    let (d, n) = (SHAPE.d_model, embeds.len() / SHAPE.d_model);
    let norm = |x: &[f64], name: &str| {
        let name = format!("{name}.LayerNorm");
        let (w, b) = (m.wide(&format!("{name}.weight")), m.wide(&format!("{name}.bias")));
        rows(|x| layer_norm::forward(x, &w, &b, f64::from(1e-12f32)).0, x, d)
    };
    let dense = |x: &[f64], name: &str, n_in, n_out| linear(m, x, name, Layout::OutIn, (n_in, n_out), true);
    let gelu = |x: Vec<f64>| -> Vec<f64> {
        x.into_iter().map(|x| activation::forward(Activation::GeluErf, x)).collect()
    };
    let heads = Heads { n_heads: 2, n_kv_heads: 2, head_dim: d / 2, scale: ((d / 2) as f32).sqrt().recip() };
    let everybody = Intervals::new(vec![0; n], vec![n as u32; n]);
    let token_type = m.wide("bert.embeddings.token_type_embeddings.weight")[..d].repeat(n);
    let positions = &m.wide("bert.embeddings.position_embeddings.weight")[..embeds.len()];
    let mut x = norm(&add(&add(embeds, positions), &token_type), "bert.embeddings");
    for i in 0..SHAPE.n_layers {
        let name = |part: &str| format!("bert.encoder.layer.{i}.{part}");
        let [q, k, v] =
            ["query", "key", "value"].map(|p| dense(&x, &name(&format!("attention.self.{p}")), d, d));
        let mixed = attend_by(&everybody, [&q, &k, &v], heads);
        let mixed = dense(&mixed, &name("attention.output.dense"), d, d);
        x = norm(&add(&x, &mixed), &name("attention.output"));
        let inner = gelu(dense(&x, &name("intermediate.dense"), d, SHAPE.d_ff));
        x = norm(&add(&x, &dense(&inner, &name("output.dense"), SHAPE.d_ff, d)), &name("output"));
    }
    norm(&gelu(dense(&x, "cls.predictions.transform.dense", d, d)), "cls.predictions.transform")
}

fn t5(m: &Synthetic, embeds: &[f64], encoder: &[f64]) -> Vec<f64> {
    let states = t5_stack(m, "encoder", encoder, None);
    let scale = (SHAPE.d_model as f64).sqrt().recip();
    t5_stack(m, "decoder", embeds, Some(&states)).iter().map(|x| scale * x).collect()
}

fn t5_stack(m: &Synthetic, stack: &str, embeds: &[f64], states: Option<&[f64]>) -> Vec<f64> {
    let (d, decoder) = (SHAPE.d_model, states.is_some());
    let heads = Heads { n_heads: 2, n_kv_heads: 2, head_dim: d / 4, scale: 1.0 };
    let inner = heads.n_heads * heads.head_dim;
    let norm = |x: &[f64], name: &str| {
        let w = m.wide(&format!("{name}.weight"));
        rows(|x| rms_norm::forward(x, &w, f64::from(1e-6f32)).0, x, d)
    };
    let project = |x: &[f64], name: &str, sizes| linear(m, x, name, Layout::OutIn, sizes, false);
    let t = (embeds.len() / d) as u32;
    let positions: Vec<u32> = (0..t).collect();
    let everybody = |keys: usize| Intervals::new(vec![0; keys], vec![t; keys]);
    let among = if decoder { Intervals::causal(t as usize) } else { everybody(t as usize) };
    let weights = m.wide(&format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"));
    let buckets = Buckets { n: 8, max_distance: 6, bidirectional: !decoder };
    // one number per head and distance, for all distances there are
    let reach = i64::from(t);
    let of_head = |head: usize| (-reach..=reach).map(move |behind| buckets.of(-behind) * 2 + head);
    let table: Vec<f32> = (0..2).flat_map(of_head).map(|i| weights[i] as f32).collect();
    let bias = Bias { query_positions: &positions, key_positions: &positions, table: &table };
    let attend = |x: &[f64], from: &[f64], name: &str, (mask, bias): (&Intervals, Option<Bias>)| {
        let q = project(x, &format!("{name}.q"), (d, inner));
        let [k, v] = ["k", "v"].map(|part| project(from, &format!("{name}.{part}"), (d, inner)));
        let inputs = attention::Inputs { heads, q: &q, k: &k, v: &v, mask: mask.mask(), bias };
        project(&attention::forward(&inputs).0, &format!("{name}.o"), (inner, d))
    };
    let mut x = embeds.to_vec();
    for i in 0..SHAPE.n_layers {
        let name = |layer: usize, part: &str| format!("{stack}.block.{i}.layer.{layer}.{part}");
        let n = norm(&x, &name(0, "layer_norm"));
        x = add(&x, &attend(&n, &n, &name(0, "SelfAttention"), (&among, Some(bias))));
        if let Some(states) = states {
            let n = norm(&x, &name(1, "layer_norm"));
            let mask = everybody(states.len() / d);
            x = add(&x, &attend(&n, states, &name(1, "EncDecAttention"), (&mask, None)));
        }
        let mlp = if decoder { 2 } else { 1 };
        let n = norm(&x, &name(mlp, "layer_norm"));
        let [gate, up] = ["wi_0", "wi_1"]
            .map(|part| project(&n, &name(mlp, &format!("DenseReluDense.{part}")), (d, SHAPE.d_ff)));
        let inner: Vec<f64> =
            gate.iter().zip(&up).map(|(&g, u)| activation::forward(Activation::GeluTanh, g) * u).collect();
        x = add(&x, &project(&inner, &name(mlp, "DenseReluDense.wo"), (SHAPE.d_ff, d)));
    }
    norm(&x, &format!("{stack}.final_layer_norm"))
}

fn loss(m: &Synthetic, forward: Forward, table: &str, rows: &[Row], prompt: &[f64]) -> f64 {
    let (d, v, table) = (SHAPE.d_model, SHAPE.vocab_size, m.wide(table));
    let bias = m.has("cls.predictions.bias").then(|| m.wide("cls.predictions.bias"));
    let of_row = |row: &Row| -> f64 {
        let embed = |source: &Source| match *source {
            Source::Text(id) => table[id as usize * d..][..d].to_vec(),
            Source::Soft(k) => prompt[k as usize * d..][..d].to_vec(),
        };
        let [embeds, encoder] =
            [&row.tokens, &row.encoder].map(|tokens| tokens.iter().flat_map(embed).collect::<Vec<f64>>());
        let hidden = forward(m, &embeds, &encoder);
        let at = |&Prediction { at, token }: &Prediction| {
            let mut logits = vec![0.0; v];
            let head = matmul::Shape { layout: Layout::OutIn, n_in: d, n_out: v };
            matmul::forward(&hidden[at * d..][..d], (&table, head), bias.as_deref(), None, &mut logits);
            cross_entropy::loss(&logits, &[(token as usize, f64::from(row.weight))])
        };
        row.scored.iter().map(at).sum()
    };
    rows.iter().map(of_row).sum()
}

fn check_causal(name: &str, m: &Synthetic, forward: Forward, table: &str) {
    let row = |text: &[u32], n_scored: usize, weight: f32| {
        let tokens = sources(N_SOFT, text);
        let start = tokens.len() - n_scored;
        Row::causal(tokens, start, weight)
    };
    let mut rows = vec![row(&[4, 9, 1, 16], 2, 0.4), row(&[4, 9, 2], 1, 0.7), row(&[8, 0], 1, 0.3)];
    // soft tokens within the text, one of them twice in the batch
    rows[2].tokens.insert(4, Source::Soft(1));
    rows[2].scored[0].at += 1;
    check(name, m, (forward, table), &rows);
}

/// Rows of a masked model: prompt in front and in the middle, masks (token 3) that two rows share.
fn masked() -> Vec<Row> {
    let row = |text: &[u32], scored: &[(usize, u32)], weight: f32| {
        let prediction = |&(at, token): &(usize, u32)| Prediction { at: N_SOFT + at, token };
        let scored = scored.iter().map(prediction).collect();
        Row { encoder: Vec::new(), tokens: sources(N_SOFT, text), scored, weight }
    };
    let mut rows = vec![
        row(&[4, 3, 3, 9], &[(2, 5), (1, 16)], 0.4),
        row(&[4, 3, 3, 9], &[(2, 5)], 0.7),
        row(&[3, 0], &[(0, 11)], 0.3),
    ];
    rows[2].tokens.push(Source::Soft(1));
    rows
}

fn check(name: &str, m: &Synthetic, (forward, table): (Forward, &str), rows: &[Row]) {
    let folder = tempfile::tempdir().unwrap();
    m.write(folder.path());
    let model = LanguageModel::open(folder.path()).unwrap();
    let prompt: Vec<f32> = Rng(77).normals(N_SOFT * SHAPE.d_model).iter().map(|x| 0.5 * x).collect();
    let (actual_loss, _, gradient) = loss_and_gradient(&model, rows, &prompt);

    let wide: Vec<f64> = prompt.iter().map(|&x| f64::from(x)).collect();
    let at = |i: usize, h: f64| {
        let mut shifted = wide.clone();
        shifted[i] += h;
        loss(m, forward, table, rows, &shifted)
    };
    let h = 1e-5;
    let expected: Vec<f64> = (0..wide.len()).map(|i| (at(i, h) - at(i, -h)) / (2.0 * h)).collect();
    close(&[actual_loss], &[at(0, 0.0)], Tolerance { absolute: 0.0, relative: 1e-5 })
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let tolerance = Tolerance { absolute: 1e-5 * largest(&gradient), relative: 1e-5 };
    close(&gradient, &expected, tolerance).unwrap_or_else(|e| panic!("{name}: {e}"));
}

#[test]
fn gpt2_by_finite_differences() {
    check_causal("gpt2", &Synthetic::gpt2(Shape { n_kv_heads: 2, ..SHAPE }, 5), gpt2, "wte.weight");
}

#[test]
fn llama_by_finite_differences() {
    check_causal("llama", &Synthetic::llama(SHAPE, 6), llama, "model.embed_tokens.weight");
}

#[test]
fn bert_by_finite_differences() {
    let shape = Shape { n_kv_heads: 2, ..SHAPE };
    check("bert", &Synthetic::bert(shape, 7), (bert, "bert.embeddings.word_embeddings.weight"), &masked());
}

/// The prompt in the encoder and, which PEFT cannot, in the decoder; longer than the distances that have a bucket of
/// their own.
#[test]
fn t5_by_finite_differences() {
    let row = |text: &[u32], answer: &[u32], weight: f32| Row {
        encoder: sources(N_SOFT, text),
        ..Row::causal(sources(0, answer), 1, weight)
    };
    let mut rows = vec![
        row(&[4, 9, 1, 16, 3, 3, 8, 2, 5], &[0, 7, 2], 0.4),
        row(&[4, 9, 1, 16, 3, 3, 8, 2, 5], &[0, 7, 8, 1], 0.7),
        row(&[8], &[0, 5], 0.3),
    ];
    rows[2].tokens.insert(1, Source::Soft(1));
    rows[2].scored[0].at += 1;
    check("t5", &Synthetic::t5(SHAPE, 7), (t5, "shared.weight"), &rows);
}
