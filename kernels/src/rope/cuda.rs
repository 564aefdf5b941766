//! Rotary position embedding on the GPU: [`super`]'s functions, with slices of its memory.

use super::Pairs;
use crate::{
    cuda::{Failed, Launch, Launcher, Slice, SliceMut},
    slices::n_rows,
};

/// [`super::Table`], on the device.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// `[T, D/2]`
    pub cos: Slice<'a, f32>,
    /// `[T, D/2]`
    pub sin: Slice<'a, f32>,
    /// `D/2`
    pub half: usize,
    /// Which lanes they are for.
    pub pairs: Pairs,
}

/// [`super::forward`]
///
/// # Errors
/// The launch failed. Panics when the sizes do not fit together.
pub fn forward(gpu: &dyn Launcher, table: Table, x: Slice<f32>, y: SliceMut<f32>) -> Result<(), Failed> {
    rotate(gpu, table, 1.0, x, y)
}

/// [`super::backward`]
///
/// # Errors
/// The launch failed. Panics when the sizes do not fit together.
pub fn backward(gpu: &dyn Launcher, table: Table, d_y: Slice<f32>, d_x: SliceMut<f32>) -> Result<(), Failed> {
    rotate(gpu, table, -1.0, d_y, d_x)
}

fn rotate(
    gpu: &dyn Launcher,
    table: Table,
    direction: f32,
    x: Slice<f32>,
    y: SliceMut<f32>,
) -> Result<(), Failed> {
    let Table { cos, sin, half, pairs } = table;
    assert_eq!((x.len(), cos.len()), (y.len(), sin.len()), "x and y, cos and sin");
    if x.is_empty() {
        return Ok(());
    }
    let tokens = n_rows(cos.len(), half);
    assert!(
        tokens > 0 && x.len().is_multiple_of(tokens * 2 * half),
        "{} numbers for {tokens} tokens",
        x.len()
    );
    let width = x.len() / tokens;
    let threads = (width / 2).next_multiple_of(32).min(256);
    let launch = Launch::new("rope", "rope", tokens, threads as u32).arg(cos).arg(sin).arg(direction);
    let launch = launch.arg(u32::from(pairs == Pairs::Neighbours)).arg(x).arg(y).size(half).size(width);
    // SAFETY: the kernel's parameters, with the sizes checked above
    unsafe { launch.on(gpu) }
}
