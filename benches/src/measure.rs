//! Takes turns: ceilings, kernel, peers, and again. What disturbs a round disturbs all of them.

use std::time::{Duration, Instant};

use kernels::Isa;

use crate::case::{Case, Kernel, Work, verify};
use crate::ceilings::{Arithmetic, Bandwidth, Streams, Threads, operations_per_second};
use crate::clock::Times;
use crate::peers::{self, Peer};
use crate::report::{Ceilings, Level, Limit, Measurement, Peak, PeerTime, Spread};

/// How thoroughly to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Instruction sets, slowest first.
    pub tiers: Vec<Isa>,
    /// Rounds of each case at least.
    pub rounds: usize,
    /// Time for each case at least.
    pub budget: Duration,
}

/// How long one thing is repeated when it is its turn.
const TURN: Duration = Duration::from_millis(4);
/// Bytes that no cache holds.
const FAR: usize = 256 << 20;
/// Bytes of a layer norm in a training step: 820 rows of 768 numbers read and written.
const NEAR: usize = 8 * 820 * 768;

/// Rounds of the ceilings at least. They are short, and a disturbance can last longer than a few of them.
const CEILING_ROUNDS: usize = 12;

/// The ceilings of the machine, the best of some rounds.
pub fn ceilings(settings: &Settings) -> Ceilings {
    let best = |measure: &dyn Fn() -> f64| {
        (0..settings.rounds.max(CEILING_ROUNDS)).map(|_| measure()).fold(0.0, f64::max)
    };
    let peak = |(isa, arithmetic): (Isa, Arithmetic)| {
        operations_per_second(isa, arithmetic, Threads::One)?;
        let on = |threads| best(&|| operations_per_second(isa, arithmetic, threads).unwrap_or(0.0)) / 1e9;
        Some(Peak {
            tier: isa.name().into(),
            arithmetic: arithmetic.name().into(),
            gflops: on(Threads::All),
            gflops_one_core: on(Threads::One),
        })
    };
    let peaks = settings.tiers.iter().flat_map(|&isa| [(isa, Arithmetic::F32), (isa, Arithmetic::Bf16)]);
    let level = |bytes: usize| {
        let on = |threads| {
            let streams = Streams::new(bytes, threads);
            let all: Vec<Bandwidth> =
                (0..settings.rounds.max(CEILING_ROUNDS)).map(|_| streams.measure()).collect();
            let best = |of: fn(&Bandwidth) -> f64| all.iter().map(of).fold(0.0, f64::max) / 1e9;
            [best(|b| b.read), best(|b| b.copy), best(|b| b.sum)]
        };
        let ([read, copy, sum], [read_one_core, copy_one_core, sum_one_core]) =
            (on(Threads::All), on(Threads::One));
        Level { bytes, read, read_one_core, copy, copy_one_core, sum, sum_one_core }
    };
    Ceilings { arithmetic: peaks.filter_map(peak).collect(), memory: level(FAR), cache: level(NEAR) }
}

/// Verifies the case on every instruction set, and the peers, and then measures them. `known` are the ceilings of the
/// whole run: what was reached once is possible.
///
/// # Errors
/// A result is wrong: then nothing is timed.
pub fn case(case: &Case, settings: &Settings, known: &Ceilings) -> Result<Vec<Measurement>, String> {
    let mut kernel = (case.make)();
    let wrong = |who: &str, why: String| format!("{} ({who}): {why}", case.name());
    let mut ours = Vec::new();
    for &isa in contenders(case, settings) {
        verify(&mut *kernel, |kernel| kernel.run(isa)).map_err(|why| wrong(isa.name(), why))?;
        ours.push(Turn { isa, peak: Times::default(), seconds: Times::default() });
    }
    let mut others = Vec::new();
    let of_products = if kernel.product().is_some() { peers::all() } else { &[] };
    for peer in of_products {
        verify(&mut *kernel, |kernel| run_peer(peer, kernel)).map_err(|why| wrong(peer.name, why))?;
        others.push((peer, Times::default()));
    }
    let rounds = Rounds::take(&mut *kernel, case.work, settings, (ours, others));
    Ok(rounds.turns.iter().map(|turn| rounds.measurement(case, turn, known)).collect())
}

/// The instruction sets that a case is measured on: the last alone where the code is the same for all.
fn contenders<'a>(case: &Case, settings: &'a Settings) -> &'a [Isa] {
    let all = &settings.tiers[..];
    if case.tiers { all } else { &all[all.len().saturating_sub(1)..] }
}

fn run_peer(peer: &Peer, kernel: &mut dyn Kernel) {
    let (product, out) = kernel.product().expect("only products have peers");
    (peer.run)(product, out);
}

/// Times of one instruction set. Ceilings are kept as times too: of one operation, of one byte.
struct Turn {
    isa: Isa,
    peak: Times,
    seconds: Times,
}

struct Rounds {
    turns: Vec<Turn>,
    peers: Vec<(&'static Peer, Times)>,
    work: Work,
    memory: [Times; 3],
}

impl Rounds {
    fn take(
        kernel: &mut dyn Kernel,
        work: Work,
        settings: &Settings,
        (turns, peers): (Vec<Turn>, Vec<(&'static Peer, Times)>),
    ) -> Rounds {
        let streams = Streams::new(work.bytes(), Threads::All);
        let mut rounds = Rounds { turns, peers, work, memory: Default::default() };
        let start = Instant::now();
        for round in 0.. {
            if round >= settings.rounds && start.elapsed() >= settings.budget {
                break;
            }
            let bandwidth = streams.measure();
            for (times, rate) in rounds.memory.iter_mut().zip([bandwidth.read, bandwidth.copy, bandwidth.sum])
            {
                times.push(rate.recip());
            }
            for Turn { isa, peak, seconds } in &mut rounds.turns {
                // without an instruction of its own the arithmetic is done in f32
                let operations = operations_per_second(*isa, work.arithmetic, Threads::All)
                    .or_else(|| operations_per_second(*isa, Arithmetic::F32, Threads::All));
                peak.push(operations.map_or(0.0, f64::recip));
                seconds.take(TURN, || kernel.run(*isa));
            }
            for (peer, seconds) in &mut rounds.peers {
                seconds.take(TURN, || run_peer(peer, kernel));
            }
        }
        rounds
    }

    fn measurement(&self, case: &Case, turn: &Turn, known: &Ceilings) -> Measurement {
        let (best, limit) = self.possible(turn, Times::best, Some(known));
        let (median, _) = self.possible(turn, Times::median, None);
        let seconds = spread(&turn.seconds);
        Measurement {
            kernel: case.kernel.into(),
            kind: case.kind,
            shape: case.shape.clone(),
            dtype: case.dtype.into(),
            tier: if case.tiers { turn.isa.name() } else { "any" }.into(),
            flops: case.work.flops,
            bytes: case.work.bytes(),
            seconds,
            share: Spread { best: best / seconds.best, median: median / seconds.median },
            limit,
            peers: self
                .peers
                .iter()
                .map(|(peer, times)| PeerTime { name: peer.name.into(), seconds: spread(times) })
                .collect(),
        }
    }

    /// The time that the ceilings of these rounds allow, or those of the whole run where they are higher; and which of
    /// them it is.
    fn possible(&self, turn: &Turn, pick: fn(&Times) -> f64, known: Option<&Ceilings>) -> (f64, Limit) {
        let [read, copy, sum] = self.memory.each_ref().map(|times| pick(times).recip());
        let (mut bandwidth, mut operation) = (Bandwidth { read, copy, sum }, pick(&turn.peak));
        if let Some(known) = known {
            bandwidth = bandwidth.max(known.bandwidth(self.work.bytes()));
            let per_second =
                |arithmetic: Arithmetic| known.operations_per_second(turn.isa.name(), arithmetic.name());
            let peak = match per_second(self.work.arithmetic) {
                0.0 => per_second(Arithmetic::F32),
                peak => peak,
            };
            operation = operation.min(peak.recip());
        }
        let arithmetic = self.work.flops * operation;
        let memory = bandwidth.seconds(self.work.read, self.work.written);
        if arithmetic >= memory { (arithmetic, Limit::Arithmetic) } else { (memory, Limit::Memory) }
    }
}

fn spread(times: &Times) -> Spread {
    Spread { best: times.best(), median: times.median() }
}
