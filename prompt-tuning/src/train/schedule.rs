//! The learning rate of each step: warm-up, then constant, linear or cosine.

use serde::{Deserialize, Serialize};

/// What the learning rate does after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Stays.
    #[default]
    Constant,
    /// Falls on a line to zero at the last step.
    Linear,
    /// Falls on half a cosine to zero at the last step.
    Cosine,
}

/// The learning rate of each step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The largest learning rate.
    pub lr: f32,
    /// Steps over which it rises from zero on a line.
    pub warmup: u64,
    /// Number of steps of the run.
    pub steps: u64,
    /// What follows the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// The learning rate of step `step`, counted from 0, as `transformers.get_scheduler` gives it.
    pub fn at(&self, step: u64) -> f32 {
        if step < self.warmup {
            return self.lr * (step as f32 / self.warmup as f32);
        }
        let rest = self.steps.saturating_sub(self.warmup).max(1);
        let progress = ((step - self.warmup) as f32 / rest as f32).min(1.0);
        self.lr
            * match self.decay {
                Decay::Constant => 1.0,
                Decay::Linear => 1.0 - progress,
                Decay::Cosine => 0.5 * (1.0 + (std::f32::consts::PI * progress).cos()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_then_decays_to_zero() {
        let s = Schedule { lr: 2.0, warmup: 4, steps: 14, decay: Decay::Linear };
        assert_eq!([0, 1, 4, 9, 14, 20].map(|i| s.at(i)), [0.0, 0.5, 2.0, 1.0, 0.0, 0.0]);
        let s = Schedule { warmup: 0, decay: Decay::Cosine, ..s };
        assert_eq!((s.at(0), s.at(7), s.at(14)), (2.0, s.at(7), 0.0));
        assert!((s.at(7) - 1.0).abs() < 1e-6);
        assert_eq!(Schedule { decay: Decay::Constant, ..s }.at(13), 2.0);
    }
}
