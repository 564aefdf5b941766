//! Quantised weights: widened as the `gguf` package does, and multiplied as their widened copies are, bit for bit.

use kernels::matmul::{Elements, Epilogue, Layout, Precision, Weight, backward_input, forward};
use kernels::testing::Rng;
use kernels::{BlockFormat, Blocks, Isa, elementwise, embedding};
use prompt_tuning_kernels as kernels;

/// Blocks of any bits whose scales are ordinary numbers.
fn random_blocks(format: BlockFormat, numbers: usize, rng: &mut Rng) -> Vec<u8> {
    let halves: &[usize] = match format {
        BlockFormat::Q8_0 | BlockFormat::Q4_0 | BlockFormat::Q5_0 => &[0],
        BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4_K | BlockFormat::Q5_K => &[0, 2],
        BlockFormat::Q6_K => &[208],
    };
    let mut bytes: Vec<u8> =
        (0..numbers / format.numbers() * format.bytes()).map(|_| rng.next_u64() as u8).collect();
    for block in bytes.chunks_exact_mut(format.bytes()) {
        for &at in halves {
            let half = half::f16::from_f32(0.02 * rng.normal() as f32);
            block[at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
    }
    bytes
}

fn widened(isa: Isa, blocks: Blocks) -> Vec<f32> {
    let mut out = vec![f32::NAN; blocks.len()];
    elementwise::widen(isa, Elements::Blocks(blocks), &mut out);
    out
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// `tests/fixtures/blocks.bin`, by `scripts/make_block_fixtures.py`: for each format in the order of
/// [`BlockFormat::ALL`], eight blocks of 32 or two of 256, then the numbers that `gguf.quants.dequantize` makes of them.
#[test]
fn every_format_widens_to_the_bits_of_the_reference_package() {
    let mut file = include_bytes!("fixtures/blocks.bin").as_slice();
    for format in BlockFormat::ALL {
        let numbers = 512 / format.numbers() * format.numbers();
        let (bytes, rest) = file.split_at(numbers / format.numbers() * format.bytes());
        let (expected, rest) = rest.split_at(4 * numbers);
        file = rest;
        let expected: Vec<u32> = expected.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        assert!(expected.iter().any(|&x| x << 1 != 0));
        for isa in Isa::available() {
            let what = format!("{format:?} {}", isa.name());
            assert_eq!(bits(&widened(isa, Blocks::new(format, bytes))), expected, "{what}");
        }
        let mut row = vec![f32::NAN; 256];
        embedding::row(Elements::Blocks(Blocks::new(format, bytes)), 1, &mut row);
        assert_eq!(bits(&row), expected[256..], "{format:?}, one row");
    }
    assert!(file.is_empty());
}

/// Both directions, both layouts, every instruction set, few rows and many: the bits of the same product with an f32 copy.
#[test]
fn a_product_has_the_bits_of_the_widened_product() {
    let sizes = [
        (1, 256, 512),
        (2, 512, 256),
        (3, 256, 256),
        (7, 768, 256),
        (8, 256, 1280),
        (9, 1024, 768),
        (16, 256, 256),
        (45, 1280, 512),
    ];
    for format in BlockFormat::ALL {
        for (m, n_in, n_out) in sizes {
            let mut rng = Rng((m * n_in) as u64);
            let bytes = random_blocks(format, n_in * n_out, &mut rng);
            let blocks = Blocks::new(format, &bytes);
            let (x, d_out, bias) = (rng.normals(m * n_in), rng.normals(m * n_out), rng.normals(n_out));
            for (isa, layout, precision) in combinations() {
                let wide = widened(isa, blocks);
                let run = |elements| {
                    let w = Weight { elements, layout, n_in, n_out, precision };
                    let (mut out, mut d_x) = (vec![f32::NAN; m * n_out], vec![f32::NAN; m * n_in]);
                    forward(isa, &x, w, Epilogue { bias: Some(&bias), residual: None }, &mut out);
                    backward_input(isa, &d_out, w, &mut d_x);
                    (bits(&out), bits(&d_x))
                };
                let (expected, actual) = (run(Elements::F32(&wide)), run(Elements::Blocks(blocks)));
                let what = format!("{format:?} {} {layout:?} {precision:?} {m}x{n_in}x{n_out}", isa.name());
                assert!(
                    expected.0.iter().chain(&expected.1).all(|&x| f32::from_bits(x).is_finite()),
                    "{what}"
                );
                assert!(actual == expected, "{what}");
            }
        }
    }
}

/// Rows of 32-number blocks need not be multiples of anything else.
#[test]
fn odd_numbers_of_blocks() {
    for (m, n_in, n_out) in
        [(1, 96, 5 * 32), (5, 32, 7 * 32), (20, 13 * 32, 32), (33, 7 * 32, 11 * 32), (4, 96, 33 * 32)]
    {
        let mut rng = Rng(n_out as u64);
        let bytes = random_blocks(BlockFormat::Q5_1, n_in * n_out, &mut rng);
        let blocks = Blocks::new(BlockFormat::Q5_1, &bytes);
        let (x, d_out) = (rng.normals(m * n_in), rng.normals(m * n_out));
        for (isa, layout, precision) in combinations() {
            let wide = widened(isa, blocks);
            let run = |elements| {
                let w = Weight { elements, layout, n_in, n_out, precision };
                let (mut out, mut d_x) = (vec![f32::NAN; m * n_out], vec![f32::NAN; m * n_in]);
                forward(isa, &x, w, Epilogue::default(), &mut out);
                backward_input(isa, &d_out, w, &mut d_x);
                (bits(&out), bits(&d_x))
            };
            let (expected, actual) = (run(Elements::F32(&wide)), run(Elements::Blocks(blocks)));
            assert!(actual == expected, "{} {layout:?} {precision:?} {m}x{n_in}x{n_out}", isa.name());
        }
    }
}

fn combinations() -> Vec<(Isa, Layout, Precision)> {
    let mut all = Vec::new();
    for isa in Isa::available() {
        for layout in [Layout::OutIn, Layout::InOut] {
            all.extend([Precision::F32, Precision::Bf16].map(|precision| (isa, layout, precision)));
        }
    }
    all
}

#[test]
#[should_panic(expected = "a row of 48 is no whole Q4_0 blocks")]
fn a_row_that_ends_within_a_block_is_refused() {
    let bytes = [0; 18 * 3];
    let elements = Elements::Blocks(Blocks::new(BlockFormat::Q4_0, &bytes));
    let w = Weight { elements, layout: Layout::OutIn, n_in: 48, n_out: 2, precision: Precision::F32 };
    forward(Isa::best(), &[0.0; 48], w, Epilogue::default(), &mut [0.0; 2]);
}

#[test]
#[should_panic(expected = "17 bytes are no whole Q4_0 blocks")]
fn bytes_that_are_no_whole_blocks_are_refused() {
    Blocks::new(BlockFormat::Q4_0, &[0; 17]);
}
