//! Every operation against f64: its output against a plain formula, its gradient against finite differences of that
//! formula, with a random gradient from above. Inputs are used where the operation allows more than one.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kernels::activation::Activation;
use kernels::attention::Heads;
use kernels::cross_entropy::Target;
use kernels::matmul::Layout;
use kernels::rope::{Pairs, Table};
use kernels::testing::Rng;
use prompt_tuning_autograd::ops::{self, Intervals, Qkv, Relation, RelativeBias, Source};
use prompt_tuning_autograd::{Gradients, Linear, NodeId, Op, Tape, Value};
use tensor::Tensor;
use tensor::ops::rope::Angles;

use common::{act, check, dot, forest, frozen, normalised, plain_attention, plain_biased_attention, product};

#[test]
fn linear_in_both_layouts_with_bias_and_residual() {
    for layout in [Layout::OutIn, Layout::InOut] {
        let shape = if layout == Layout::OutIn { [3, 5] } else { [5, 3] };
        let (w, wide) = frozen(&shape, 1);
        let (b, bias) = frozen(&[3], 2);
        let layer = Linear::new(w, layout, Some(b));
        let at =
            move |i: usize, o: usize| if layout == Layout::OutIn { wide[o * 5 + i] } else { wide[i * 3 + o] };
        check("linear", &[&[4, 5], &[4, 3]], &|t, v| ops::linear(t, &v[0], &layer, Some(&v[1])), &|v| {
            let y = product(&v[0], 5, 3, &at);
            y.iter().zip(&v[1]).enumerate().map(|(i, (y, r))| y + bias[i % 3] + r).collect()
        });
    }
}

#[test]
fn norms() {
    let (w, wide_w) = frozen(&[7], 3);
    let (b, wide_b) = frozen(&[7], 4);
    check("layer_norm", &[&[3, 7]], &|t, v| ops::layer_norm(t, &v[0], &w, &b, 1e-5), &|v| {
        v[0].chunks(7).flat_map(|x| normalised(x, &wide_w, &wide_b)).collect()
    });
    check("rms_norm", &[&[3, 7]], &|t, v| ops::rms_norm(t, &v[0], &w, 1e-6), &|v| {
        v[0].chunks(7)
            .flat_map(|x| {
                let rstd = (x.iter().map(|x| x * x).sum::<f64>() / 7.0 + 1e-6).sqrt().recip();
                x.iter().enumerate().map(|(i, x)| x * rstd * wide_w[i]).collect::<Vec<_>>()
            })
            .collect()
    });
}

#[test]
fn activations() {
    for kind in [Activation::GeluTanh, Activation::GeluErf, Activation::Silu, Activation::Relu] {
        check("activation", &[&[4, 5]], &|t, v| ops::activation(t, &v[0], kind), &|v| {
            v[0].iter().map(|&x| act(kind, x)).collect()
        });
        check("gated", &[&[4, 5], &[4, 5]], &|t, v| ops::gated(t, &v[0], &v[1], kind), &|v| {
            v[0].iter().zip(&v[1]).map(|(&g, u)| act(kind, g) * u).collect()
        });
    }
}

#[test]
fn sums_scalings_and_rows() {
    check("add", &[&[2, 3], &[2, 3]], &|t, v| ops::add(t, &v[0], &v[1]), &|v| {
        v[0].iter().zip(&v[1]).map(|(a, b)| a + b).collect()
    });
    check("add to itself", &[&[2, 3]], &|t, v| ops::add(t, &v[0], &v[0]), &|v| {
        v[0].iter().map(|x| 2.0 * x).collect()
    });
    check("scale", &[&[2, 3]], &|t, v| ops::scale(t, &v[0], -1.5), &|v| {
        v[0].iter().map(|x| -1.5 * x).collect()
    });
    let rows: Arc<[u32]> = Arc::new([2, 0, 2]);
    check("gather_rows", &[&[4, 3]], &|t, v| ops::gather_rows(t, &v[0], &rows), &|v| {
        [2, 0, 2].iter().flat_map(|&r| v[0][r * 3..][..3].to_vec()).collect()
    });
}

#[test]
fn embeddings() {
    let (table, wide) = frozen(&[9, 3], 5);
    let (positions, wide_p) = frozen(&[4, 3], 6);
    let sources: Arc<[Source]> =
        Arc::new([Source::Soft(1), Source::Text(8), Source::Soft(0), Source::Soft(1)]);
    let at = [0u32, 1, 2, 2];
    let forward = |t: &Tape, v: &[Value]| {
        ops::add_rows(t, &ops::embed(t, &sources, &table, Some(&v[0])), &positions, &at)
    };
    check("embed", &[&[2, 3]], &forward, &|v| {
        let row = |s: &Source| match *s {
            Source::Text(id) => wide[id as usize * 3..][..3].to_vec(),
            Source::Soft(k) => v[0][k as usize * 3..][..3].to_vec(),
        };
        let position = |t: usize| &wide_p[at[t] as usize * 3..][..3];
        let token = |(t, s)| row(s).iter().zip(position(t)).map(|(a, b)| a + b).collect::<Vec<_>>();
        sources.iter().enumerate().flat_map(token).collect()
    });
}

/// Hands its input on, and says how many rows of gradient came.
struct Probe {
    input: Option<NodeId>,
    rows: Arc<AtomicUsize>,
}

impl Op for Probe {
    fn backward(self: Box<Self>, d_out: Tensor, grads: &mut Gradients) {
        self.rows.store(d_out.rows(), Ordering::Relaxed);
        grads.add(self.input, || d_out);
    }
}

/// A block's way to the embeddings: norm and projection by rows, attention that mixes them, and the residual.
#[test]
fn row_wise_gradients_of_embeddings_are_made_at_soft_tokens_only() {
    const WIDTH: usize = 6;
    let ((table, wide), (w, wide_w)) = (frozen(&[9, WIDTH], 8), frozen(&[3 * WIDTH, WIDTH], 9));
    let ((gain, wide_gain), (shift, wide_shift)) = (frozen(&[WIDTH], 10), frozen(&[WIDTH], 11));
    let layer = Linear::new(w, Layout::OutIn, None);
    let (heads, mask) = (Heads { n_heads: 2, n_kv_heads: 2, head_dim: 3, scale: 0.5 }, forest());
    let sources: Arc<[Source]> =
        Arc::new([Source::Soft(1), Source::Text(8), Source::Soft(0), Source::Text(2), Source::Soft(1)]);
    let seen: [Arc<AtomicUsize>; 2] = Default::default();
    let probe = |t: &Tape, x: &Value, rows: &Arc<AtomicUsize>| {
        t.record_rows(x.tensor().clone(), &[x], || Probe { input: x.node(), rows: rows.clone() })
    };
    let forward = |t: &Tape, v: &[Value]| {
        let x = probe(t, &ops::embed(t, &sources, &table, Some(&v[0])), &seen[0]);
        let n = ops::layer_norm(t, &x, &gain, &shift, 1e-5);
        let qkv = probe(t, &ops::linear(t, &n, &layer, None), &seen[1]);
        ops::add(t, &ops::attention(t, Qkv::Fused(&qkv, None), heads, &mask), &x)
    };
    check("embeddings in a block", &[&[2, WIDTH]], &forward, &|v| {
        let row = |s: &Source| match *s {
            Source::Text(id) => wide[id as usize * WIDTH..][..WIDTH].to_vec(),
            Source::Soft(k) => v[0][k as usize * WIDTH..][..WIDTH].to_vec(),
        };
        let x: Vec<f64> = sources.iter().flat_map(row).collect();
        let n: Vec<f64> = x.chunks(WIDTH).flat_map(|x| normalised(x, &wide_gain, &wide_shift)).collect();
        let qkv = product(&n, WIDTH, 3 * WIDTH, &|i, o| wide_w[o * WIDTH + i]);
        let part = |c: usize| {
            qkv.chunks(3 * WIDTH).flat_map(|row| row[c * WIDTH..][..WIDTH].to_vec()).collect::<Vec<_>>()
        };
        let y = plain_attention(heads, &part(0), &part(1), &part(2), &mask);
        y.iter().zip(&x).map(|(y, x)| y + x).collect()
    });
    assert_eq!(
        seen.map(|rows| rows.load(Ordering::Relaxed)),
        [3, 3],
        "rows of gradient; 5 tokens, 3 of them soft"
    );
}

#[test]
fn without_soft_tokens_nothing_is_recorded() {
    let (table, _) = frozen(&[9, 3], 5);
    let tape = Tape::new();
    let prompt = tape.leaf(&[2, 3], [0.5; 6]);
    let sources: Arc<[Source]> = Arc::new([Source::Text(1), Source::Text(2)]);
    assert!(ops::embed(&tape, &sources, &table, Some(&prompt)).node().is_none());
}

#[test]
fn a_segment_is_what_is_in_it() {
    let (w, wide) = frozen(&[3, 3], 12);
    let layer = Linear::new(w, Layout::OutIn, None);
    // used twice inside, so that gradients meet there
    let f = move |t: &Tape, x: &Value| {
        let inner = ops::activation(t, &ops::linear(t, x, &layer, None), Activation::GeluTanh);
        ops::add(t, &inner, x)
    };
    let data = Rng(13).normals(12);
    let gradient = |tape: Tape| {
        let x = tape.leaf(&[4, 3], &data);
        let y = ops::segment(&tape, &ops::segment(&tape, &x, f.clone()), f.clone());
        let (n, loss) = (tape.len(), dot(&tape, &y, &Rng(14).normals(12)));
        (n, y.tensor().f32s().to_vec(), tape.backward(&loss).take(&x).f32s().to_vec())
    };
    let (kept, again) = (gradient(Tape::new()), gradient(Tape::recomputing()));
    assert_eq!((kept.0, again.0), (7, 3), "nodes: the leaf, and the operations or the segments");
    assert_eq!((kept.1, kept.2), (again.1, again.2));
    check("segment", &[&[4, 3]], &|t, v| ops::segment(t, &v[0], f.clone()), &|v| {
        let y = product(&v[0], 3, 3, &|i, o| wide[o * 3 + i]);
        y.iter().zip(&v[0]).map(|(&y, x)| act(Activation::GeluTanh, y) + x).collect()
    });
}

/// Two inputs, of which one may be a constant: recomputing gives the same bits.
#[test]
fn a_segment_of_two_inputs() {
    let heads = Heads { n_heads: 1, n_kv_heads: 1, head_dim: 3, scale: 0.6 };
    let mask = Arc::new(Intervals::new(vec![0; 5], vec![4; 5]));
    let f = move |t: &Tape, inputs: &[Value]| {
        let [x, e] = inputs else { panic!("two inputs") };
        ops::add(t, x, &ops::attention(t, Qkv::Split(x, e, e), heads, &mask))
    };
    let (x, e) = (Rng(15).normals(12), Rng(16).normals(15));
    let gradients = |tape: Tape, learned: bool| {
        let x = if learned {
            tape.leaf(&[4, 3], &x)
        } else {
            Value::constant(Tensor::from_vec(&[4, 3], x.clone()))
        };
        let e = tape.leaf(&[5, 3], &e);
        // both use `e`, whose gradient is one sum
        let y = ops::segment_of(&tape, &[&x, &e], f.clone());
        let y = ops::segment_of(&tape, &[&y, &e], f.clone());
        let loss = dot(&tape, &y, &Rng(17).normals(12));
        let mut grads = tape.backward(&loss);
        let d_x = learned.then(|| grads.take(&x).f32s().to_vec());
        (d_x, grads.take(&e).f32s().to_vec())
    };
    for learned in [true, false] {
        let kept = gradients(Tape::new(), learned);
        assert!(kept.1.iter().any(|&d| d != 0.0));
        assert_eq!(kept, gradients(Tape::recomputing(), learned));
    }
}

#[test]
fn rotary_positions() {
    let (positions, inv_freq) = ([0u32, 3, 7], [1.0f32, 0.1]);
    let table = Arc::new(Angles::from(Table::new(&positions, &inv_freq, Pairs::Halves)));
    check("rope", &[&[3, 8]], &|t, v| ops::rope(t, &v[0], &table), &|v| {
        let mut y = v[0].clone();
        for (t, row) in y.chunks_mut(8).enumerate() {
            for head in row.chunks_mut(4) {
                for i in 0..2 {
                    let (sin, cos) = (f64::from(positions[t]) * f64::from(inv_freq[i])).sin_cos();
                    let (a, b) = (head[i], head[i + 2]);
                    (head[i], head[i + 2]) = (a * cos - b * sin, b * cos + a * sin);
                }
            }
        }
        y
    });
}

#[test]
fn attention_with_grouped_heads() {
    let heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 3, scale: 0.6 };
    let mask = forest();
    let forward = |t: &Tape, v: &[Value]| ops::attention(t, Qkv::Split(&v[0], &v[1], &v[2]), heads, &mask);
    check("attention", &[&[5, 12], &[5, 6], &[5, 6]], &forward, &|v| {
        plain_attention(heads, &v[0], &v[1], &v[2], &mask)
    });
}

#[test]
fn attention_with_relative_positions() {
    let heads = Heads { n_heads: 2, n_kv_heads: 2, head_dim: 3, scale: 1.0 };
    let mask = forest();
    let (query_positions, key_positions) = ([0u32, 1, 2, 3, 2], [0u32, 1, 2, 3, 2]);
    let table: Vec<f32> = Rng(18).normals(2 * 5);
    let bias = RelativeBias {
        query_positions: query_positions.into(),
        key_positions: key_positions.into(),
        table: Value::constant(Tensor::from_vec(&[2, 5], table.clone())),
    };
    let relation = Relation { mask: mask.clone(), bias: Some(bias) };
    let forward =
        |t: &Tape, v: &[Value]| ops::attention(t, Qkv::Split(&v[0], &v[1], &v[2]), heads, relation.clone());
    check("biased attention", &[&[5, 6], &[5, 6], &[5, 6]], &forward, &|v| {
        plain_biased_attention(heads, [&v[0], &v[1], &v[2]], &mask, &|head, i, j| {
            let behind = (i64::from(query_positions[i]) - i64::from(key_positions[j])).clamp(-2, 2);
            f64::from(table[head * 5 + (behind + 2) as usize])
        })
    });
}

#[test]
fn attention_from_one_matrix_whole_and_for_some_queries() {
    let heads = Heads { n_heads: 2, n_kv_heads: 2, head_dim: 3, scale: 0.5 };
    let mask = forest();
    let column =
        |x: &[f64], c: usize| x.chunks(18).flat_map(|row| row[c * 6..][..6].to_vec()).collect::<Vec<_>>();
    let formula = |v: &[Vec<f64>]| {
        plain_attention(heads, &column(&v[0], 0), &column(&v[0], 1), &column(&v[0], 2), &mask)
    };
    check("fused", &[&[5, 18]], &|t, v| ops::attention(t, Qkv::Fused(&v[0], None), heads, &mask), &formula);

    let rows: Arc<[u32]> = Arc::new([1, 4]);
    let fewer = Arc::new(mask.for_queries(&rows));
    let forward = |t: &Tape, v: &[Value]| ops::attention(t, Qkv::Fused(&v[0], Some(&rows)), heads, &fewer);
    check("fused rows", &[&[5, 18]], &forward, &|v| {
        let all = formula(v);
        rows.iter().flat_map(|&r| all[r as usize * 6..][..6].to_vec()).collect()
    });
}

#[test]
fn cross_entropy_over_several_blocks() {
    // more rows than one block (at most 1024); a row named twice, rows never named
    let rows = 1030;
    let (w, wide) = frozen(&[11, 4], 7);
    let head = Linear::new(w, Layout::OutIn, None);
    let targets: Vec<Target> = [(0, 3, 0.5), (0, 4, 0.25), (5, 10, 1.0), (1029, 0, 2.0)]
        .map(|(row, token, weight)| Target { row, token, weight })
        .to_vec();
    check(
        "cross_entropy",
        &[&[rows, 4]],
        &|t, v| {
            let scored = ops::cross_entropy(t, &v[0], &head, &targets);
            let loss: f32 = scored.log_probs.iter().zip(&targets).map(|(lp, t)| -lp * t.weight).sum();
            assert!((loss - scored.loss.tensor().f32s()[0]).abs() < 1e-5);
            scored.loss
        },
        &|v| {
            let logits = product(&v[0], 4, 11, &|i, o| wide[o * 4 + i]);
            let loss = targets.iter().map(|t| {
                let z = &logits[t.row as usize * 11..][..11];
                let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
                f64::from(t.weight) * (lse - z[t.token as usize])
            });
            vec![loss.sum()]
        },
    );
}

#[test]
fn a_value_that_reaches_the_loss_by_no_path_has_a_zero_gradient() {
    let tape = Tape::new();
    let (a, b) = (tape.leaf(&[2], vec![1.0, 2.0]), tape.leaf(&[2], vec![3.0, 4.0]));
    let loss = dot(&tape, &ops::scale(&tape, &a, 2.0), &[1.0, 1.0]);
    let mut grads = tape.backward(&loss);
    assert_eq!(grads.take(&a).f32s(), [2.0, 2.0]);
    assert_eq!(grads.take(&b).f32s(), [0.0, 0.0]);
}

#[test]
fn matrices_are_joined_and_taken_apart() {
    check("stack", &[&[2, 3], &[4, 3]], &|t, v| ops::stack(t, &v[0], &v[1]), &|v| [&*v[0], &v[1]].concat());
    check("beside", &[&[3, 2], &[3, 4]], &|t, v| ops::beside(t, &v[0], &v[1]), &|v| {
        v[0].chunks(2).zip(v[1].chunks(4)).flat_map(|(a, b)| [a, b].concat()).collect()
    });
    check("columns", &[&[3, 5]], &|t, v| ops::columns(t, &v[0], 1..4), &|v| {
        v[0].chunks(5).flat_map(|row| row[1..4].to_vec()).collect()
    });
}

#[test]
fn tanh_of_anything() {
    check("tanh", &[&[3, 4]], &|t, v| ops::tanh(t, &v[0]), &|v| v[0].iter().map(|x| x.tanh()).collect());
}

/// `x` holds the gates' parts of the input; one direction.
fn lstm(v: &[Vec<f64>], width: usize, times: &[usize]) -> Vec<f64> {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let (mut h, mut c) = (vec![0.0; width], vec![0.0; width]);
    let mut out = vec![0.0; times.len() * width];
    for &t in times {
        let gate = |k: usize, j: usize| {
            let row = k * width + j;
            let recurrent: f64 = (0..width).map(|i| v[1][row * width + i] * h[i]).sum();
            v[0][t * 4 * width + row] + recurrent + v[2][row]
        };
        let new: Vec<[f64; 4]> = (0..width).map(|j| [0, 1, 2, 3].map(|k| gate(k, j))).collect();
        for (j, [i, f, g, o]) in new.into_iter().enumerate() {
            c[j] = sigmoid(f) * c[j] + sigmoid(i) * g.tanh();
            h[j] = sigmoid(o) * c[j].tanh();
        }
        out[t * width..][..width].copy_from_slice(&h);
    }
    out
}

#[test]
fn lstm_in_both_directions() {
    let (width, times) = (3, [0, 1, 2, 3, 4]);
    let shapes: [&[usize]; 3] = [&[5, 12], &[12, 3], &[12]];
    let back: Vec<usize> = times.into_iter().rev().collect();
    for (direction, times) in [(ops::Direction::Forward, &times[..]), (ops::Direction::Backward, &back)] {
        let forward = |t: &Tape, v: &[Value]| ops::lstm(t, &v[0], &v[1], &v[2], direction);
        check("lstm", &shapes, &forward, &|v| lstm(v, width, times));
    }
}
