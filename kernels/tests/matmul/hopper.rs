//! Products by warpgroups: the kernels that a GPU of Hopper gets in place of those on tensor cores, at the edges of their tiles,
//! boxes and stages; and which products get them.

use std::cell::RefCell;

use half::bf16;
use kernels::cuda::{Failed, Launch, Launcher, Slice, SliceMut};
use kernels::matmul::Layout;
use kernels::matmul::cuda::{self as on_gpu, Elements, Epilogue, Rung, Weight};
use kernels::testing::Rng;
use prompt_tuning_kernels as kernels;

use crate::case::{Case, Dtype, LAYOUTS, Stored, assert_bound};
use crate::host::{Host, hosts, read, write};
use crate::tensor_cores::{among, part};

/// A host that notes what it launches.
struct Noting {
    host: Host,
    launched: RefCell<Vec<&'static str>>,
}

impl Noting {
    fn new(host: Host) -> Noting {
        Noting { host, launched: RefCell::default() }
    }
}

impl Launcher for Noting {
    unsafe fn launch(&self, launch: &Launch) -> Result<(), Failed> {
        self.launched.borrow_mut().push(launch.kernel.name);
        // SAFETY: the caller vouches for it
        unsafe { self.host.launch(launch) }
    }

    fn is_hopper(&self) -> bool {
        self.host.is_hopper()
    }
}

/// Numbers between NaNs, which begin on 16 bytes.
struct Between<T>(Vec<T>);

impl<T: Copy> Between<T> {
    fn new(x: &[T], nan: T) -> Between<T> {
        Between(among(x, 8, nan))
    }

    fn slice(&self) -> Slice<'_, T> {
        read(&self.0[8..self.0.len() - 8])
    }
}

/// The data of a case, between NaNs, and its results on Hopper.
struct OnHopper<'a> {
    case: &'a Case,
    x: Between<f32>,
    d_out: Between<f32>,
    weight: Between<bf16>,
}

impl OnHopper<'_> {
    fn new(case: &Case) -> OnHopper<'_> {
        let Stored::Bf16(weight) = &case.weight else { unreachable!("what Hopper multiplies") };
        let [x, d_out] = [&case.x, &case.d_out].map(|x| Between::new(x, f32::NAN));
        OnHopper { case, x, d_out, weight: Between::new(weight, bf16::NAN) }
    }

    fn weight(&self) -> Weight<'_> {
        self.case.on_tensor_cores(Elements::Bf16(self.weight.slice()))
    }

    /// The output begins `first` numbers after a boundary, and so do bias and residual.
    fn forward(&self, gpu: &dyn Launcher, first: usize) -> Vec<f32> {
        let added =
            [&self.case.bias, &self.case.residual].map(|x| x.as_ref().map(|x| among(x, first, f32::NAN)));
        let [bias, residual] = added.each_ref().map(|x| x.as_ref().map(|x| read(&x[first..x.len() - 8])));
        let (weight, epilogue) = (self.weight(), Epilogue { bias, residual });
        written(first, (self.case.m, self.case.shape.n_out), |out| {
            on_gpu::forward(gpu, self.x.slice(), weight, epilogue, out)
        })
    }

    fn backward(&self, gpu: &dyn Launcher) -> Vec<f32> {
        let weight = self.weight();
        written(0, (self.case.m, self.case.shape.n_in), |out| {
            on_gpu::backward_input(gpu, self.d_out.slice(), weight, out)
        })
    }
}

/// What `f` writes to a matrix that begins `first` numbers after a boundary; nothing before it, and nothing where one more row
/// would be.
fn written(
    first: usize,
    (rows, width): (usize, usize),
    f: impl FnOnce(SliceMut<f32>) -> Result<(), Failed>,
) -> Vec<f32> {
    let end = first + rows * width;
    let mut y = vec![f32::NAN; end + width];
    f(write(&mut y[first..end])).unwrap();
    assert!(y[..first].iter().chain(&y[end..]).all(|y| y.is_nan()), "written outside");
    y[first..end].to_vec()
}

/// The product is that of the rounded factors, and has the same bits under all schedules.
fn check_forward(case: &Case, first: usize) {
    let (expected, data) = (case.of_rounded_factors(), OnHopper::new(case));
    let mut bits: Option<Vec<f32>> = None;
    for host in hosts() {
        let gpu = Noting::new(host.as_hopper());
        let y = data.forward(&gpu, first);
        let what = format!("{:?} m={} {:?} from {first}", gpu.host, case.m, case.shape);
        assert!(gpu.launched.borrow()[0].starts_with("hopper_"), "{what}: {:?}", gpu.launched);
        assert_bound(&what, &y, &expected.result, (&expected.scale, case.shape.n_in));
        assert_eq!(bits.get_or_insert_with(|| y.clone()), &y, "{what}");
    }
}

fn check_backward(case: &Case) {
    let (expected, data) = (case.gradient_of_rounded_factors(), OnHopper::new(case));
    for host in hosts() {
        let gpu = Noting::new(host.as_hopper());
        let d_x = data.backward(&gpu);
        let what = format!("backward {:?} m={} {:?}", gpu.host, case.m, case.shape);
        assert!(gpu.launched.borrow()[0].starts_with("hopper_"), "{what}: {:?}", gpu.launched);
        assert_bound(&what, &d_x, &expected.result, (&expected.scale, case.shape.n_out));
    }
}

fn check_all(sizes: impl IntoIterator<Item = (usize, usize, usize)>) {
    for (size, layout) in sizes.into_iter().flat_map(|size| LAYOUTS.map(|layout| (size, layout))) {
        let case = Case::new(size, layout, Dtype::Bf16, 37);
        check_forward(&case, 0);
        check_backward(&case);
    }
}

#[test]
fn around_the_steps_and_the_stages() {
    // 64 steps of k at one time, and three stages
    check_all([8, 32, 56, 64, 72, 120, 128, 192, 200, 456].map(|k| (13, k, 24)));
}

#[test]
fn around_the_boxes_and_the_tile() {
    check_all([9, 15, 16, 17, 63, 64, 65, 127, 128, 129].map(|m| (m, 40, 16)));
    check_all([56, 64, 72, 120, 128, 136, 248, 256, 264].map(|n| (11, 16, n)));
    check_all([(129, 136, 520)]);
}

/// More rows of tiles than a group of blocks has, and a last group that is lower.
#[test]
fn several_groups_of_tiles() {
    check_all([(8 * 128 + 1, 8, 264)]);
}

/// Rows of the activations are on boundaries, and rows of the weight; widths of the output are any.
#[test]
fn widths_that_are_no_groups_of_eight() {
    let of_rows = [(13, 12, 16), (13, 68, 264), (130, 4, 8)].map(|size| (size, Layout::InOut));
    let of_columns = [(11, 8, 5), (130, 72, 257), (10, 64, 1)].map(|size| (size, Layout::OutIn));
    for (size, layout) in of_rows.into_iter().chain(of_columns) {
        check_forward(&Case::new(size, layout, Dtype::Bf16, 41), 0);
    }
}

/// What is added and what is written may lie anywhere.
#[test]
fn outputs_that_begin_anywhere() {
    for (first, added) in (0..4)
        .flat_map(|first| [[false, false], [false, true], [true, false], [true, true]].map(|a| (first, a)))
    {
        let (mut case, mut rng) = (Case::new((13, 8, 24), Layout::InOut, Dtype::Bf16, 43), Rng(47));
        let [bias, residual] = [24, 13 * 24].map(|n| rng.normals(n));
        (case.bias, case.residual) = (added[0].then_some(bias), added[1].then_some(residual));
        check_forward(&case, first);
    }
}

/// A row with a NaN and a row of infinities spoil no other, though others in the boxes are zeros outside of the matrix.
#[test]
fn a_bad_row_spoils_no_other() {
    let mut case = Case::new((11, 24, 40), Layout::OutIn, Dtype::Bf16, 53);
    (case.bias, case.residual) = (None, None);
    let expected = case.of_rounded_factors();
    case.x[5] = f32::NAN;
    case.x[24..48].fill(f32::INFINITY);
    let data = OnHopper::new(&case);
    for host in hosts() {
        let y = data.forward(&host.as_hopper(), 0);
        assert!(y[..40].iter().all(|y| y.is_nan()) && y[40..80].iter().all(|y| !y.is_finite()));
        assert_bound("the others", &y[80..], &expected.result[80..], (&expected.scale[80..], 24));
    }
}

/// How a product is asked for: its sizes, and how many numbers after a boundary the factors begin.
#[derive(Clone, Copy, Debug)]
struct Asked {
    size: (usize, usize, usize),
    first: [usize; 2],
    dtype: Dtype,
    rung: Rung,
}

/// The kernel that multiplies, when rows of `B` are those of the weight.
fn kernel(host: Host, asked: Asked) -> &'static str {
    let Asked { size: (m, n_in, n_out), first: [of_x, of_w], dtype, rung } = asked;
    let (x, w) = (vec![0.5; of_x + m * n_in], Stored::new(dtype, &vec![0.5; of_w + n_in * n_out]));
    let weight =
        Weight { elements: part(&w, of_w..of_w + n_in * n_out), layout: Layout::InOut, n_in, n_out, rung };
    let (gpu, mut y) = (Noting::new(host), vec![f32::NAN; m * n_out]);
    on_gpu::forward(&gpu, read(&x[of_x..]), weight, Epilogue::default(), write(&mut y)).unwrap();
    assert!(y.iter().all(|&y| y == n_in as f32 / 4.0));
    gpu.launched.into_inner()[0]
}

#[test]
fn products_that_boxes_do_not_fit_get_the_other_kernels() {
    let usual = Asked { size: (10, 12, 16), first: [0, 0], dtype: Dtype::Bf16, rung: Rung::TensorCores };
    let other = "tensor_bf16_rows_aligned";
    let cases = [
        (usual, "hopper_rows"),
        (Asked { first: [4, 8], ..usual }, "hopper_rows"),
        (Asked { first: [2, 0], ..usual }, other),
        (Asked { first: [0, 4], ..usual }, "tensor_bf16_rows"),
        (Asked { size: (10, 10, 16), ..usual }, other),
        (Asked { size: (10, 12, 12), ..usual }, "tensor_bf16_rows"),
        (Asked { size: (10, 0, 16), first: [4, 8], ..usual }, other),
        (Asked { dtype: Dtype::F32, ..usual }, "tensor_f32_rows_aligned"),
        (Asked { rung: Rung::Tiled, ..usual }, "product_bf16_rows_aligned"),
        (Asked { size: (8, 12, 16), ..usual }, "few_bf16_rows_aligned"),
    ];
    for host in hosts().into_iter().take(1) {
        for (asked, name) in cases {
            assert_eq!(kernel(host.as_hopper(), asked), name, "{asked:?}");
        }
        assert_eq!(kernel(host, usual), other);
    }
}
