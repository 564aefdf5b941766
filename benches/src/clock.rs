//! Times of one piece of work.
//!
//! Machines are shared: the shortest time was disturbed least and says what is possible, the median says what is usual.

use std::time::{Duration, Instant};

/// Times in seconds, in the order they were taken.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<f64>);

impl Times {
    /// Writes down one time.
    pub fn push(&mut self, seconds: f64) {
        self.0.push(seconds);
    }

    /// The shortest. Infinite when there is none.
    pub fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The one in the middle. Infinite when there is none.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
    }

    /// Times `work` once, and again until `at_least` has passed.
    pub fn take(&mut self, at_least: Duration, mut work: impl FnMut()) {
        let begin = Instant::now();
        loop {
            self.push(seconds(&mut work));
            if begin.elapsed() >= at_least {
                return;
            }
        }
    }
}

/// How long `work` takes, in seconds.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_and_median() {
        let times = Times(vec![3.0, 1.0, 9.0, 2.0, 5.0]);
        assert_eq!((times.best(), times.median()), (1.0, 3.0));
        assert_eq!(Times::default().median(), f64::INFINITY);
    }

    #[test]
    fn work_is_timed_at_least_once() {
        let (mut times, mut runs) = (Times::default(), 0);
        times.take(Duration::ZERO, || runs += 1);
        assert_eq!((runs, times.0.len()), (1, 1));
    }
}
