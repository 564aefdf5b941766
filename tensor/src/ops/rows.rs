//! Rows picked from tables, and their gradients put back.

use std::ops::Range;

use kernels::embedding;
#[cfg(feature = "cuda")]
use kernels::matmul::cuda::Elements;

use super::accumulated;
use crate::Tensor;

/// `[rows.len(), C]`: each row is that of `table` `[V, C]`, in any format, or, from `V` on, of `soft` `[P, C]`.
///
/// Panics for a row that is in neither.
pub fn gather(table: &Tensor, soft: Option<&Tensor>, rows: &[u32]) -> Tensor {
    let width = table.width();
    let shape = [rows.len(), width];
    let n_soft = soft.map_or(0, Tensor::rows);
    let limit = table.rows() + n_soft;
    assert!(rows.iter().all(|&row| (row as usize) < limit), "rows of {} and {n_soft}", table.rows());
    on_gpu!(|gpu| &[table, soft.unwrap_or(table)] => gpu.one(&shape, |y| {
        let elements = gpu.elements(table)?;
        let soft = match soft {
            Some(soft) => gpu.read(soft)?,
            None => gpu.send(&[])?,
        };
        let rows = gpu.send(rows)?;
        embedding::cuda::gather(gpu.launcher(), (elements.slice(), soft.slice()), rows.slice(), width, y)
    }));
    Tensor::build(&shape, |y| {
        let elements = table.elements();
        for (y, &row) in y.chunks_exact_mut(width.max(1)).zip(rows) {
            match (row as usize).checked_sub(table.rows()) {
                None => embedding::row(elements, row as usize, y),
                Some(k) => {
                    let soft = soft.expect("checked above");
                    y.copy_from_slice(&soft.f32s()[k * width..][..width]);
                }
            }
        }
    })
}

/// `table[first + i] = from[rows[i]]`, where `table` is. Panics for rows outside, and for a table of a file.
pub fn put(table: &mut Tensor, first: usize, from: &Tensor, rows: &[u32]) {
    let width = table.width();
    assert_eq!(from.width(), width, "rows of one width");
    assert!(rows.iter().all(|&row| (row as usize) < from.rows()), "rows of {}", from.rows());
    let at = first * width..(first + rows.len()) * width;
    on_gpu!(|gpu| &[table] => gpu.change([table], |[table]| {
        let (from, nothing, rows) = (gpu.read(from)?, gpu.send(&[])?, gpu.send(rows)?);
        let from = (Elements::F32(from.slice()), nothing.slice());
        embedding::cuda::gather(gpu.launcher(), from, rows.slice(), width, table.part(at))
    }));
    for (to, &row) in table.make_mut()[at].chunks_exact_mut(width.max(1)).zip(rows) {
        to.copy_from_slice(&from.f32s()[row as usize * width..][..width]);
    }
}

/// A matrix cut into groups of `width` columns, which lie below each other then: `[T, C]` as `[T C / width, width]`, the same
/// numbers. So columns are rows too; [`places`] says which.
pub fn cut(x: &Tensor, width: usize) -> Tensor {
    x.reshaped(&[x.len() / width, width])
}

/// In a matrix that was [`cut`] into `of` groups a row: where some of the groups of these rows are.
pub fn places(rows: impl IntoIterator<Item = u32>, of: usize, some: Range<usize>) -> Vec<u32> {
    let place = |row, group| (row as usize * of + group) as u32;
    rows.into_iter().flat_map(|row| some.clone().map(move |group| place(row, group))).collect()
}

/// `x[t] + table[rows[t]]`
pub fn add_rows(x: &Tensor, table: &Tensor, rows: &[u32]) -> Tensor {
    on_gpu!(|_| &[x, table] => super::pointwise::add(x, &gather(table, None, rows)));
    let (width, elements) = (table.width(), table.elements());
    Tensor::build(x.shape(), |y| {
        for ((y, x), &row) in y.chunks_exact_mut(width).zip(x.f32s().chunks_exact(width)).zip(rows) {
            embedding::row(elements, row as usize, y);
            y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
        }
    })
}

/// The gradient of a table of this shape: the sum of the rows of `d` that were taken from each of its rows, plus `before` if
/// there is one. `rows` names a row of the table for each row of `d`, or one outside for none.
///
/// Sums go over `d` in order, so they have the same bits for any number of threads.
pub fn scatter(d: &Tensor, rows: &[u32], shape: &[usize], before: Option<Tensor>) -> Tensor {
    assert_eq!(d.rows(), rows.len(), "a place for each row");
    let width = d.width();
    on_gpu!(|gpu| &[d] => {
        let new = gpu.one(shape, |sums| {
            let places = embedding::cuda::Places::of(rows, 0, shape[0]);
            let (begin, places) = (gpu.send(&places.begin)?, gpu.send(&places.places)?);
            let from = (gpu.read(d)?, width);
            embedding::cuda::gather_backward(
                gpu.launcher(), (from.0.slice(), width), begin.slice(), places.slice(), sums)
        });
        match before {
            Some(before) => super::sum(before, new),
            None => new,
        }
    });
    accumulated(before, shape, |sums, add| {
        if !add {
            sums.fill(0.0);
        }
        for (d, &row) in d.f32s().chunks_exact(width.max(1)).zip(rows) {
            if (row as usize) < shape[0] {
                let sum = &mut sums[row as usize * width..][..width];
                sum.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
            }
        }
    })
}
