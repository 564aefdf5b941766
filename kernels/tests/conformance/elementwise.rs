//! Sums, scalings, widening and table rows, which are exact up to one rounding.

use half::{bf16, f16};
use prompt_tuning_kernels::{
    Elements, elementwise, embedding,
    testing::{Tolerance, close},
};

use crate::{close_or_zero, device::on_every_device, lengths, named, normals, suite, to_f64};

const EXACT: Tolerance = Tolerance { absolute: 0.0, relative: 0.0 };
const ROUNDED: Tolerance = Tolerance { absolute: 0.0, relative: 6e-8 };

#[test]
fn sums_and_scalings() {
    on_every_device(&lengths(), |device, &n| {
        let (a, b) = (normals(1, n), normals(2, n));
        let (sum, scaled, mut acc) = (device.add(&a, &b), device.scale(-1.7, &a), b.clone());
        device.accumulate(&a, &mut acc);
        let (a, b) = (to_f64(&a), to_f64(&b));
        let expected = elementwise::reference::add(&a, &b);
        named("add", close(&sum, &expected, ROUNDED))?;
        named("accumulate", close(&acc, &expected, ROUNDED))?;
        named("scale", close(&scaled, &elementwise::reference::scale(f64::from(-1.7f32), &a), ROUNDED))
    });
}

#[test]
fn sums_of_rows() {
    let sizes = [(0, 5), (1, 1), (3, 17), (64, 33), (65, 8), (300, 768), (1000, 7), (5, 0)];
    on_every_device(&sizes, |device, &(rows, width)| {
        let x = normals(1, rows * width);
        let sums = device.sum_of_rows(&x, width);
        let mut expected = vec![0.0; width];
        for row in to_f64(&x).chunks_exact(width.max(1)) {
            expected.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        // each of `rows` additions rounds a sum that is hardly larger than sqrt(rows)
        let tol = Tolerance { absolute: 6e-8 * (rows as f64).sqrt().max(1.0) * 8.0, relative: 1e-6 };
        close_or_zero(&sums, &expected, tol)
    });
}

#[test]
fn widening_is_exact() {
    suite(&lengths(), |isa, &n| {
        let x = normals(1, n);
        let halves: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
        let brains: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
        let widened = |elements| {
            let mut out = vec![f32::NAN; n];
            elementwise::widen(isa, elements, &mut out);
            out
        };
        let of_halves: Vec<f64> = halves.iter().map(|x| x.to_f64()).collect();
        let of_brains: Vec<f64> = brains.iter().map(|x| x.to_f64()).collect();
        named("f32", close(&widened(Elements::F32(&x)), &x, EXACT))?;
        named("f16", close(&widened(Elements::F16(&halves)), &of_halves, EXACT))?;
        named("bf16", close(&widened(Elements::Bf16(&brains)), &of_brains, EXACT))
    });
}

#[test]
fn sum_of_squares() {
    assert_eq!(elementwise::sum_of_squares(&[]), 0.0);
    assert_eq!(elementwise::sum_of_squares(&[3.0, -4.0]), 25.0);
    for n in lengths().into_iter().skip(1) {
        let x = normals(1, n);
        let expected = elementwise::reference::sum_of_squares(&to_f64(&x));
        close(&[elementwise::sum_of_squares(&x)], &[expected], Tolerance::both(1e-13)).unwrap();
    }
    let sizes: Vec<usize> = lengths().into_iter().chain([4096, 4097, 10_000]).collect();
    on_every_device(&sizes, |device, &n| {
        let x = normals(2, n);
        let expected = elementwise::reference::sum_of_squares(&to_f64(&x));
        // the parts of a GPU are rounded to f32
        close_or_zero(&[device.sum_of_squares(&x) as f32], &[expected], Tolerance::both(2e-7))
    });
}

#[test]
fn rows_of_a_table() {
    for width in 1..=20 {
        let table = normals(width as u64, 5 * width);
        let halves: Vec<f16> = table.iter().map(|&x| f16::from_f32(x)).collect();
        let brains: Vec<bf16> = table.iter().map(|&x| bf16::from_f32(x)).collect();
        for row in 0..5 {
            let mut out = vec![f32::NAN; width];
            let expected = embedding::reference::row(&table, row, width);
            embedding::row(Elements::F32(&table), row, &mut out);
            close(&out, &expected, EXACT).unwrap();
            embedding::row(Elements::F16(&halves), row, &mut out);
            close(&out, &expected, Tolerance::both(1e-3)).unwrap();
            embedding::row(Elements::Bf16(&brains), row, &mut out);
            close(&out, &expected, Tolerance::both(4e-3)).unwrap();
        }
    }
}

#[test]
#[should_panic(expected = "row 5 of a table of 5")]
fn a_row_outside_of_the_table_panics() {
    embedding::row(Elements::F32(&[0.0; 10]), 5, &mut [0.0; 2]);
}
