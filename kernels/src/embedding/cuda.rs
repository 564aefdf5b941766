//! Rows of tables on the GPU, and their gradient.

use crate::{
    cuda::{Failed, Launch, Launcher, Slice, SliceMut},
    matmul::cuda::Elements,
};

const FILE: &str = "embedding";

/// `out[i] = table[rows[i]]` widened to f32, where rows from the table's height on are those of `soft`: the trained vectors of a
/// prompt among the words of the model. `width` is `C`. A row of neither table becomes NaNs.
///
/// # Errors
/// The launch failed. Panics when the sizes do not fit together.
pub fn gather(
    gpu: &dyn Launcher,
    (table, soft): (Elements, Slice<f32>),
    rows: Slice<u32>,
    width: usize,
    out: SliceMut<f32>,
) -> Result<(), Failed> {
    let n_rows = crate::slices::n_rows(table.len(), width);
    assert!(width > 0 && soft.len().is_multiple_of(width), "soft rows of the table's width");
    assert_eq!(out.len(), rows.len() * width, "a row for each");
    if rows.is_empty() {
        return Ok(());
    }
    let name = match table {
        Elements::F32(_) => "gather_f32",
        Elements::Bf16(_) => "gather_bf16",
    };
    let launch = Launch::new(FILE, name, rows.len(), threads(width));
    let launch =
        launch.arg(table).arg(soft).arg(rows).arg(out).size(n_rows).size(soft.len() / width).size(width);
    // SAFETY: the kernel's parameters, with the sizes checked above; the kernel checks the rows
    unsafe { launch.on(gpu) }
}

/// Who took which row, as [`gather_backward`] reads it: row `r` was taken by `places[begin[r]..begin[r + 1]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Places {
    /// One number more than there are rows.
    pub begin: Vec<u32>,
    /// Rows of the output, ascending for each row of the table.
    pub places: Vec<u32>,
}

impl Places {
    /// Of the rows `first..first + n` among `rows`: those of the prompt, whose gradient is wanted.
    pub fn of(rows: &[u32], first: u32, n: usize) -> Places {
        let mut taken = vec![Vec::new(); n];
        for (place, row) in rows.iter().enumerate() {
            let among = row.checked_sub(first).and_then(|row| taken.get_mut(row as usize));
            if let Some(taken) = among {
                taken.push(place as u32);
            }
        }
        let mut begin = vec![0];
        begin.extend(taken.iter().scan(0, |sum, taken| {
            *sum += taken.len() as u32;
            Some(*sum)
        }));
        Places { begin, places: taken.concat() }
    }
}

/// The gradient of the rows of a table, `[n, C]`: the sum of `d_out` over the places where each was taken, in their order.
/// `begin` and `places` are those of [`Places`].
///
/// # Errors
/// The launch failed. Panics when the sizes do not fit together.
pub fn gather_backward(
    gpu: &dyn Launcher,
    (d_out, width): (Slice<f32>, usize),
    begin: Slice<u32>,
    places: Slice<u32>,
    d_rows: SliceMut<f32>,
) -> Result<(), Failed> {
    let n = crate::slices::n_rows(d_rows.len(), width);
    assert_eq!(begin.len(), n + 1, "places of every row");
    assert!(width > 0 && d_out.len().is_multiple_of(width), "whole rows of d_out");
    if n == 0 {
        return Ok(());
    }
    let launch = Launch::new(FILE, "gather_backward", n, threads(width)).arg(d_out).arg(places).arg(begin);
    let launch = launch.arg(d_rows).size(d_out.len() / width).size(places.len()).size(width);
    // SAFETY: the kernel's parameters, with the sizes checked above; the kernel checks the places
    unsafe { launch.on(gpu) }
}

/// Threads for a row: whole warps.
fn threads(width: usize) -> u32 {
    width.next_multiple_of(32).clamp(32, 256) as u32
}
