//! The numbers of a run, as `--json` writes them and `table` reads them.

use serde::{Deserialize, Serialize};

use crate::case::Kind;
use crate::ceilings::Bandwidth;
use crate::machine::Machine;

/// One run of `roofline`, or several put together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roofline {
    /// Where it ran.
    pub machine: Machine,
    /// What is possible there.
    pub ceilings: Ceilings,
    /// What was reached.
    pub measurements: Vec<Measurement>,
}

/// What the machine can do at most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Arithmetic of each instruction set, slowest first.
    pub arithmetic: Vec<Peak>,
    /// Far out of the caches.
    pub memory: Level,
    /// As much as a kernel of a training step touches.
    pub cache: Level,
}

/// Billions of operations per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// Instruction set.
    pub tier: String,
    /// What is computed: `f32`.
    pub arithmetic: String,
    /// On all threads.
    pub gflops: f64,
    /// On one.
    pub gflops_one_core: f64,
}

/// Billions of bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// Bytes that were gone through.
    pub bytes: usize,
    /// Read, on all threads.
    pub read: f64,
    /// Read, on one.
    pub read_one_core: f64,
    /// Copied, on all threads; bytes read and bytes written both count.
    pub copy: f64,
    /// Copied, on one.
    pub copy_one_core: f64,
    /// Two arrays read and a third written, on all threads; all bytes count.
    #[serde(default)]
    pub sum: f64,
    /// The same on one.
    #[serde(default)]
    pub sum_one_core: f64,
}

/// The best and the median of several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The round that was disturbed least.
    pub best: f64,
    /// The usual round.
    pub median: f64,
}

/// What limits a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Operations.
    Arithmetic,
    /// Bytes.
    Memory,
}

/// A kernel on a problem with an instruction set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Which kernel.
    pub kernel: String,
    /// What sort of kernel.
    pub kind: Kind,
    /// Sizes of the problem.
    pub shape: String,
    /// Of the weights, or of everything.
    pub dtype: String,
    /// Instruction set; `any` for code that is not compiled for each.
    pub tier: String,
    /// Operations.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: usize,
    /// Time.
    pub seconds: Spread,
    /// What is possible over what was needed: with the best ceilings and the best time of the rounds, and with the
    /// medians of both.
    pub share: Spread,
    /// Which ceiling that is.
    pub limit: Limit,
    /// The same by other crates, their times in the same rounds.
    pub peers: Vec<PeerTime>,
}

/// A peer's time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerTime {
    /// Name of the crate.
    pub name: String,
    /// Time.
    pub seconds: Spread,
}

impl Measurement {
    /// Whether both are of one kernel on one problem with one instruction set.
    fn is_of_the_same(&self, other: &Measurement) -> bool {
        [&self.kernel, &self.shape, &self.dtype, &self.tier]
            == [&other.kernel, &other.shape, &other.dtype, &other.tier]
    }

    /// Billions of operations per second, in the best round.
    pub fn gflops(&self) -> f64 {
        self.flops / self.seconds.best / 1e9
    }

    /// Billions of bytes per second, in the best round.
    pub fn gb_per_s(&self) -> f64 {
        self.bytes as f64 / self.seconds.best / 1e9
    }

    /// Operations per byte.
    pub fn intensity(&self) -> f64 {
        self.flops / self.bytes as f64
    }

    /// Billions of operations per second of a peer, if it took part.
    pub fn peer_gflops(&self, name: &str) -> Option<f64> {
        let peer = self.peers.iter().find(|peer| peer.name == name)?;
        Some(self.flops / peer.seconds.best / 1e9)
    }
}

impl Roofline {
    /// Several runs on one machine as one: the best ceilings of any of them, and each measurement once, as the last run
    /// that has it took it. Shares stay as they were measured.
    ///
    /// # Errors
    /// There is none, or two machines.
    pub fn merge(runs: Vec<Roofline>) -> Result<Roofline, String> {
        let mut runs = runs.into_iter();
        let mut all = runs.next().ok_or("there is no measurement")?;
        for run in runs {
            if run.machine != all.machine {
                return Err(format!("two machines: {} and {}", all.machine.line(), run.machine.line()));
            }
            all.ceilings.raise(&run.ceilings);
            for new in run.measurements {
                match all.measurements.iter_mut().find(|old| old.is_of_the_same(&new)) {
                    Some(old) => *old = new,
                    None => all.measurements.push(new),
                }
            }
        }
        Ok(all)
    }

    /// The fastest instruction set that was measured.
    pub fn best_tier(&self) -> &str {
        self.ceilings.arithmetic.last().map_or("", |peak| &peak.tier)
    }
}

/// A share of a ceiling as tables write it. Above 100 % the ceiling was measured too low, and how much above means nothing.
pub fn percent(share: f64) -> String {
    let whole = (100.0 * share).round();
    if whole > 100.0 { ">100 %".into() } else { format!("{whole:.0} %") }
}

impl Ceilings {
    /// The most that is known of moving so many bytes on all threads: fewer bytes are nearer and move faster, so each level
    /// of as many bytes or more is a lower bound. No bytes are further away than memory.
    pub fn bandwidth(&self, bytes: usize) -> Bandwidth {
        let memory = self.memory.bandwidth();
        if bytes <= self.cache.bytes { memory.max(self.cache.bandwidth()) } else { memory }
    }

    /// Operations per second of an instruction set on all threads; 0 where it has no such instruction.
    pub fn operations_per_second(&self, tier: &str, arithmetic: &str) -> f64 {
        let same = |peak: &&Peak| (&*peak.tier, &*peak.arithmetic) == (tier, arithmetic);
        self.arithmetic.iter().find(same).map_or(0.0, |peak| 1e9 * peak.gflops)
    }

    /// Takes over what is higher in `other`, measured at another time.
    pub fn raise(&mut self, other: &Ceilings) {
        for new in &other.arithmetic {
            let same = |peak: &&mut Peak| (&peak.tier, &peak.arithmetic) == (&new.tier, &new.arithmetic);
            match self.arithmetic.iter_mut().find(same) {
                Some(peak) => {
                    peak.gflops = peak.gflops.max(new.gflops);
                    peak.gflops_one_core = peak.gflops_one_core.max(new.gflops_one_core);
                }
                None => self.arithmetic.push(new.clone()),
            }
        }
        self.arithmetic.sort_by(|a, b| a.gflops.total_cmp(&b.gflops));
        self.memory.raise(other.memory);
        self.cache.raise(other.cache);
    }
}

impl Level {
    fn raise(&mut self, other: Level) {
        self.read = self.read.max(other.read);
        self.read_one_core = self.read_one_core.max(other.read_one_core);
        self.copy = self.copy.max(other.copy);
        self.copy_one_core = self.copy_one_core.max(other.copy_one_core);
        self.sum = self.sum.max(other.sum);
        self.sum_one_core = self.sum_one_core.max(other.sum_one_core);
    }

    /// On all threads, in bytes per second.
    pub fn bandwidth(self) -> Bandwidth {
        Bandwidth { read: 1e9 * self.read, copy: 1e9 * self.copy, sum: 1e9 * self.sum }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn level(read: f64) -> Level {
        Level {
            bytes: 1 << 20,
            read,
            read_one_core: read / 2.0,
            copy: read / 1.5,
            copy_one_core: read / 3.0,
            sum: read / 1.2,
            sum_one_core: read / 2.4,
        }
    }

    fn measurement(kernel: &str, kind: Kind, tier: &str, seconds: f64) -> Measurement {
        Measurement {
            kernel: kernel.into(),
            kind,
            shape: "820x768x768".into(),
            dtype: "f32".into(),
            tier: tier.into(),
            flops: 1e9,
            bytes: 10_000_000,
            seconds: Spread { best: seconds, median: 1.5 * seconds },
            share: Spread { best: 0.9, median: 0.8 },
            limit: Limit::Arithmetic,
            peers: vec![PeerTime { name: "gemm".into(), seconds: Spread { best: 0.02, median: 0.03 } }],
        }
    }

    /// A run with a product on two tiers and an activation on one.
    pub(crate) fn example() -> Roofline {
        let peak = |tier: &str, gflops| Peak {
            tier: tier.into(),
            arithmetic: "f32".into(),
            gflops,
            gflops_one_core: gflops / 2.0,
        };
        Roofline {
            machine: Machine::here(),
            ceilings: Ceilings {
                arithmetic: vec![peak("portable", 60.0), peak("avx2", 150.0)],
                memory: level(20.0),
                cache: level(80.0),
            },
            measurements: vec![
                measurement("matmul", Kind::Matmul, "portable", 0.02),
                measurement("matmul", Kind::Matmul, "avx2", 0.01),
                measurement("gelu", Kind::Activation, "avx2", 0.05),
            ],
        }
    }

    #[test]
    fn json_keeps_everything() {
        let json = serde_json::to_string(&example()).unwrap();
        assert_eq!(serde_json::from_str::<Roofline>(&json).unwrap(), example());
    }

    #[test]
    fn runs_merge_to_the_best_ceilings() {
        let mut other = example();
        other.ceilings.arithmetic.remove(0);
        other.ceilings.arithmetic[0].gflops = 170.0;
        other.ceilings.memory.read = 10.0;
        other.measurements.remove(0);
        other.measurements[0].seconds.best = 0.5;
        other.measurements[1].shape = "another".into();
        let all = Roofline::merge(vec![example(), other.clone()]).unwrap();
        // the second is measured again, and there is one more
        let times: Vec<f64> = all.measurements.iter().map(|m| m.seconds.best).collect();
        assert_eq!(times, [0.02, 0.5, 0.05, 0.05]);
        assert_eq!((all.best_tier(), all.ceilings.arithmetic.len()), ("avx2", 2));
        assert_eq!((all.ceilings.arithmetic[1].gflops, all.ceilings.memory.read), (170.0, 20.0));
        other.machine.cpu = "another".into();
        assert!(Roofline::merge(vec![example(), other]).is_err());
        assert!(Roofline::merge(Vec::new()).is_err());
    }

    #[test]
    fn a_share_above_the_ceiling_is_no_number() {
        assert_eq!([0.0, 0.954, 1.004, 1.11].map(percent), ["0 %", "95 %", "100 %", ">100 %"]);
    }

    #[test]
    fn ceilings_of_the_run() {
        let ceilings = example().ceilings;
        let read = |bytes| ceilings.bandwidth(bytes).read;
        assert_eq!((read(1 << 20), read((1 << 20) + 1)), (80e9, 20e9));
        assert_eq!(ceilings.operations_per_second("avx2", "f32"), 150e9);
        assert_eq!(ceilings.operations_per_second("avx2", "bf16"), 0.0);
    }

    #[test]
    fn rates() {
        let m = &example().measurements[1];
        assert_eq!((m.gflops(), m.gb_per_s(), m.intensity()), (100.0, 1.0, 100.0));
        assert_eq!((m.peer_gflops("gemm"), m.peer_gflops("other")), (Some(50.0), None));
    }
}
