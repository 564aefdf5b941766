//! Activations on the GPU: [`super`]'s functions, with slices of its memory.

use super::Activation;
use crate::cuda::{Arg, Failed, Launcher, Slice, SliceMut, rows};

const FILE: &str = "activation";

/// The function as the kernels number it.
fn number(act: Activation) -> u32 {
    match act {
        Activation::GeluTanh => 0,
        Activation::GeluErf => 1,
        Activation::Silu => 2,
        Activation::Relu => 3,
    }
}

/// [`super::forward`]
///
/// # Errors
/// The launch failed. Panics when the lengths differ.
pub fn forward(gpu: &dyn Launcher, act: Activation, x: Slice<f32>, y: SliceMut<f32>) -> Result<(), Failed> {
    run(gpu, ["activation_forward_x1", "activation_forward_x4"], act, &[x], [y])
}

/// [`super::backward`]
///
/// # Errors
/// The launch failed. Panics when the lengths differ.
pub fn backward(
    gpu: &dyn Launcher,
    act: Activation,
    x: Slice<f32>,
    d_y: Slice<f32>,
    d_x: SliceMut<f32>,
) -> Result<(), Failed> {
    run(gpu, ["activation_backward_x1", "activation_backward_x4"], act, &[x, d_y], [d_x])
}

/// The inputs of a gated activation; `gate` and `up` have one length.
#[derive(Clone, Copy, Debug)]
pub struct Gated<'a> {
    /// The function.
    pub act: Activation,
    /// What goes through the function.
    pub gate: Slice<'a, f32>,
    /// What it is multiplied with.
    pub up: Slice<'a, f32>,
}

/// [`super::gated_forward`]
///
/// # Errors
/// The launch failed. Panics when the lengths differ.
pub fn gated_forward(gpu: &dyn Launcher, inputs: Gated, y: SliceMut<f32>) -> Result<(), Failed> {
    let Gated { act, gate, up } = inputs;
    run(gpu, ["gated_forward_x1", "gated_forward_x4"], act, &[gate, up], [y])
}

/// [`super::gated_backward`], into `[d_gate, d_up]`.
///
/// # Errors
/// The launch failed. Panics when the lengths differ.
pub fn gated_backward(
    gpu: &dyn Launcher,
    inputs: Gated,
    d_y: Slice<f32>,
    gradients: [SliceMut<f32>; 2],
) -> Result<(), Failed> {
    let Gated { act, gate, up } = inputs;
    run(gpu, ["gated_backward_x1", "gated_backward_x4"], act, &[gate, up, d_y], gradients)
}

/// The kernels take the function, the inputs, the outputs and their length.
fn run<const OUT: usize>(
    gpu: &dyn Launcher,
    kernels: [&'static str; 2],
    act: Activation,
    inputs: &[Slice<f32>],
    outputs: [SliceMut<f32>; OUT],
) -> Result<(), Failed> {
    let n = inputs[0].len();
    assert!(
        inputs.iter().map(|x| x.len()).chain(outputs.iter().map(|y| y.len())).all(|len| len == n),
        "lengths"
    );
    if n == 0 {
        return Ok(());
    }
    let slices: Vec<Arg> = inputs.iter().map(|&x| x.into()).chain(outputs.map(Arg::from)).collect();
    let launch = rows::number_by_number(FILE, kernels, n, &slices).arg(number(act));
    let launch = slices.into_iter().fold(launch, |launch, slice| launch.arg(slice)).size(n);
    // SAFETY: the kernels' parameters, of one length
    unsafe { launch.on(gpu) }
}
