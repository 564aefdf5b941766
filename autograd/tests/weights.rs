//! Gradients of weights, where they are trained: every operation that has some against finite differences in f64.

mod common;

use std::sync::Arc;

use kernels::attention::Heads;
use kernels::cross_entropy::Target;
use kernels::matmul::Layout;
use kernels::testing::Rng;
use prompt_tuning_autograd::ops::{self, Qkv, Relation, RelativeBias, Source};
use prompt_tuning_autograd::{Linear, Tape, Value, Weight};

use common::{check, dot, forest, frozen, normalised, plain_biased_attention, product};

#[test]
fn a_trained_linear_layer_has_gradients_of_weight_and_bias() {
    for layout in [Layout::OutIn, Layout::InOut] {
        let shape = if layout == Layout::OutIn { [3, 5] } else { [5, 3] };
        let at = move |w: &[f64], i: usize, o: usize| {
            if layout == Layout::OutIn { w[o * 5 + i] } else { w[i * 3 + o] }
        };
        let forward = |t: &Tape, v: &[Value]| {
            ops::linear(t, &v[0], &Linear::new(&v[1], layout, Some((&v[2]).into())), None)
        };
        check("trained", &[&[4, 5], &shape, &[3]], &forward, &|v| {
            let y = product(&v[0], 5, 3, &|i, o| at(&v[1], i, o));
            y.iter().enumerate().map(|(i, y)| y + v[2][i % 3]).collect()
        });
    }
}

#[test]
fn norms() {
    let forward = |t: &Tape, v: &[Value]| ops::layer_norm(t, &v[0], &(&v[1]).into(), &(&v[2]).into(), 1e-5);
    check("layer_norm", &[&[3, 7], &[7], &[7]], &forward, &|v| {
        v[0].chunks(7).flat_map(|x| normalised(x, &v[1], &v[2])).collect()
    });
    let forward = |t: &Tape, v: &[Value]| ops::rms_norm(t, &v[0], &(&v[1]).into(), 1e-6);
    check("rms_norm", &[&[3, 7], &[7]], &forward, &|v| {
        let row = |x: &[f64]| {
            let rstd = (x.iter().map(|x| x * x).sum::<f64>() / 7.0 + 1e-6).sqrt().recip();
            x.iter().zip(&v[1]).map(|(x, w)| x * rstd * w).collect::<Vec<_>>()
        };
        v[0].chunks(7).flat_map(row).collect()
    });
}

/// Of the input only the soft rows are wanted, of the norm's weight all rows count.
#[test]
fn a_norm_after_embeddings_of_which_some_are_trained() {
    let (table, wide) = frozen(&[9, 5], 1);
    let sources: Arc<[Source]> = Arc::new([Source::Text(3), Source::Soft(0), Source::Text(3)]);
    let forward = |t: &Tape, v: &[Value]| {
        let x = ops::embed(t, &sources, &table, Some(&v[0]));
        ops::layer_norm(t, &x, &(&v[1]).into(), &(&v[2]).into(), 1e-5)
    };
    check("norm of some", &[&[1, 5], &[5], &[5]], &forward, &|v| {
        let rows = [&wide[15..20], &v[0], &wide[15..20]];
        rows.iter().flat_map(|x| normalised(x, &v[1], &v[2])).collect()
    });
}

#[test]
fn tables() {
    let sources: Arc<[Source]> =
        Arc::new([Source::Text(4), Source::Soft(1), Source::Text(0), Source::Text(4), Source::Soft(1)]);
    let at = [0u32, 1, 2, 2, 1];
    let forward = |t: &Tape, v: &[Value]| {
        let x = ops::embed(t, &sources, &(&v[0]).into(), Some(&v[1]));
        ops::add_rows(t, &x, &(&v[2]).into(), &at)
    };
    check("embed", &[&[5, 3], &[2, 3], &[4, 3]], &forward, &|v| {
        let row = |s: &Source| match *s {
            Source::Text(id) => v[0][id as usize * 3..][..3].to_vec(),
            Source::Soft(k) => v[1][k as usize * 3..][..3].to_vec(),
        };
        let position = |t: usize| &v[2][at[t] as usize * 3..][..3];
        let token = |(t, s)| row(s).iter().zip(position(t)).map(|(a, b)| a + b).collect::<Vec<_>>();
        sources.iter().enumerate().flat_map(token).collect()
    });
}

#[test]
fn relative_positions() {
    let heads = Heads { n_heads: 2, n_kv_heads: 2, head_dim: 3, scale: 1.0 };
    let (mask, positions) = (forest(), [0u32, 1, 2, 3, 2]);
    let buckets: Arc<[usize]> = Arc::new([1, 0, 2, 2, 3]);
    let forward = |t: &Tape, v: &[Value]| {
        let table = ops::spread(t, &(&v[3]).into(), &buckets);
        let bias = RelativeBias { query_positions: positions.into(), key_positions: positions.into(), table };
        let relation = Relation { mask: mask.clone(), bias: Some(bias) };
        ops::attention(t, Qkv::Split(&v[0], &v[1], &v[2]), heads, relation)
    };
    check("trained bias", &[&[5, 6], &[5, 6], &[5, 6], &[4, 2]], &forward, &|v| {
        plain_biased_attention(heads, [&v[0], &v[1], &v[2]], &mask, &|head, i, j| {
            let behind = (i64::from(positions[i]) - i64::from(positions[j])).clamp(-2, 2);
            v[3][buckets[(behind + 2) as usize] * 2 + head]
        })
    });
}

/// A head over several blocks of rows, whose gradients add up.
#[test]
fn heads() {
    let (rows, vocab) = (1030, 11);
    let targets: Vec<Target> = [(0, 3, 0.5), (0, 4, 0.25), (5, 10, 1.0), (1029, 0, 2.0)]
        .map(|(row, token, weight)| Target { row, token, weight })
        .to_vec();
    let hidden: Vec<f32> = Rng(3).normals(rows * 4);
    let wide: Vec<f64> = hidden.iter().map(|&x| f64::from(x)).collect();
    let hidden = Value::constant(tensor::Tensor::from_vec(&[rows, 4], hidden));
    let forward = |t: &Tape, v: &[Value]| {
        let head = Linear::new(&v[0], Layout::OutIn, Some((&v[1]).into()));
        // a factor from above
        ops::scale(t, &ops::cross_entropy(t, &hidden, &head, &targets).loss, -1.5)
    };
    check("head", &[&[vocab, 4], &[vocab]], &forward, &|v| {
        let logits = product(&wide, 4, vocab, &|i, o| v[0][o * 4 + i]);
        let loss = targets.iter().map(|t| {
            let z: Vec<f64> =
                logits[t.row as usize * vocab..][..vocab].iter().zip(&v[1]).map(|(z, b)| z + b).collect();
            let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
            f64::from(t.weight) * (lse - z[t.token as usize])
        });
        vec![-1.5 * loss.sum::<f64>()]
    });
}

/// A table that is the embedding and the head has one gradient, the sum of both.
#[test]
fn tied_embeddings() {
    let sources: Arc<[Source]> = Arc::new([Source::Text(1), Source::Text(5), Source::Text(1)]);
    let targets: Vec<Target> = [(0, 5, 1.0), (1, 1, 0.5), (2, 2, 1.0)]
        .map(|(row, token, weight)| Target { row, token, weight })
        .to_vec();
    let forward = |t: &Tape, v: &[Value]| {
        let x = ops::embed(t, &sources, &(&v[0]).into(), None);
        ops::cross_entropy(t, &x, &Linear::new(&v[0], Layout::OutIn, None), &targets).loss
    };
    check("tied", &[&[6, 4]], &forward, &|v| {
        let x: Vec<f64> = [1, 5, 1].iter().flat_map(|&id: &usize| v[0][id * 4..][..4].to_vec()).collect();
        let logits = product(&x, 4, 6, &|i, o| v[0][o * 4 + i]);
        let loss = targets.iter().map(|t| {
            let z = &logits[t.row as usize * 6..][..6];
            f64::from(t.weight) * (z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[t.token as usize])
        });
        vec![loss.sum()]
    });
}

/// Layers in a segment hold leaves of the tape around it; computing the segment twice gives their gradients the same bits.
#[test]
fn segments_find_the_weights_of_their_layers() {
    let (x, w, b) = (Rng(1).normals(12), Rng(2).normals(9), Rng(3).normals(3));
    let gradients = |tape: Tape, learned: bool| {
        let (w, b) = (tape.leaf(&[3, 3], &w), tape.leaf(&[3], &b));
        let x = match learned {
            true => tape.leaf(&[4, 3], &x),
            false => Value::constant(tensor::Tensor::from_vec(&[4, 3], x.clone())),
        };
        let layer = Linear::new(&w, Layout::OutIn, Some((&b).into()));
        let gain = Weight::from(&b);
        // both segments use all weights, and one of them is used twice within
        let f = move |t: &Tape, x: &Value| {
            ops::layer_norm(t, &ops::linear(t, x, &layer, Some(x)), &gain, &gain, 1e-5)
        };
        let y = ops::segment(&tape, &ops::segment(&tape, &x, f.clone()), f);
        let n = tape.len();
        let loss = dot(&tape, &y, &Rng(4).normals(12));
        let mut grads = tape.backward(&loss);
        let d_x = learned.then(|| grads.take(&x).f32s().to_vec());
        (n, (d_x, grads.take(&w).f32s().to_vec(), grads.take(&b).f32s().to_vec()))
    };
    for learned in [true, false] {
        let (kept, again) = (gradients(Tape::new(), learned), gradients(Tape::recomputing(), learned));
        assert!(again.0 < kept.0 && kept.1.1.iter().any(|&d| d != 0.0));
        assert_eq!(kept.1, again.1);
    }
}

#[test]
#[should_panic(expected = "owns its numbers")]
fn numbers_of_a_file_are_no_leaf() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/fixtures/gpt2-tied-f32");
    let checkpoint = tensor::Checkpoint::open(folder.as_ref()).unwrap();
    let name = checkpoint.names().next().unwrap().to_string();
    Tape::new().parameter(checkpoint.tensor_of_any_shape(&name).unwrap().tensor().clone());
}

#[test]
#[should_panic(expected = "one tape")]
fn gradients_of_another_tape_are_refused() {
    let (a, b) = (Tape::new(), Tape::new());
    let (x, y) = (a.leaf(&[1], [1.0]), b.leaf(&[1], [1.0]));
    a.backward(&x).take(&y);
}
