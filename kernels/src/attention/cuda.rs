//! Attention on the GPU: [`super`]'s functions, with slices of its memory.

use super::Heads;
use crate::cuda::{Arg, Failed, Launch, Launcher, Slice, SliceMut};
use crate::matmul::Precision;

/// A kernel for heads up to a width.
#[derive(Clone, Copy)]
struct Kernel {
    file: &'static str,
    name: &'static str,
    width: usize,
    /// Rows of a block.
    rows: usize,
    /// Threads of a block.
    threads: usize,
}

/// Of a file: a kernel, the threads that share a row, and for heads up to each width the rows of a block. All as in the source.
macro_rules! kernels {
    ($file:literal, $name:literal, $threads:literal, [$($width:literal: $rows:literal),*]) => {
        [$(Kernel { file: $file, name: concat!($name, "_", $width), width: $width, rows: $rows, threads: $threads * $rows }),*]
    };
}

const FORWARD: [Kernel; 3] = kernels!("attention", "attention_forward", 4, [64: 32, 128: 16, 256: 8]);
const BACKWARD_QUERIES: [Kernel; 3] =
    kernels!("attention", "attention_backward_queries", 4, [64: 32, 128: 16, 256: 8]);
const BACKWARD_KEYS: [Kernel; 3] =
    kernels!("attention", "attention_backward_keys", 4, [64: 32, 128: 16, 256: 8]);

/// On tensor cores. Wider heads have kernels in f32 only.
mod tensor {
    use super::Kernel;

    pub(super) const FORWARD: [Kernel; 3] =
        kernels!("attention_bf16", "tensor_attention_forward", 2, [32: 128, 64: 128, 128: 64]);
    pub(super) const BACKWARD_QUERIES: [Kernel; 3] =
        kernels!("attention_bf16", "tensor_attention_backward_queries", 2, [32: 128, 64: 128, 128: 64]);
    pub(super) const BACKWARD_KEYS: [Kernel; 3] =
        kernels!("attention_bf16", "tensor_attention_backward_keys", 2, [32: 64, 64: 64, 128: 64]);
}

/// A block per query.
const FEW_QUERIES: [Kernel; 3] = kernels!("few_queries", "few_queries_forward", 256, [64: 1, 128: 1, 256: 1]);
/// Queries for which all keys are read one by one: with more, what is read again and again is too much.
const MOST_OF_FEW: usize = 64;

/// Rows of `heads * head_dim` numbers that lie `stride` apart: a matrix, or a column range of a wider one.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Starts at the first number of row 0.
    pub data: Slice<'a, f32>,
    /// Distance between the starts of two rows.
    pub stride: usize,
}

/// [`Rows`] to be written.
#[derive(Debug)]
pub struct RowsMut<'a> {
    /// Starts at the first number of row 0.
    pub data: SliceMut<'a, f32>,
    /// Distance between the starts of two rows.
    pub stride: usize,
}

impl<'a> RowsMut<'a> {
    /// The rows of matrices that lie side by side in one, which has no other columns.
    pub fn side_by_side<const N: usize>(matrix: SliceMut<'a, f32>, widths: [usize; N]) -> [RowsMut<'a>; N] {
        let (stride, Arg(address)) = (widths.iter().sum(), Arg::from(matrix.read()));
        let mut column = 0;
        widths.map(|width| {
            let from = column.min(matrix.len());
            column += width;
            // SAFETY: numbers of `matrix`; kernels write only the columns of each, which no other has
            let data = unsafe {
                SliceMut::from_raw(address + (from * size_of::<f32>()) as u64, matrix.len() - from)
            };
            RowsMut { data, stride }
        })
    }
}

/// [`super::Mask`], on the device.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// First query that sees the key, for each key.
    pub begin: Slice<'a, u32>,
    /// One past the last query that sees the key, for each key.
    pub end: Slice<'a, u32>,
}

/// [`super::Bias`], on the device.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a> {
    /// Position of each query in its sequence.
    pub query_positions: Slice<'a, u32>,
    /// Position of each key in its sequence.
    pub key_positions: Slice<'a, u32>,
    /// `[H, 2 * reach + 1]`
    pub table: Slice<'a, f32>,
}

/// [`super::Inputs`], on the device.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Heads and scale.
    pub heads: Heads,
    /// `n_queries` rows of `n_heads * head_dim`.
    pub q: Rows<'a>,
    /// One row of `n_kv_heads * head_dim` per key.
    pub k: Rows<'a>,
    /// One row of `n_kv_heads * head_dim` per key.
    pub v: Rows<'a>,
    /// Who sees whom; its length is the number of keys.
    pub mask: Mask<'a>,
    /// What is added to the scores, if anything.
    pub bias: Option<Bias<'a>>,
    /// Number of query rows.
    pub n_queries: usize,
    /// How the factors of products are rounded, on tensor cores if they are: queries, keys, values, `d_out`, probabilities
    /// and the gradients of scores; of few queries over many keys, which need no tensor cores, queries, keys and values alone.
    /// Heads wider than 128 are computed in f32 all the same.
    pub precision: Precision,
}

/// [`super::Upstream`], on the device.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// Output of [`forward`], `[T, H*D]`.
    pub out: Slice<'a, f32>,
    /// Log-sum-exp of [`forward`], `[T, H]`.
    pub lse: Slice<'a, f32>,
    /// Gradient of the output, `[T, H*D]`.
    pub d_out: Slice<'a, f32>,
}

/// Where the gradients go.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// `n_queries` rows of `n_heads * head_dim`.
    pub d_q: RowsMut<'a>,
    /// One row of `n_kv_heads * head_dim` per key.
    pub d_k: RowsMut<'a>,
    /// One row of `n_kv_heads * head_dim` per key.
    pub d_v: RowsMut<'a>,
}

/// [`super::forward()`], `out[T, H*D]` and `lse[T, H]`.
///
/// # Errors
/// The launch failed. Panics when the sizes do not fit together, or a head is wider than 256.
pub fn forward(
    gpu: &dyn Launcher,
    inputs: Inputs,
    out: SliceMut<f32>,
    lse: SliceMut<f32>,
) -> Result<(), Failed> {
    inputs.check();
    inputs.check_output(out.len(), lse.len());
    if inputs.n_queries == 0 {
        return Ok(());
    }
    let launch = |kernel| inputs.launch(kernel, inputs.n_queries, inputs.heads.n_heads).arg(out).arg(lse);
    let launch = match inputs.are_queries_few() {
        true => launch(inputs.of_width(&FEW_QUERIES)).size(inputs.rounds(&tensor::FORWARD).into()),
        false => launch(inputs.kernel(&tensor::FORWARD, &FORWARD)),
    };
    // SAFETY: the kernel's parameters, with the sizes checked above
    unsafe { launch.on(gpu) }
}

/// [`super::backward()`]. `dots` is scratch memory of `[T, H]` numbers.
///
/// # Errors
/// A launch failed. Panics when the sizes do not fit together, or a head is wider than 256.
pub fn backward(
    gpu: &dyn Launcher,
    inputs: Inputs,
    upstream: Upstream,
    mut dots: SliceMut<f32>,
    gradients: Gradients,
) -> Result<(), Failed> {
    let Inputs { heads, n_queries, .. } = inputs;
    let Heads { n_heads, n_kv_heads, head_dim, .. } = heads;
    let Upstream { out, lse, d_out } = upstream;
    let Gradients { d_q, d_k, d_v } = gradients;
    inputs.check();
    inputs.check_output(out.len(), lse.len());
    assert_eq!((d_out.len(), dots.len()), (out.len(), lse.len()), "d_out and dots");
    check_rows("d_q", (d_q.data.len(), d_q.stride), n_queries, n_heads * head_dim);
    for (name, rows) in [("d_k", &d_k), ("d_v", &d_v)] {
        check_rows(name, (rows.data.len(), rows.stride), inputs.n_keys(), n_kv_heads * head_dim);
    }
    if n_queries > 0 {
        let rows = n_queries * n_heads;
        let launch = Launch::new("attention", "attention_dots", rows.div_ceil(4), 128);
        let launch = launch.arg(out).arg(d_out).arg(dots.lend()).size(rows).size(head_dim);
        // SAFETY: the kernel's parameters, with the sizes checked above
        unsafe { launch.on(gpu)? };
        let launch =
            inputs.launch(inputs.kernel(&tensor::BACKWARD_QUERIES, &BACKWARD_QUERIES), n_queries, n_heads);
        let launch = launch.arg(lse).arg(dots.read()).arg(d_out);
        // SAFETY: as above
        unsafe { launch.arg(d_q.data).size(d_q.stride).on(gpu)? };
    }
    if inputs.n_keys() > 0 {
        let launch =
            inputs.launch(inputs.kernel(&tensor::BACKWARD_KEYS, &BACKWARD_KEYS), inputs.n_keys(), n_kv_heads);
        let launch = launch.arg(lse).arg(dots.read()).arg(d_out);
        let launch = launch.arg(d_k.data).size(d_k.stride).arg(d_v.data).size(d_v.stride);
        // SAFETY: as above
        unsafe { launch.on(gpu)? };
    }
    Ok(())
}

impl Inputs<'_> {
    fn n_keys(&self) -> usize {
        self.mask.begin.len()
    }

    /// Panics when the sizes do not fit together.
    fn check(&self) {
        let Heads { n_heads, n_kv_heads, head_dim, .. } = self.heads;
        assert!(
            n_heads * n_kv_heads * head_dim > 0 && n_heads.is_multiple_of(n_kv_heads),
            "{:?}",
            self.heads
        );
        assert!(head_dim <= 256, "heads of {head_dim} numbers: there is no kernel for more than 256");
        assert_eq!(self.mask.begin.len(), self.mask.end.len(), "begin and end of every key");
        check_rows("q", (self.q.data.len(), self.q.stride), self.n_queries, n_heads * head_dim);
        for (name, rows) in [("k", self.k), ("v", self.v)] {
            check_rows(name, (rows.data.len(), rows.stride), self.n_keys(), n_kv_heads * head_dim);
        }
        if let Some(bias) = &self.bias {
            let positions = (bias.query_positions.len(), bias.key_positions.len());
            assert_eq!(positions, (self.n_queries, self.n_keys()), "positions of queries and keys");
            let width = bias.table.len() / n_heads;
            assert!(
                width % 2 == 1 && width * n_heads == bias.table.len(),
                "the table has an odd width for each head"
            );
        }
    }

    fn check_output(&self, out: usize, lse: usize) {
        let rows = self.n_queries * self.heads.n_heads;
        assert_eq!((out, lse), (rows * self.heads.head_dim, rows), "out and lse");
    }

    /// The kernel for heads of this width.
    fn of_width(&self, kernels: &[Kernel]) -> Kernel {
        *kernels.iter().find(|of| self.heads.head_dim <= of.width).expect("the width was checked")
    }

    /// On tensor cores where that is asked for and there is one for this width.
    fn kernel(&self, on_tensor_cores: &[Kernel], in_f32: &[Kernel]) -> Kernel {
        self.of_width(if self.rounds(on_tensor_cores) { on_tensor_cores } else { in_f32 })
    }

    /// Whether factors are rounded: where that is asked for and these kernels are wide enough.
    fn rounds(&self, on_tensor_cores: &[Kernel]) -> bool {
        let fits = on_tensor_cores.iter().any(|of| self.heads.head_dim <= of.width);
        fits && self.precision == Precision::Bf16
    }

    /// Whether a tile of queries would mostly be rows that see nothing of a tile of keys, or no rows: as in a step of generation.
    fn are_queries_few(&self) -> bool {
        self.n_queries <= MOST_OF_FEW && 4 * self.n_queries <= self.n_keys()
    }

    /// A block per tile of rows and head, and the parameters that all kernels begin with.
    fn launch(&self, kernel: Kernel, rows: usize, heads: usize) -> Launch {
        let Heads { n_heads, n_kv_heads, head_dim, scale } = self.heads;
        let blocks = rows.div_ceil(kernel.rows);
        let launch = Launch::new(kernel.file, kernel.name, blocks, kernel.threads as u32).rows(heads);
        let none = Arg::from(0u64);
        let reach = self.bias.map_or(0, |bias| bias.table.len() / n_heads / 2);
        let [query_positions, key_positions, table] = self.bias.map_or([none; 3], |bias| {
            [bias.query_positions.into(), bias.key_positions.into(), bias.table.into()]
        });
        let launch = launch.arg(self.q.data).arg(self.k.data).arg(self.v.data);
        let launch = launch.arg(self.mask.begin).arg(self.mask.end);
        let launch = launch.arg(query_positions).arg(key_positions).arg(table);
        let launch = launch.size(self.q.stride).size(self.k.stride).size(self.v.stride);
        let launch = launch.size(self.n_queries).size(self.n_keys()).size(n_heads).size(n_kv_heads);
        launch.size(head_dim).size(reach).arg(scale)
    }
}

/// Panics unless there are `n` rows of `width` numbers.
fn check_rows(name: &str, (len, stride): (usize, usize), n: usize, width: usize) {
    let enough = n == 0 || (stride >= width && len >= (n - 1) * stride + width);
    assert!(enough, "{name}: {len} numbers, stride {stride}, are no {n} rows of {width}");
}
