//! Matrix products on the GPU: [`super`]'s functions, with slices of its memory.

use half::bf16;

use super::{Layout, Order, Size, reference::Shape, rows};
use crate::cuda::{Arg, Failed, Launch, Launcher, Slice, SliceMut, TensorMap};

const FILE: &str = "matmul_f32";
const FILE_OF_TENSOR_CORES: &str = "matmul_bf16";
const FILE_OF_HOPPER: &str = "matmul_hopper";
const FILE_OF_FEW_ROWS: &str = "few_rows";

/// Rows up to which a product is one of `few_rows.cu`.
const MOST_FEW_ROWS: usize = 8;

/// Rows and columns of the tile of a block, and its threads, as in `matmul_f32.cu` and `matmul_bf16.cu`.
const TILE: usize = 128;
const THREADS: u32 = 256;
/// Side of the square of threads of a block of the first rung.
const SQUARE: usize = 16;

/// A block of `matmul_hopper.cu`: rows and columns of its tile, threads, and shared memory, which is three stages of 64 steps of
/// `k` with two barriers each.
const HOPPER_TILE: [usize; 2] = [128, 256];
const HOPPER_THREADS: u32 = 384;
const HOPPER_SHARED: u32 = 3 * (64 * (128 * 4 + 256 * 2) + 2 * 8);
/// Rows of the boxes of `A` and `B`.
const HOPPER_BOXES: [u32; 2] = [128, 64];

/// The numbers of a weight, as they lie in the memory of the device.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// 32-bit floats.
    F32(Slice<'a, f32>),
    /// bfloat16.
    Bf16(Slice<'a, bf16>),
}

impl Elements<'_> {
    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Elements::F32(x) => x.len(),
            Elements::Bf16(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of one.
    fn bytes_of_one(&self) -> usize {
        match self {
            Elements::F32(_) => 4,
            Elements::Bf16(_) => 2,
        }
    }
}

impl From<Elements<'_>> for Arg {
    fn from(elements: Elements) -> Arg {
        match elements {
            Elements::F32(x) => x.into(),
            Elements::Bf16(x) => x.into(),
        }
    }
}

/// Which kernel multiplies: the rungs of the ladder. Above the first one, up to eight rows are multiplied by kernels of their own,
/// of the same factors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rung {
    /// A thread per number of the output, everything from memory.
    Naive,
    /// Tiles in shared memory and registers, f32 arithmetic.
    #[default]
    Tiled,
    /// Tiles in shared memory, tensor cores: both factors are rounded to bf16, sums are f32
    /// ([`super::Precision::Bf16`]). A gradient with respect to the weight is not. On Hopper the factors come in boxes, and
    /// warpgroups multiply, where the weight is bf16 and the rows of both factors begin on boundaries of 16 bytes.
    TensorCores,
}

/// A weight matrix that maps `n_in` features to `n_out`.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// The numbers, row-major in `layout`.
    pub elements: Elements<'a>,
    /// Which way round they are.
    pub layout: Layout,
    /// Width of the input.
    pub n_in: usize,
    /// Width of the output.
    pub n_out: usize,
    /// How it is multiplied.
    pub rung: Rung,
}

/// What is added to the product as it is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[n_out]`, added to every row.
    pub bias: Option<Slice<'a, f32>>,
    /// `[m, n_out]`, added element by element (the residual stream).
    pub residual: Option<Slice<'a, f32>>,
}

/// [`super::forward`]
///
/// # Errors
/// The launch failed. Panics when a length does not fit.
pub fn forward(
    gpu: &dyn Launcher,
    x: Slice<f32>,
    w: Weight,
    epilogue: Epilogue,
    out: SliceMut<f32>,
) -> Result<(), Failed> {
    let order = match w.layout {
        Layout::OutIn => Order::Transposed,
        Layout::InOut => Order::RowMajor,
    };
    let size = Size { m: rows(x.len(), w.n_in, out.len(), w.n_out), k: w.n_in, n: w.n_out };
    Product { a: x, b: w.elements, order, size, rung: w.rung, epilogue }.run(gpu, out)
}

/// [`super::backward_input`]
///
/// # Errors
/// The launch failed. Panics when a length does not fit.
pub fn backward_input(
    gpu: &dyn Launcher,
    d_out: Slice<f32>,
    w: Weight,
    d_x: SliceMut<f32>,
) -> Result<(), Failed> {
    let order = match w.layout {
        Layout::OutIn => Order::RowMajor,
        Layout::InOut => Order::Transposed,
    };
    let size = Size { m: rows(d_out.len(), w.n_out, d_x.len(), w.n_in), k: w.n_out, n: w.n_in };
    let (rung, epilogue) = (w.rung, Epilogue::default());
    Product { a: d_out, b: w.elements, order, size, rung, epilogue }.run(gpu, d_x)
}

/// [`super::backward_weight`]. `turned` is scratch memory for the factor that has to be transposed: `d_out` of a weight that is
/// [`Layout::OutIn`], else `x`.
///
/// # Errors
/// A launch failed. Panics when a length does not fit.
pub fn backward_weight(
    gpu: &dyn Launcher,
    [x, d_out]: [Slice<f32>; 2],
    shape: Shape,
    mut turned: SliceMut<f32>,
    (before, d_w): (Option<Slice<f32>>, SliceMut<f32>),
) -> Result<(), Failed> {
    let Shape { layout, n_in, n_out } = shape;
    let rows = rows(x.len(), n_in, d_out.len(), n_out);
    let (first, m, second, n) = match layout {
        Layout::OutIn => (d_out, n_out, x, n_in),
        Layout::InOut => (x, n_in, d_out, n_out),
    };
    transpose(gpu, (first, m), turned.lend())?;
    let (size, b) = (Size { m, k: rows, n }, Elements::F32(second));
    let epilogue = Epilogue { bias: None, residual: before };
    let (order, rung) = (Order::RowMajor, Rung::default());
    Product { a: turned.read(), b, order, size, rung, epilogue }.run(gpu, d_w)
}

/// `x`, rows of `columns` numbers, as columns.
fn transpose(
    gpu: &dyn Launcher,
    (x, columns): (Slice<f32>, usize),
    out: SliceMut<f32>,
) -> Result<(), Failed> {
    assert_eq!(x.len(), out.len(), "as many numbers");
    if x.is_empty() {
        return Ok(());
    }
    let rows = x.len() / columns;
    let mut launch = Launch::new(FILE, "transpose", columns.div_ceil(32), 32).rows(rows.div_ceil(32));
    launch.block[1] = 8;
    // SAFETY: the kernel's parameters, with the sizes checked above
    unsafe { launch.arg(x).arg(out).size(rows).size(columns).on(gpu) }
}

/// `C = A · B + bias + residual`
struct Product<'a> {
    a: Slice<'a, f32>,
    b: Elements<'a>,
    order: Order,
    size: Size,
    rung: Rung,
    epilogue: Epilogue<'a>,
}

impl Product<'_> {
    fn run(self, gpu: &dyn Launcher, c: SliceMut<f32>) -> Result<(), Failed> {
        let Size { m, k, n } = self.size;
        let Epilogue { bias, residual } = self.epilogue;
        assert_eq!(self.a.len(), m * k, "the input is [{m}, {k}]");
        assert_eq!(self.b.len(), k * n, "the weight is [{k}, {n}] or the other way round");
        assert_eq!(c.len(), m * n, "the output is [{m}, {n}]");
        assert!(bias.is_none_or(|x| x.len() == n), "the bias is [{n}]");
        assert!(residual.is_none_or(|x| x.len() == m * n), "the residual is [{m}, {n}]");
        if m == 0 || n == 0 {
            return Ok(());
        }
        let none = Arg::from(0u64);
        let launch = if self.are_rows_few() {
            self.launch_of_few_rows().arg(self.a).arg(self.b)
        } else if let Some(factors) = self.boxes(gpu) {
            self.launch_on_hopper(factors)
        } else {
            self.launch().arg(self.a).arg(self.b)
        };
        let launch = launch.arg(bias.map_or(none, Arg::from)).arg(residual.map_or(none, Arg::from));
        let mut launch = launch.arg(c).size(m).size(k).size(n);
        if self.are_rows_few() {
            launch = launch.arg(u32::from(self.rung == Rung::TensorCores));
        }
        // SAFETY: the parameters of these kernels, with the sizes checked above
        unsafe { launch.on(gpu) }
    }

    /// Whether there is nothing to reuse: a product that waits for the weight to be read.
    fn are_rows_few(&self) -> bool {
        self.rung != Rung::Naive && self.size.m <= MOST_FEW_ROWS
    }

    /// The kernel for few rows, and a block per strip of columns.
    fn launch_of_few_rows(&self) -> Launch {
        let of_columns = self.order == Order::Transposed;
        let group = 16 / self.b.bytes_of_one();
        let Arg(a) = self.a.into();
        // rows of the activations are read like those of the weight where these are as long
        let is_aligned = self.is_weight_aligned() && (!of_columns || a.is_multiple_of(4 * group as u64));
        let strip = if of_columns { 16 } else { 8 * group };
        let [.., few] = self.kernels();
        Launch::new(FILE_OF_FEW_ROWS, few[usize::from(is_aligned)], self.size.n.div_ceil(strip), THREADS)
    }

    /// The factors in boxes, where warpgroups can multiply them.
    fn boxes(&self, gpu: &dyn Launcher) -> Option<[TensorMap; 2]> {
        let Elements::Bf16(b) = self.b else { return None };
        if self.rung != Rung::TensorCores || !gpu.is_hopper() {
            return None;
        }
        let [rows_of_a, rows_of_b] = HOPPER_BOXES;
        let a = TensorMap::new(self.a, self.size.k, rows_of_a)?;
        Some([a, TensorMap::new(b, self.row_of_b(), rows_of_b)?])
    }

    /// The kernel for Hopper, and a block per tile.
    fn launch_on_hopper(&self, [a, b]: [TensorMap; 2]) -> Launch {
        let name = match self.order {
            Order::RowMajor => "hopper_rows",
            Order::Transposed => "hopper_columns",
        };
        let ([height, width], Size { m, n, .. }) = (HOPPER_TILE, self.size);
        let launch = Launch::new(FILE_OF_HOPPER, name, n.div_ceil(width), HOPPER_THREADS);
        launch.rows(m.div_ceil(height)).shared(HOPPER_SHARED).map(a).map(b)
    }

    /// The kernel, and a block per tile.
    fn launch(&self) -> Launch {
        let Size { m, n, .. } = self.size;
        let (file, side) = match self.rung {
            Rung::Naive => (FILE, SQUARE),
            Rung::Tiled => (FILE, TILE),
            Rung::TensorCores => (FILE_OF_TENSOR_CORES, TILE),
        };
        let mut launch = Launch::new(file, self.kernel(), n.div_ceil(side), THREADS).rows(m.div_ceil(side));
        if self.rung == Rung::Naive {
            launch.block = [SQUARE as u32; 2];
        }
        launch
    }

    fn kernel(&self) -> &'static str {
        let [naive, tiled, on_tensor_cores, _] = self.kernels();
        match self.rung {
            Rung::Naive => naive[0],
            Rung::Tiled => tiled[usize::from(self.is_aligned())],
            Rung::TensorCores => on_tensor_cores[usize::from(self.is_weight_aligned())],
        }
    }

    /// Those of the rungs, and for few rows, for this weight: for any, and where rows can be read in groups.
    fn kernels(&self) -> [[&'static str; 2]; 4] {
        match (&self.b, self.order) {
            (Elements::F32(_), Order::RowMajor) => [
                ["product_f32_rows_naive"; 2],
                ["product_f32_rows", "product_f32_rows_aligned"],
                ["tensor_f32_rows", "tensor_f32_rows_aligned"],
                ["few_f32_rows", "few_f32_rows_aligned"],
            ],
            (Elements::F32(_), Order::Transposed) => [
                ["product_f32_columns_naive"; 2],
                ["product_f32_columns", "product_f32_columns_aligned"],
                ["tensor_f32_columns", "tensor_f32_columns_aligned"],
                ["few_f32_columns", "few_f32_columns_aligned"],
            ],
            (Elements::Bf16(_), Order::RowMajor) => [
                ["product_bf16_rows_naive"; 2],
                ["product_bf16_rows", "product_bf16_rows_aligned"],
                ["tensor_bf16_rows", "tensor_bf16_rows_aligned"],
                ["few_bf16_rows", "few_bf16_rows_aligned"],
            ],
            (Elements::Bf16(_), Order::Transposed) => [
                ["product_bf16_columns_naive"; 2],
                ["product_bf16_columns", "product_bf16_columns_aligned"],
                ["tensor_bf16_columns", "tensor_bf16_columns_aligned"],
                ["few_bf16_columns", "few_bf16_columns_aligned"],
            ],
        }
    }

    /// Whether rows are whole groups of four that can be read at once.
    fn is_aligned(&self) -> bool {
        let (Arg(a), k) = (self.a.into(), self.size.k);
        a.is_multiple_of(16) && k.is_multiple_of(4) && self.are_rows_of_b_whole(4 * self.b.bytes_of_one())
    }

    /// Whether rows of the weight are whole groups of 16 bytes that can be read at once. These kernels see for themselves
    /// how the activations lie.
    fn is_weight_aligned(&self) -> bool {
        self.are_rows_of_b_whole(16)
    }

    /// Whether rows of `B` are whole groups of so many bytes, on boundaries of them.
    fn are_rows_of_b_whole(&self, bytes: usize) -> bool {
        let Arg(b) = self.b.into();
        b.is_multiple_of(bytes as u64) && (self.row_of_b() * self.b.bytes_of_one()).is_multiple_of(bytes)
    }

    /// Numbers of a row of `B` as it lies.
    fn row_of_b(&self) -> usize {
        if self.order == Order::RowMajor { self.size.n } else { self.size.k }
    }
}
