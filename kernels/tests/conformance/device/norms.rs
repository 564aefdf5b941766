//! Layer and RMS normalisation of every device.

#[cfg(feature = "cuda")]
use prompt_tuning_kernels::norms;
use prompt_tuning_kernels::{layer_norm, rms_norm};

#[cfg(feature = "cuda")]
use super::cuda::{read, write};
use super::{Device, unwritten};

/// The parameters of a norm; RMS normalisation has no bias.
#[derive(Clone, Copy)]
pub(crate) struct Parameters<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) eps: f32,
}

/// What a row of the forward pass was divided by, and what was subtracted before.
pub(crate) struct Statistics {
    pub(crate) mean: Vec<f32>,
    pub(crate) rstd: Vec<f32>,
}

impl Device {
    pub(crate) fn layer_norm(self, x: &[f32], parameters: Parameters) -> (Vec<f32>, Statistics) {
        let Parameters { weight, bias, eps } = parameters;
        let rows = x.len() / weight.len();
        let (mut y, mut mean, mut rstd) = (unwritten(x.len()), unwritten(rows), unwritten(rows));
        match self {
            Device::Cpu(isa) => {
                let affine = layer_norm::Affine { weight, bias, eps };
                layer_norm::forward(isa, x, affine, &mut y, &mut mean, &mut rstd);
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let affine = layer_norm::cuda::Affine { weight: read(weight), bias: read(bias), eps };
                let statistics = [write(&mut mean), write(&mut rstd)];
                layer_norm::cuda::forward(&host, read(x), affine, write(&mut y), statistics).unwrap();
            }
        }
        (y, Statistics { mean, rstd })
    }

    /// `d_x`, added to what is there.
    pub(crate) fn layer_norm_accumulate(
        self,
        (x, Statistics { mean, rstd }): (&[f32], &Statistics),
        weight: &[f32],
        d_y: &[f32],
        d_x: &mut [f32],
    ) {
        match self {
            Device::Cpu(isa) => layer_norm::accumulate_input(isa, x, weight, mean, rstd, d_y, d_x),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let from = backward(x, Some(mean), rstd, d_y);
                norms::backward_input(&host, from, read(weight), write(d_x), true).unwrap();
            }
        }
    }

    /// `d_x`
    pub(crate) fn layer_norm_backward(
        self,
        (x, Statistics { mean, rstd }): (&[f32], &Statistics),
        weight: &[f32],
        d_y: &[f32],
    ) -> Vec<f32> {
        let mut d_x = unwritten(x.len());
        match self {
            Device::Cpu(isa) => layer_norm::backward_input(isa, x, weight, mean, rstd, d_y, &mut d_x),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let from = backward(x, Some(mean), rstd, d_y);
                norms::backward_input(&host, from, read(weight), write(&mut d_x), false).unwrap();
            }
        }
        d_x
    }

    /// The gradients of weight and bias, `[C]` each.
    pub(crate) fn layer_norm_affine(
        self,
        (x, Statistics { mean, rstd }): (&[f32], &Statistics),
        d_y: &[f32],
        c: usize,
    ) -> [Vec<f32>; 2] {
        let mut d_affine = unwritten(2 * c);
        match self {
            Device::Cpu(isa) => {
                let (d_weight, d_bias) = d_affine.split_at_mut(c);
                layer_norm::backward_affine(isa, x, mean, rstd, d_y, [d_weight, d_bias]);
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let mut partial = unwritten(prompt_tuning_kernels::cuda::Slabs::of(mean.len()).n * 2 * c);
                let from = backward(x, Some(mean), rstd, d_y);
                norms::backward_parameters(&host, from, write(&mut partial), write(&mut d_affine)).unwrap();
            }
        }
        let d_bias = d_affine.split_off(c);
        [d_affine, d_bias]
    }

    pub(crate) fn rms_norm(self, x: &[f32], parameters: Parameters) -> (Vec<f32>, Vec<f32>) {
        let Parameters { weight, eps, .. } = parameters;
        let (mut y, mut rstd) = (unwritten(x.len()), unwritten(x.len() / weight.len()));
        match self {
            Device::Cpu(isa) => rms_norm::forward(isa, x, weight, eps, &mut y, &mut rstd),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                rms_norm::cuda::forward(&host, read(x), read(weight), eps, write(&mut y), write(&mut rstd))
                    .unwrap();
            }
        }
        (y, rstd)
    }

    /// `d_x`, added to what is there.
    pub(crate) fn rms_norm_accumulate(
        self,
        (x, rstd): (&[f32], &[f32]),
        weight: &[f32],
        d_y: &[f32],
        d_x: &mut [f32],
    ) {
        match self {
            Device::Cpu(isa) => rms_norm::accumulate_input(isa, x, weight, rstd, d_y, d_x),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let from = backward(x, None, rstd, d_y);
                norms::backward_input(&host, from, read(weight), write(d_x), true).unwrap();
            }
        }
    }

    /// `d_x`
    pub(crate) fn rms_norm_backward(
        self,
        (x, rstd): (&[f32], &[f32]),
        weight: &[f32],
        d_y: &[f32],
    ) -> Vec<f32> {
        let mut d_x = unwritten(x.len());
        match self {
            Device::Cpu(isa) => rms_norm::backward_input(isa, x, weight, rstd, d_y, &mut d_x),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let from = backward(x, None, rstd, d_y);
                norms::backward_input(&host, from, read(weight), write(&mut d_x), false).unwrap();
            }
        }
        d_x
    }

    /// The gradient of the weight, `[C]`.
    pub(crate) fn rms_norm_weight(self, (x, rstd): (&[f32], &[f32]), d_y: &[f32], c: usize) -> Vec<f32> {
        let mut d_weight = unwritten(c);
        match self {
            Device::Cpu(isa) => rms_norm::backward_weight(isa, x, rstd, d_y, &mut d_weight),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let mut partial = unwritten(prompt_tuning_kernels::cuda::Slabs::of(rstd.len()).n * c);
                let from = backward(x, None, rstd, d_y);
                norms::backward_parameters(&host, from, write(&mut partial), write(&mut d_weight)).unwrap();
            }
        }
        d_weight
    }
}

#[cfg(feature = "cuda")]
fn backward<'a>(
    x: &'a [f32],
    mean: Option<&'a [f32]>,
    rstd: &'a [f32],
    d_y: &'a [f32],
) -> norms::Backward<'a> {
    norms::Backward { x: read(x), mean: mean.map(read), rstd: read(rstd), d_y: read(d_y) }
}
