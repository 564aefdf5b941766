//! Every matrix product of this CPU against the f64 reference, from one list of implementations.

mod case;
#[cfg(feature = "cuda")]
mod hopper;
#[cfg(feature = "cuda")]
mod hopper_instructions;
#[cfg(feature = "cuda")]
#[path = "../shim/host.rs"]
mod host;
#[cfg(feature = "cuda")]
mod instructions;
mod large;
#[cfg(feature = "cuda")]
mod tensor_cores;

use case::{Case, DTYPES, Dtype, LAYOUTS, Stored, abs, assert_bound};
use half::bf16;
use kernels::matmul::reference::{self, Shape};
use kernels::matmul::{
    Elements, Epilogue, Layout, Precision, Weight, backward_input, backward_weight, forward,
};
use kernels::testing::Rng;
use kernels::{Isa, testing};
use prompt_tuning_kernels as kernels;
use proptest::prelude::*;

#[test]
fn a_product_done_by_hand() {
    // x W + b + r with W = [[1, 2, 3], [4, 5, 6]]
    let x = [1.0, 2.0];
    let by_layout =
        [(Layout::InOut, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), (Layout::OutIn, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0])];
    for isa in Isa::available() {
        for (layout, w) in by_layout {
            let w =
                Weight { elements: Elements::F32(&w), layout, n_in: 2, n_out: 3, precision: Precision::F32 };
            let epilogue = Epilogue { bias: Some(&[10.0, 20.0, 30.0]), residual: Some(&[0.5, 0.25, 0.125]) };
            let mut out = [0.0; 3];
            forward(isa, &x, w, epilogue, &mut out);
            assert_eq!(out, [19.5, 32.25, 45.125], "{} {layout:?}", isa.name());
            let mut d_x = [0.0; 2];
            backward_input(isa, &[1.0, 10.0, 100.0], w, &mut d_x);
            assert_eq!(d_x, [321.0, 654.0], "{} {layout:?}", isa.name());
            let mut d_w = [0.0; 6];
            backward_weight(
                isa,
                (&x, &[1.0, 10.0, 100.0]),
                Shape { layout, n_in: 2, n_out: 3 },
                None,
                &mut d_w,
            );
            let expected = match layout {
                Layout::InOut => [1.0, 10.0, 100.0, 2.0, 20.0, 200.0],
                Layout::OutIn => [1.0, 2.0, 10.0, 20.0, 100.0, 200.0],
            };
            assert_eq!(d_w, expected, "{} {layout:?}", isa.name());
        }
    }
}

/// All products of these sizes, every dtype and layout.
fn check_all(sizes: impl IntoIterator<Item = (usize, usize, usize)>) {
    for size in sizes {
        for layout in LAYOUTS {
            for dtype in DTYPES {
                Case::new(size, layout, dtype, 7).check();
            }
        }
    }
}

#[test]
fn every_small_size() {
    // each of 0..=20 in each dimension, beside sizes that are not multiples of anything
    check_all((0..=20).flat_map(|s| [(s, 7, 19), (5, s, 17), (11, 13, s), (s, s, s)]));
}

#[test]
fn around_the_tile() {
    let edges = [5, 6, 7, 11, 12, 13, 23, 24, 25];
    check_all(edges.into_iter().flat_map(|m| [15, 16, 17, 31, 32, 33].map(|n| (m, 33, n))));
}

#[test]
fn around_the_block() {
    let edges = [95, 96, 97, 383, 384, 385];
    check_all(edges.into_iter().flat_map(|s| [(13, s, 33), (13, 33, s)]));
    check_all([(9, 769, 771), (97, 400, 97), (193, 17, 101)]);
}

#[test]
fn model_shapes() {
    // rows of a small batch at the shapes of a small model and of its LM head
    check_all([(1, 64, 192), (8, 64, 192), (33, 64, 192), (33, 256, 64), (9, 64, 1031), (3, 768, 96)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_size(
        size in (0usize..70, 0usize..500, 0usize..130), layout in 0usize..2, dtype in 0usize..3, seed in any::<u64>()
    ) {
        Case::new(size, LAYOUTS[layout], DTYPES[dtype], seed).check();
    }
}

#[test]
fn a_times_the_identity_is_a() {
    for n in [1, 8, 31, 97, 400] {
        let mut identity = vec![0.0; n * n];
        identity.iter_mut().step_by(n + 1).for_each(|x| *x = 1.0);
        for (isa, dtype, m) in combinations(&[1, 5, 8, 9, 40]) {
            let weight = Stored::new(dtype, &identity);
            let x = Rng(3).normals(m * n);
            for layout in LAYOUTS {
                let w = Weight {
                    elements: weight.elements(),
                    layout,
                    n_in: n,
                    n_out: n,
                    precision: Precision::F32,
                };
                let (mut out, mut d_x) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
                forward(isa, &x, w, Epilogue::default(), &mut out);
                backward_input(isa, &x, w, &mut d_x);
                assert!(out == x && d_x == x, "{} {dtype:?} {layout:?} m={m} n={n}", isa.name());
            }
        }
    }
}

/// How near the products of rounded factors come to those of the factors: 8 bits of mantissa each.
#[test]
fn bf16_precision_costs_three_digits() {
    let case = Case::new((64, 768, 96), Layout::InOut, Dtype::F32, 4);
    for isa in Isa::available() {
        let exact = case.forward(isa);
        let mut out = vec![0.0; exact.len()];
        let epilogue = Epilogue { bias: case.bias.as_deref(), residual: case.residual.as_deref() };
        forward(isa, &case.x, Weight { precision: Precision::Bf16, ..case.weight() }, epilogue, &mut out);
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let error = norm(&mut exact.iter().zip(&out).map(|(e, o)| e - o)) / norm(&mut exact.iter().copied());
        // two relative errors, uniform within 2^-9 of numbers whose mantissas are anywhere
        assert!(1e-4 < error && error < 4e-3, "{}: {error}", isa.name());
    }
}

fn combinations(ms: &[usize]) -> Vec<(Isa, Dtype, usize)> {
    let each = |isa| DTYPES.into_iter().flat_map(move |dtype| ms.iter().map(move |&m| (isa, dtype, m)));
    Isa::available().into_iter().flat_map(each).collect()
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let on = |threads: usize, case: &Case, isa| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| (case.forward(isa), case.backward(isa)))
    };
    for size in [(3, 300, 900), (8, 1100, 500), (64, 500, 700), (300, 450, 130)] {
        for layout in LAYOUTS {
            let case = Case::new(size, layout, Dtype::Bf16, 5);
            for isa in Isa::available() {
                let one = on(1, &case, isa);
                assert!(one.0.iter().any(|&x| x != 0.0));
                assert!(one == on(2, &case, isa), "2 threads, {} {size:?} {layout:?}", isa.name());
                assert!(one == on(5, &case, isa), "5 threads, {} {size:?} {layout:?}", isa.name());
            }
        }
    }
}

/// With factors rounded to bf16 the product is that of the rounded factors, in f32: every instruction set, every path.
#[test]
fn bf16_precision_rounds_the_factors_and_nothing_else() {
    let round = |x: &[f32]| x.iter().map(|&x| f64::from(bf16::from_f32(x).to_f32())).collect::<Vec<f64>>();
    for (m, n_in, n_out) in [(1, 33, 5), (3, 64, 40), (9, 7, 19), (13, 385, 65), (40, 801, 97)] {
        for (layout, dtype) in LAYOUTS.into_iter().flat_map(|layout| DTYPES.map(|dtype| (layout, dtype))) {
            let mut case = Case::new((m, n_in, n_out), layout, dtype, 3);
            (case.bias, case.residual) = (None, None);
            let Case { x, shape, weight, .. } = &case;
            let w: Vec<f32> = weight.to_f64().iter().map(|&w| w as f32).collect();
            let (x, w) = (round(x), round(&w));
            let (mut expected, mut scale) = (vec![0.0; m * n_out], vec![0.0; m * n_out]);
            reference::forward(&x, (&w, *shape), None, None, &mut expected);
            reference::forward(&abs(&x), (&abs(&w), *shape), None, None, &mut scale);
            let weight = Weight { precision: Precision::Bf16, ..case.weight() };
            for isa in Isa::available() {
                let mut out = vec![f32::NAN; m * n_out];
                forward(isa, &case.x, weight, Epilogue::default(), &mut out);
                let what = format!("{} {dtype:?} {layout:?} m={m}", isa.name());
                assert_bound(&what, &out, &expected, (&scale, n_in));
            }
        }
    }
}

/// Rows computed alone, or among others: the same bits within a path, the error bound across paths.
#[test]
fn a_row_does_not_depend_on_the_others() {
    let (n_in, n_out) = (500, 130);
    for layout in LAYOUTS {
        let mut all = Case::new((60, n_in, n_out), layout, Dtype::F32, 11);
        (all.bias, all.residual) = (None, None);
        for isa in Isa::available() {
            let rows = |first: usize, m: usize| {
                let x = &all.x[first * n_in..(first + m) * n_in];
                let mut out = vec![f32::NAN; m * n_out];
                forward(isa, x, all.weight(), Epilogue::default(), &mut out);
                out
            };
            let together = rows(0, 60);
            for (first, m) in [(0, 9), (7, 20), (47, 13), (3, 8), (59, 1), (20, 5), (30, 16), (2, 4)] {
                let (out, what) = (rows(first, m), format!("{} {layout:?} rows {first}..+{m}", isa.name()));
                let few = m <= 8;
                if few {
                    let alone: Vec<f32> = (first..first + m).flat_map(|row| rows(row, 1)).collect();
                    assert!(out == alone, "{what}");
                }
                let same = &together[first * n_out..(first + m) * n_out];
                if few {
                    // two orders of the same sum, about 500 terms of size 1
                    testing::close(&out, same, testing::Tolerance { absolute: 1e-4, relative: 1e-6 })
                        .expect(&what);
                } else {
                    assert!(out == same, "{what}");
                }
            }
        }
    }
}

/// A NaN or infinity in one row stays there, also where the tile is padded.
#[test]
fn a_bad_row_spoils_no_other() {
    for isa in Isa::available() {
        for (m, layout) in [1, 4, 8, 13, 30].into_iter().flat_map(|m| LAYOUTS.map(|layout| (m, layout))) {
            let mut case = Case::new((m, 40, 37), layout, Dtype::F32, 2);
            let clean = case.forward(isa);
            case.x[(m - 1) * 40 + 39] = f32::NAN;
            let out = case.forward(isa);
            let (others, last) = out.split_at((m - 1) * 37);
            assert!(others == &clean[..others.len()], "{} m={m}", isa.name());
            assert!(last.iter().all(|x| x.is_nan()), "{} m={m}", isa.name());
        }
    }
}

#[test]
#[should_panic(expected = "the weight is [3, 4]")]
fn a_weight_of_the_wrong_length_is_refused() {
    let w = Weight {
        elements: Elements::F32(&[0.0; 11]),
        layout: Layout::InOut,
        n_in: 3,
        n_out: 4,
        precision: Precision::F32,
    };
    forward(Isa::best(), &[0.0; 3], w, Epilogue::default(), &mut [0.0; 4]);
}

/// `KERNELS_REQUIRE=avx2,avx512,cuda-shim` makes an instruction set that this CPU lacks, or kernels of the GPU that cannot be compiled
/// for it, a failure instead of a skipped test.
#[test]
fn required_instruction_sets_are_here() {
    let required = std::env::var("KERNELS_REQUIRE").unwrap_or_default();
    #[cfg_attr(not(feature = "cuda"), allow(unused_mut))]
    let mut available: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
    #[cfg(feature = "cuda")]
    available.extend((!host::hosts().is_empty()).then_some("cuda-shim"));
    for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        assert!(available.contains(&name), "KERNELS_REQUIRE names {name}; this CPU has {available:?}");
    }
}
