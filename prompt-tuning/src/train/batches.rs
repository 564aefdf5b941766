//! Which examples a step sees. A pure function of seed and step, so a resumed run sees what it would have seen.

use crate::rng::Rng;

/// The order of examples over a run.
#[derive(Clone, Debug)]
pub struct Batches {
    n: usize,
    per_step: usize,
    shuffle: Option<u64>,
    /// The epoch whose order is in `order`.
    epoch: Option<u64>,
    order: Vec<usize>,
}

impl Batches {
    /// Steps of `per_step` of `n` examples; every epoch in a new order made from the seed, or in the file's order.
    pub fn new(n: usize, per_step: usize, shuffle: Option<u64>) -> Batches {
        Batches { n, per_step: per_step.clamp(1, n.max(1)), shuffle, epoch: None, order: Vec::new() }
    }

    /// Steps of one epoch. The last one of an epoch may be smaller.
    pub fn steps_per_epoch(&self) -> u64 {
        self.n.div_ceil(self.per_step) as u64
    }

    /// The epoch of step `step`, both counted from 0.
    pub fn epoch(&self, step: u64) -> u64 {
        step / self.steps_per_epoch()
    }

    /// The examples of step `step`, counted from 0.
    pub fn at(&mut self, step: u64) -> &[usize] {
        let epoch = self.epoch(step);
        if self.epoch != Some(epoch) {
            self.order = (0..self.n).collect();
            if let Some(seed) = self.shuffle {
                Rng::new(seed).fork(epoch).shuffle(&mut self.order);
            }
            self.epoch = Some(epoch);
        }
        let start = (step % self.steps_per_epoch()) as usize * self.per_step;
        &self.order[start..(start + self.per_step).min(self.n)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_sees_every_example_once_and_order_depends_on_step_alone() {
        let mut batches = Batches::new(10, 4, Some(7));
        let steps: Vec<Vec<usize>> = (0..6).map(|s| batches.at(s).to_vec()).collect();
        for epoch in steps.chunks(3) {
            let mut seen = epoch.concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(steps[..3], steps[3..]);
        assert_eq!(Batches::new(10, 4, Some(7)).at(4), steps[4]);
        assert_eq!(Batches::new(10, 4, None).at(1), [4, 5, 6, 7]);
    }
}
