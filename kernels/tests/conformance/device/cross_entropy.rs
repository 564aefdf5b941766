//! Log-sum-exp and the gradient of the loss of every device.

use prompt_tuning_kernels::cross_entropy::{self, Target};

#[cfg(feature = "cuda")]
use super::cuda::{read, write};
use super::{Device, unwritten};

impl Device {
    pub(crate) fn log_sum_exp(self, logits: &[f32], vocab: usize) -> Vec<f32> {
        let mut lse = unwritten(logits.len() / vocab);
        match self {
            Device::Cpu(isa) => cross_entropy::log_sum_exp(isa, logits, vocab, &mut lse),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                cross_entropy::cuda::log_sum_exp(&host, read(logits), vocab, write(&mut lse)).unwrap();
            }
        }
        lse
    }

    pub(crate) fn cross_entropy_backward(
        self,
        (logits, vocab): (&[f32], usize),
        lse: &[f32],
        targets: &[Target],
    ) -> Vec<f32> {
        let mut d_logits = unwritten(logits.len());
        match self {
            Device::Cpu(isa) => cross_entropy::backward(isa, logits, vocab, lse, targets, &mut d_logits),
            #[cfg(feature = "cuda")]
            Device::Cuda(host) => {
                let targets = cross_entropy::cuda::Targets::of(targets, lse.len(), vocab);
                let on_device = cross_entropy::cuda::OnDevice {
                    begin: read(&targets.begin),
                    tokens: read(&targets.tokens),
                    weights: read(&targets.weights),
                };
                let d_logits = write(&mut d_logits);
                cross_entropy::cuda::backward(&host, (read(logits), vocab), read(lse), on_device, d_logits)
                    .unwrap();
            }
        }
        d_logits
    }
}
