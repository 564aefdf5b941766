//! Attention under every kind of mask the packed forest makes, against all pairs one by one.

use prompt_tuning_kernels::{
    attention::{self, Bias, Heads, Inputs, Mask, Rows, Upstream, reference},
    matmul::Precision,
    testing::{Rng, Tolerance, close},
};

use crate::{
    close_or_zero,
    device::{Device, on_every_device},
    named, normals, to_f64,
};

/// What the mask is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// One sequence.
    Causal { tokens: usize },
    /// A random forest in depth-first order: a key is seen by its subtree.
    Forest { tokens: usize },
    /// Segments that see themselves in both directions.
    Segments { tokens: usize },
    /// Queries and keys of several examples, as a decoder sees an encoder.
    Cross { queries: usize, keys: usize },
    /// One query per sequence against a cache with a shared prefix.
    Decode { queries: usize, keys: usize },
    /// Sequences that begin with the same tokens.
    Rows { shared: usize, rows: usize, len: usize },
    /// As `Rows`, of which only the last query of each remains.
    Last { shared: usize, rows: usize, len: usize },
    /// Intervals without any order, some empty.
    Random { queries: usize, keys: usize },
    /// As `Random` with keys that nobody sees and queries that see nothing.
    Nothing,
}

pub(crate) struct Intervals {
    pub(crate) begin: Vec<u32>,
    pub(crate) end: Vec<u32>,
    pub(crate) queries: usize,
}

impl Shape {
    pub(crate) fn intervals(self, rng: &mut Rng) -> Intervals {
        let (queries, pairs): (usize, Vec<(usize, usize)>) = match self {
            Shape::Causal { tokens } => (tokens, (0..tokens).map(|j| (j, tokens)).collect()),
            Shape::Forest { tokens } => (tokens, forest(tokens, rng)),
            Shape::Segments { tokens } => (tokens, segments(tokens, tokens, rng)),
            Shape::Cross { queries, keys } => (queries, segments(queries, keys, rng)),
            Shape::Decode { queries, keys } => {
                let own = |j: usize| (j * queries / keys, j * queries / keys + 1);
                (queries, (0..keys).map(|j| if j < keys / 3 { (0, queries) } else { own(j) }).collect())
            }
            Shape::Rows { shared, rows, len } => {
                let n = shared + rows * len;
                let end = |j: usize| if j < shared { n } else { j + len - (j - shared) % len };
                (n, (0..n).map(|j| (j, end(j))).collect())
            }
            Shape::Last { shared, rows, len } => {
                let row = |j: usize| (j - shared) / len;
                let seen = |j: usize| if j < shared { (0, rows) } else { (row(j), row(j) + 1) };
                (rows, (0..shared + rows * len).map(seen).collect())
            }
            Shape::Random { queries, keys } => {
                (queries, (0..keys).map(|_| (rng.below(queries), rng.below(queries + 3))).collect())
            }
            Shape::Nothing => (70, (0..100).map(|j| if j % 3 == 0 { (5, 9) } else { (50, 20) }).collect()),
        };
        let (begin, end) = pairs.into_iter().map(|(b, e)| (b as u32, e as u32)).unzip();
        Intervals { begin, end, queries }
    }
}

/// `(j, end of j's subtree)`; most nodes continue a run, some start a branch at an earlier node of the path.
fn forest(n: usize, rng: &mut Rng) -> Vec<(usize, usize)> {
    let mut end = vec![n; n];
    let mut path: Vec<usize> = Vec::new();
    for j in 0..n {
        if rng.below(12) == 0 {
            let keep = rng.below(path.len() + 1);
            path.drain(keep..).for_each(|i| end[i] = j);
        }
        path.push(j);
    }
    end.into_iter().enumerate().collect()
}

/// Cuts queries and keys into as many pieces; each piece of keys is seen by its piece of queries.
fn segments(queries: usize, keys: usize, rng: &mut Rng) -> Vec<(usize, usize)> {
    let n = 1 + rng.below(queries.min(keys) / 8 + 1);
    (0..keys).map(|j| j * n / keys).map(|s| (s * queries / n, (s + 1) * queries / n)).collect()
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) shape: Shape,
    /// Query heads, key/value heads, head width.
    pub(crate) heads: (usize, usize, usize),
    /// Size of the queries: large ones make the softmax sharp.
    pub(crate) spread: f32,
}

/// Inputs with gaps between the rows: q, k and v are columns of one matrix where they have equally many rows.
pub(crate) struct Data {
    pub(crate) heads: Heads,
    pub(crate) mask: Intervals,
    pub(crate) bias: Option<Relative>,
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    pub(crate) d_out: Vec<f32>,
    /// Of a GPU; a CPU has f32 only.
    pub(crate) precision: Precision,
}

/// A bias by distance.
pub(crate) struct Relative {
    query_positions: Vec<u32>,
    key_positions: Vec<u32>,
    table: Vec<f32>,
}

impl Relative {
    fn as_bias(&self) -> Bias<'_> {
        let Relative { query_positions, key_positions, table } = self;
        Bias { query_positions, key_positions, table }
    }
}

/// Positions that count up and start again at random places, as sequences and branches do.
fn positions(n: usize, rng: &mut Rng) -> Vec<u32> {
    let mut next = 0;
    let mut position = || {
        next = if rng.below(15) == 0 { rng.below(90) as u32 } else { next + 1 };
        next
    };
    (0..n).map(|_| position()).collect()
}

pub(crate) struct Results {
    pub(crate) out: Vec<f32>,
    pub(crate) lse: Vec<f32>,
    pub(crate) d_q: Vec<f32>,
    pub(crate) d_k: Vec<f32>,
    pub(crate) d_v: Vec<f32>,
    /// Of the bias, if there is one.
    pub(crate) d_table: Option<Vec<f32>>,
}

impl Case {
    pub(crate) fn data(&self, seed: u64) -> Data {
        let (n_heads, n_kv_heads, head_dim) = self.heads;
        let mask = self.shape.intervals(&mut Rng(seed));
        let (t, n_keys) = (mask.queries, mask.begin.len());
        let q = normals(seed + 1, t * n_heads * head_dim).iter().map(|x| self.spread * x).collect();
        let (k, v) = (
            normals(seed + 2, n_keys * n_kv_heads * head_dim),
            normals(seed + 3, n_keys * n_kv_heads * head_dim),
        );
        let heads = Heads { n_heads, n_kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() };
        let d_out = normals(seed + 4, t * n_heads * head_dim);
        Data { heads, mask, bias: None, q, k, v, d_out, precision: Precision::F32 }
    }

    /// With a bias for distances up to `reach`.
    pub(crate) fn biased(&self, seed: u64, reach: usize) -> Data {
        let (data, mut rng) = (self.data(seed), Rng(seed + 5));
        let bias = Relative {
            query_positions: positions(data.mask.queries, &mut rng),
            key_positions: positions(data.mask.begin.len(), &mut rng),
            table: normals(seed + 6, data.heads.n_heads * (2 * reach + 1)),
        };
        Data { bias: Some(bias), ..data }
    }
}

/// The rows with `gap` numbers between them that must not be read.
fn with_gaps(x: &[f32], width: usize, gap: usize) -> Vec<f32> {
    x.chunks(width).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(f32::NAN, gap))).collect()
}

impl Data {
    pub(crate) fn run(&self, device: Device) -> Results {
        let Heads { n_heads, n_kv_heads, head_dim, .. } = self.heads;
        let (q_width, kv_width) = (n_heads * head_dim, n_kv_heads * head_dim);
        let gaps = [3, 16, 0];
        let q = with_gaps(&self.q, q_width, gaps[0]);
        let [k, v] = [(&self.k, gaps[1]), (&self.v, gaps[2])].map(|(x, gap)| with_gaps(x, kv_width, gap));
        let inputs = Inputs {
            heads: self.heads,
            q: Rows { data: &q, stride: q_width + gaps[0] },
            k: Rows { data: &k, stride: kv_width + gaps[1] },
            v: Rows { data: &v, stride: kv_width + gaps[2] },
            mask: Mask { begin: &self.mask.begin, end: &self.mask.end },
            bias: self.bias(),
            n_queries: self.mask.queries,
        };
        let (out, lse) = device.attention(inputs, self.precision);
        let upstream = (Upstream { out: &out, lse: &lse, d_out: &self.d_out }, self.precision);
        let widths = [q_width, kv_width, kv_width];
        let [d_q, d_k, d_v] = if self.q.len() / q_width == self.k.len() / kv_width {
            device.attention_backward_side_by_side(inputs, upstream, widths)
        } else {
            device.attention_backward(inputs, upstream, widths)
        };
        let d_table = self.bias().map(|bias| {
            let mut d_table = vec![f32::NAN; bias.table.len()];
            attention::backward_bias(inputs, upstream.0, &mut d_table);
            d_table
        });
        Results { out, lse, d_q, d_k, d_v, d_table }
    }

    pub(crate) fn bias(&self) -> Option<Bias<'_>> {
        self.bias.as_ref().map(Relative::as_bias)
    }

    /// Fails where the kernels are further from the reference than the rounding of scores of size `spread` allows.
    fn check(&self, device: Device, spread: f32) -> Result<(), String> {
        let mask = Mask { begin: &self.mask.begin, end: &self.mask.end };
        let (q, k, v) = (to_f64(&self.q), to_f64(&self.k), to_f64(&self.v));
        let inputs = reference::Inputs { heads: self.heads, q: &q, k: &k, v: &v, mask, bias: self.bias() };
        let (out, lse) = reference::forward(&inputs);
        let (d_q, d_k, d_v) = reference::backward(&inputs, &to_f64(&self.d_out));
        let actual = self.run(device);
        let tol = Tolerance::both(2e-6 * (1.0 + f64::from(spread)));
        // a gradient is a sum over the pairs of a row or column: relative to the largest, not to itself
        let of_sum = |x: &[f64]| Tolerance {
            absolute: tol.absolute * x.iter().fold(1.0, |m: f64, x| m.max(x.abs())),
            ..tol
        };
        named("out", close_or_zero(&actual.out, &out, tol))?;
        named("lse", close(&actual.lse, &lse, tol))?;
        named("d_v", close_or_zero(&actual.d_v, &d_v, of_sum(&d_v)))?;
        if let Some(d_table) = &actual.d_table {
            let expected = reference::backward_bias(&inputs, &to_f64(&self.d_out));
            // one number for very many pairs, whose gradients have either sign
            let tol = of_sum(&expected);
            let tol =
                Tolerance { absolute: tol.absolute * (self.mask.queries as f64).sqrt().max(1.0), ..tol };
            named("d_table", close_or_zero(d_table, &expected, tol))?;
        }
        // one key per query: the softmax is constant
        if d_q.iter().all(|&d| d.abs() < 1e-12) {
            let mut zeros = actual.d_q.iter().chain(&actual.d_k);
            return if zeros.all(|d| d.abs() < 1e-5) { Ok(()) } else { Err("d_q or d_k is not zero".into()) };
        }
        named("d_q", close(&actual.d_q, &d_q, of_sum(&d_q)))?;
        named("d_k", close(&actual.d_k, &d_k, of_sum(&d_k)))
    }
}

/// Two causal queries of one number with scale 1: query 1 has probabilities 1/4 and 3/4.
#[test]
fn hand_computed() {
    on_every_device(&[()], |device, ()| {
        let ln3 = 3f32.ln();
        let heads = Heads { n_heads: 1, n_kv_heads: 1, head_dim: 1, scale: 1.0 };
        let mask = Intervals { begin: vec![0, 1], end: vec![2, 2], queries: 2 };
        let data = Data {
            heads,
            mask,
            bias: None,
            q: vec![1.0, 1.0],
            k: vec![0.0, ln3],
            v: vec![4.0, 8.0],
            d_out: vec![1.0, 2.0],
            precision: Precision::F32,
        };
        let actual = data.run(device);
        let tol = Tolerance::both(1e-6);
        close(&actual.out, &[4.0, 7.0], tol)?;
        close(&actual.lse, &[0.0, 4f64.ln()], tol)?;
        close(&actual.d_v, &[1.5, 1.5], tol)?;
        // d_p = (8, 16), D = 14, d_s = (-1.5, 1.5)
        close(&actual.d_q, &[0.0, 1.5 * ln3], tol)?;
        close(&actual.d_k, &[-1.5, 1.5], tol)
    });
}

/// Without queries the bias alone decides: key 0 is one behind query 1, which gives it 3/4.
#[test]
fn hand_computed_bias() {
    on_every_device(&[()], |device, ()| {
        let heads = Heads { n_heads: 1, n_kv_heads: 1, head_dim: 1, scale: 1.0 };
        let mask = Intervals { begin: vec![0, 0], end: vec![2, 2], queries: 2 };
        let bias = Relative {
            query_positions: vec![0, 1],
            key_positions: vec![0, 1],
            // query - key = -1, 0, 1
            table: vec![-(7f32.ln()), 0.0, 3f32.ln()],
        };
        let (q, k, v) = (vec![0.0; 2], vec![1.0, 1.0], vec![8.0, 16.0]);
        let (d_out, precision) = (vec![1.0, 4.0], Precision::F32);
        let data = Data { heads, mask, bias: Some(bias), q, k, v, d_out, precision };
        let actual = data.run(device);
        let tol = Tolerance::both(1e-6);
        close(&actual.out, &[9.0, 10.0], tol)?;
        close(&actual.lse, &[(8f64 / 7.0).ln(), 4f64.ln()], tol)?;
        close(&actual.d_v, &[7.0 / 8.0 + 3.0, 1.0 / 8.0 + 1.0], tol)?;
        // query 0: p (7/8, 1/8), d_o v - d_o o = 1 (8 - 9), 1 (16 - 9); query 1: p (3/4, 1/4), 4 (8 - 10), 4 (16 - 10)
        let d_table = actual.d_table.ok_or("no gradient of the bias")?;
        close(&d_table, &[7.0 / 8.0, -7.0 / 8.0 + 6.0, -6.0], tol)
    });
}

#[test]
fn relative_positions() {
    let mut cases = Vec::new();
    for n in [1, 2, 7, 15, 16, 17, 47, 48, 49, 71, 72, 73, 97, 145, 200] {
        cases.push((Shape::Causal { tokens: n }, (2, 1, 16), n / 2));
        cases.push((Shape::Forest { tokens: n }, (3, 3, 8), 5));
        cases.push((Shape::Segments { tokens: n }, (2, 2, 7), 40));
        cases.push((Shape::Random { queries: 201 - n, keys: n }, (2, 1, 24), 0));
        cases.push((Shape::Decode { queries: 1, keys: n }, (4, 2, 16), 300));
    }
    cases.push((Shape::Nothing, (2, 2, 20), 9));
    cases.push((Shape::Cross { queries: 60, keys: 500 }, (2, 2, 64), 128));
    cases.push((Shape::Rows { shared: 700, rows: 9, len: 55 }, (2, 2, 24), 128));
    on_every_device(&cases, |device, &(shape, heads, reach)| {
        Case { shape, heads, spread: 1.0 }.biased(n_of(shape), reach).check(device, 2.0)
    });
}

/// Another seed for every shape.
fn n_of(shape: Shape) -> u64 {
    format!("{shape:?}").bytes().map(u64::from).sum()
}

#[test]
fn every_shape_and_every_small_size() {
    let case = |shape, heads| Case { shape, heads, spread: 1.0 };
    let mut cases = Vec::new();
    for n in 0..=20 {
        cases.push(case(Shape::Causal { tokens: n }, (2, 1, 4)));
        cases.push(case(Shape::Random { queries: n + 1, keys: 20 - n }, (2, 2, 5)));
        cases.push(case(Shape::Causal { tokens: 9 }, (2, 2, n + 1)));
        cases.push(case(Shape::Cross { queries: 3, keys: 70 }, (2, 1, n + 1)));
    }
    // around a tile of 48 queries and a block of 72 keys
    for n in [31, 47, 48, 49, 63, 64, 71, 72, 73, 95, 96, 97, 129, 144, 145] {
        cases.push(case(Shape::Causal { tokens: n }, (1, 1, 16)));
        cases.push(case(Shape::Forest { tokens: n }, (3, 1, 8)));
        cases.push(case(Shape::Random { queries: 200 - n, keys: n }, (2, 1, 24)));
        cases.push(case(Shape::Decode { queries: 1, keys: n }, (4, 2, 16)));
    }
    on_every_device(&cases, |device, case| case.data(7).check(device, case.spread));
}

/// Around the widths at which the GPU has another kernel, and around the tiles of those.
#[test]
fn every_width_of_heads() {
    let mut cases = Vec::new();
    for width in [63, 64, 65, 127, 128, 129, 200, 256] {
        for tokens in [1, 7, 8, 9, 15, 16, 17, 33] {
            cases.push(Case { shape: Shape::Forest { tokens }, heads: (2, 1, width), spread: 1.0 });
        }
        cases.push(Case {
            shape: Shape::Random { queries: 40, keys: 37 },
            heads: (2, 2, width),
            spread: 1.0,
        });
    }
    on_every_device(&cases, |device, case| case.biased(n_of(case.shape), 5).check(device, 2.0));
}

#[test]
fn real_shapes() {
    let case = |shape, heads| Case { shape, heads, spread: 1.0 };
    let cases = [
        case(Shape::Forest { tokens: 850 }, (2, 2, 64)),
        case(Shape::Forest { tokens: 600 }, (3, 1, 64)),
        // several tiles share a copy of the keys
        case(Shape::Rows { shared: 700, rows: 9, len: 55 }, (2, 2, 24)),
        case(Shape::Causal { tokens: 1100 }, (1, 1, 64)),
        case(Shape::Segments { tokens: 400 }, (2, 2, 64)),
        case(Shape::Cross { queries: 60, keys: 500 }, (2, 2, 64)),
        case(Shape::Decode { queries: 32, keys: 1500 }, (2, 1, 64)),
        case(Shape::Decode { queries: 1, keys: 3000 }, (4, 1, 128)),
        case(Shape::Decode { queries: 3, keys: 500 }, (2, 1, 80)),
        case(Shape::Forest { tokens: 300 }, (2, 1, 100)),
        case(Shape::Nothing, (2, 2, 20)),
    ];
    on_every_device(&cases, |device, case| case.data(3).check(device, case.spread));
}

#[test]
fn many_random_forests_and_intervals() {
    let cases: Vec<u64> = (0..40).collect();
    on_every_device(&cases, |device, &seed| {
        let mut rng = Rng(seed);
        let (n, m) = (1 + rng.below(180), 1 + rng.below(180));
        let shapes = [
            Shape::Forest { tokens: n },
            Shape::Segments { tokens: n },
            Shape::Random { queries: n, keys: m },
        ];
        let heads = [(2, 1, 16), (1, 1, 7), (2, 2, 33)][rng.below(3)];
        let case = Case { shape: shapes[rng.below(3)], heads, spread: 1.0 };
        case.data(seed).check(device, 1.0).map_err(|why| format!("{case:?}: {why}"))
    });
}

/// Rows after a shared prefix, with heads that share keys and every width around whole vectors.
#[test]
fn many_forests_of_rows() {
    let cases: Vec<u64> = (0..60).collect();
    on_every_device(&cases, |device, &seed| {
        let mut rng = Rng(seed);
        let n_kv_heads = 1 + rng.below(3);
        let heads = (n_kv_heads * (1 + rng.below(4)), n_kv_heads, 1 + rng.below(40));
        let shape = match rng.below(3) {
            0 => Shape::Rows { shared: rng.below(300), rows: 1 + rng.below(12), len: 1 + rng.below(60) },
            1 => Shape::Rows { shared: 0, rows: 1 + rng.below(40), len: 1 + rng.below(8) },
            _ => Shape::Last { shared: rng.below(90), rows: 1 + rng.below(30), len: 1 + rng.below(40) },
        };
        let case = Case { shape, heads, spread: 1.0 };
        case.data(seed).check(device, 1.0).map_err(|why| format!("{case:?}: {why}"))
    });
}

#[test]
fn large_scores() {
    let case = |spread, shape| Case { shape, heads: (2, 1, 32), spread };
    let cases = [case(30.0, Shape::Forest { tokens: 150 }), case(300.0, Shape::Causal { tokens: 100 })];
    on_every_device(&cases, |device, case| case.data(5).check(device, case.spread));
}

#[test]
fn a_query_without_keys_gets_zeros_and_gives_none() {
    on_every_device(&[()], |device, ()| {
        let data = Case { shape: Shape::Nothing, heads: (2, 1, 8), spread: 1.0 }.data(1);
        let actual = data.run(device);
        let all = [&actual.out, &actual.d_q, &actual.d_k, &actual.d_v];
        if all.iter().any(|x| x.iter().any(|x| !x.is_finite())) {
            return Err("a NaN or infinity".into());
        }
        for i in 0..data.mask.queries {
            let seen = (5..9).contains(&i);
            let row = |x: &[f32]| x[i * 16..][..16].iter().any(|&x| x != 0.0);
            if row(&actual.out) != seen
                || row(&actual.d_q) != seen
                || actual.lse[i * 2..][..2].iter().any(|&lse| (lse != f32::NEG_INFINITY) != seen)
            {
                return Err(format!("query {i}"));
            }
        }
        let row = |x: &[f32], j: usize| x[j * 8..][..8].iter().any(|&x| x != 0.0);
        let wrong = (0..100).find(|&j| row(&actual.d_v, j) != (j % 3 == 0));
        wrong.map_or(Ok(()), |j| Err(format!("key {j}")))
    });
}

/// A sequence in a batch of three gets what it gets alone.
#[test]
fn other_sequences_do_not_matter() {
    on_every_device(&[(2, 1, 64), (3, 3, 20)], |device, &heads| {
        let (first, n) = (77, 90);
        let mut packed = Case { shape: Shape::Causal { tokens: 200 }, heads, spread: 1.0 }.data(2);
        let ends = [first, first + n, 200];
        for (j, end) in packed.mask.end.iter_mut().enumerate() {
            *end = *ends.iter().find(|&&e| j < e).expect("within the last") as u32;
        }
        let mut alone = Case { shape: Shape::Causal { tokens: n }, heads, spread: 1.0 }.data(2);
        let (q, kv) = (heads.0 * heads.2, heads.1 * heads.2);
        let cut = |x: &[f32], width: usize| x[first * width..(first + n) * width].to_vec();
        (alone.q, alone.k, alone.v) = (cut(&packed.q, q), cut(&packed.k, kv), cut(&packed.v, kv));
        alone.d_out = cut(&packed.d_out, q);
        let (packed, alone) = (packed.run(device), alone.run(device));
        let tol = Tolerance::both(1e-6);
        named("out", close(&cut(&packed.out, q), &alone.out, tol))?;
        named("d_q", close(&cut(&packed.d_q, q), &alone.d_q, tol))?;
        named("d_k", close(&cut(&packed.d_k, kv), &alone.d_k, Tolerance::both(3e-6)))?;
        named("d_v", close(&cut(&packed.d_v, kv), &alone.d_v, Tolerance::both(3e-6)))
    });
}
