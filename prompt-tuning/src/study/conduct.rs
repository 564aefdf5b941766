//! Running a study: every wording × number of demonstrations × seed × order, each prompt asked once for all calibrations.
//!
//! All orders of one choice are asked in one list, so rows of a batch share whatever their prompts share: the instruction,
//! the first demonstrations, all of them.

use std::ops::Range;
use std::sync::Arc;

use super::metrics::scored;
use super::{DemonstrationLabels, Run};
use crate::data::{Dataset, Example};
use crate::encode::{Demonstration, TaskEncoder};
use crate::error::{Error, Result};
use crate::evaluate::labels::{self, Scores};
use crate::evaluate::{Examinee, Question, Tokens, not_finite, questions};
use crate::few_shot::order::{self, Ordering, RANKED};
use crate::few_shot::probe::probes;
use crate::few_shot::{Choice, Pool, choose};
use crate::rng::Rng;
use crate::shots::{Policy, Shots};
use crate::task::Task;
use crate::template::Template;
use crate::verbalizer::{Answer, Calibration, Scoring};

/// What a study tries.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Wordings by name.
    pub wordings: Vec<(String, Template)>,
    /// Numbers of demonstrations.
    pub shots: Vec<usize>,
    /// Seeds of the choice.
    pub seeds: Range<u64>,
    /// How demonstrations are chosen.
    pub choice: Choice,
    /// Which orders of them are tried.
    pub ordering: Ordering,
    /// How many orders, where not all of them are tried.
    pub n_orders: usize,
    /// How answers are corrected.
    pub calibrations: Vec<Calibration>,
    /// What is done when demonstrations do not fit.
    pub policy: Policy,
}

/// The data of a study.
#[derive(Clone, Copy)]
pub struct Material<'a> {
    /// The rows that are asked, all with a label.
    pub data: &'a Dataset<Example>,
    /// The examples that can be shown, all with a label.
    pub train: &'a Dataset<Example>,
    /// Their texts, and those of the rows.
    pub pool: &'a Pool<'a>,
}

/// What a study needs of a model besides asking it.
pub trait Encoders {
    /// The encoder of a task.
    ///
    /// # Errors
    /// A task that the model cannot read.
    fn encoder<'t>(&'t self, task: &'t Task) -> Result<TaskEncoder<'t>>;
}

/// One choice of demonstrations, to be asked in several orders.
struct Sitting<'a> {
    wording: &'a str,
    encoder: &'a TaskEncoder<'a>,
    /// Every example of the training data as it is shown.
    shown: &'a [Demonstration],
    k: usize,
    seed: u64,
}

impl Plan {
    /// Rows that are asked in all, of `n` rows: what progress counts.
    pub fn n_questions(&self, n: usize) -> usize {
        let of_shots = |&k: &usize| self.seeds_of(k).count() * self.n_orders_of(k);
        self.wordings.len() * self.shots.iter().map(of_shots).sum::<usize>() * n
    }

    /// That orders can be tried as asked.
    ///
    /// # Errors
    /// Says which option to change.
    pub fn check(&self) -> Result<()> {
        let most = self.shots.iter().copied().max().unwrap_or(0);
        if self.ordering == Ordering::All && most > order::MOST_PERMUTED {
            return Err(Error::Input(format!(
                "--order all: {most} demonstrations have too many orders; use at most {} shots, or --order random --orders N",
                order::MOST_PERMUTED
            )));
        }
        if self.ordering == Ordering::NearestLast && !self.choice.is_by_text() {
            return Err(Error::Input(format!(
                "--order nearest-last needs --choice nearest, bm25 or mmr; {} knows no nearest",
                self.choice.name()
            )));
        }
        Ok(())
    }

    /// A single seed where nothing is drawn.
    fn seeds_of(&self, k: usize) -> Range<u64> {
        let choice_is_drawn = matches!(self.choice, Choice::Random | Choice::Balanced);
        let order_is_drawn =
            self.ordering.is_ranked() || (self.ordering == Ordering::Random && self.n_orders > 1);
        if k > 0 && (choice_is_drawn || order_is_drawn) {
            self.seeds.clone()
        } else {
            self.seeds.start..self.seeds.start + 1
        }
    }

    fn n_orders_of(&self, k: usize) -> usize {
        let all = order::n_permutations(k);
        match self.ordering {
            _ if k == 0 => 1,
            Ordering::All => all,
            Ordering::NearestLast => 1,
            Ordering::Random => self.n_orders.min(all),
            Ordering::GlobalE | Ordering::LocalE => self.n_orders.min(all).min(RANKED),
        }
    }

    /// Everything the plan says; `progress` is told how many questions are done.
    ///
    /// # Errors
    /// A wording the model cannot read, too few demonstrations, rows that do not fit, or NaN from the model.
    pub fn conduct(
        &self,
        task: &Task,
        material: Material,
        (encoders, examinee): (&dyn Encoders, Examinee),
        mut progress: impl FnMut(usize),
    ) -> Result<(Vec<Run>, Tokens)> {
        self.check()?;
        let shown = shown(task, material.train)?;
        let (mut runs, mut tokens, mut done) = (Vec::new(), Tokens::default(), 0);
        for (wording, template) in &self.wordings {
            let task = Task { template: template.clone(), ..task.clone() };
            let encoder = encoders.encoder(&task)?;
            for &k in &self.shots {
                for seed in self.seeds_of(k) {
                    let sitting = Sitting { wording, encoder: &encoder, shown: &shown, k, seed };
                    let mut step = |n: usize| progress(done + n);
                    let (of_sitting, n) = self.sit(&sitting, material, examinee, &mut step)?;
                    done += self.n_orders_of(k) * material.data.rows.len();
                    tokens += n;
                    runs.extend(of_sitting);
                }
            }
        }
        Ok((runs, tokens))
    }

    /// One choice of demonstrations in all its orders.
    fn sit(
        &self,
        sitting: &Sitting,
        material: Material,
        examinee: Examinee,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Vec<Run>, Tokens)> {
        let Sitting { encoder, shown, k, seed, .. } = *sitting;
        let chosen = choose(material.pool, self.choice, k, seed)?;
        let orders = self.orders(sitting, &chosen, examinee)?;
        let calibrated = self.calibrations.iter().any(|c| *c != Calibration::None);
        let (mut asked, mut shots): (Vec<Question>, Vec<Shots>) = (Vec::new(), Vec::new());
        for permutation in &orders {
            let permuted = permuted(&chosen, permutation);
            let fitting = Shots::fit(encoder, material.data, (shown, permuted), self.policy)?;
            let demonstrations = fitting.demonstrations(shown);
            asked.extend(questions(encoder, material.data, calibrated, |i| &demonstrations[i])?);
            shots.push(fitting);
        }
        let (scores, tokens) = labels::scores(&asked, examinee, progress);
        if scores.iter().flat_map(|s| &s.log_probs).any(|lp| lp.is_nan()) {
            return Err(not_finite(examinee.model));
        }
        let n = material.data.rows.len();
        let mut runs = Vec::new();
        let parts = asked.chunks(n).zip(scores.chunks(n)).zip(orders.iter().zip(&shots));
        for (i, ((asked, scores), (permutation, shots))) in parts.enumerate() {
            for &calibration in &self.calibrations {
                let answers = answers(&encoder.task().scoring, calibration, asked, scores);
                let order = (i, permutation.as_slice());
                runs.push(self.run(sitting, material, (order, shots), (calibration, &answers)));
            }
        }
        Ok((runs, tokens))
    }

    /// The orders of the demonstrations that are tried.
    fn orders(
        &self,
        sitting: &Sitting,
        chosen: &[Arc<[usize]>],
        examinee: Examinee,
    ) -> Result<Vec<Vec<usize>>> {
        let Sitting { encoder, shown, k, seed, .. } = *sitting;
        let mut rng = Rng::new(seed).fork(RNG_STREAM);
        match self.ordering {
            _ if k == 0 => Ok(vec![Vec::new()]),
            Ordering::All => Ok(order::permutations(k)),
            Ordering::NearestLast => Ok(vec![(0..k).collect()]),
            Ordering::Random => Ok(order::drawn(k, self.n_orders, &mut rng)),
            Ordering::GlobalE | Ordering::LocalE => {
                // orders are ranked once for all texts, by the demonstrations of the first where each has its own
                let orders = order::drawn(k, RANKED, &mut rng);
                let first: &[usize] = chosen.first().map_or(&[], |c| c);
                let demonstrations: Vec<Vec<Demonstration>> =
                    orders.iter().map(|o| o.iter().map(|&i| shown[first[i]].clone()).collect()).collect();
                let best = self.rank(encoder, examinee, &demonstrations, seed)?;
                Ok(best.into_iter().take(self.n_orders).map(|i| orders[i].clone()).collect())
            }
        }
    }

    /// Indices of the lists of demonstrations, the best order first, by what the model answers to texts of its own.
    fn rank(
        &self,
        encoder: &TaskEncoder,
        examinee: Examinee,
        demonstrations: &[Vec<Demonstration>],
        seed: u64,
    ) -> Result<Vec<usize>> {
        let texts = probes(encoder, examinee, demonstrations, seed)?;
        let name = encoder.task().template.fields().next().unwrap_or_default();
        let example = |text: &String| Example {
            line: 0,
            fields: [(name.to_string(), text.clone())].into(),
            label: None,
            answer: None,
        };
        let mut rows: Vec<Example> = texts.iter().map(example).collect();
        for shown in demonstrations {
            // a text must fit after every order, or the orders would be compared on different texts
            rows.retain(|row| encoder.fits(row, shown).unwrap_or(false));
        }
        if rows.is_empty() {
            let (k, name) = (demonstrations.first().map_or(0, Vec::len), self.ordering.name());
            return Err(Error::Input(format!(
                "--order {name}: no text that the model writes fits its context window after {k} demonstrations; use fewer \
                 shots or --order random"
            )));
        }
        let data = Dataset { path: "texts of the model".into(), rows };
        let mut probabilities = Vec::new();
        for shown in demonstrations {
            let asked = questions(encoder, &data, false, |_| shown)?;
            let (scores, _) = labels::scores(&asked, examinee, |_| ());
            let answers = answers(&encoder.task().scoring, Calibration::None, &asked, &scores);
            probabilities.push(answers.iter().map(Answer::probabilities).collect());
        }
        Ok(order::ranked(self.ordering, &probabilities))
    }

    fn run(
        &self,
        sitting: &Sitting,
        material: Material,
        ((order, permutation), shots): ((usize, &[usize]), &Shots),
        (calibration, answers): (Calibration, &[Answer]),
    ) -> Run {
        let gold: Vec<usize> = material.data.rows.iter().filter_map(|e| e.label).collect();
        let scored = scored(&gold, answers);
        let labels =
            |chosen: &Arc<[usize]>| chosen.iter().map(|&i| material.pool.labels[i]).collect::<Vec<_>>();
        let shared = shots.chosen.iter().all(|chosen| *chosen == shots.chosen[0]);
        Run {
            template: sitting.wording.to_string(),
            shots: shots.fewest,
            requested_shots: shots.requested,
            seed: sitting.seed,
            order,
            permutation: permutation.to_vec(),
            choice: self.choice.name().into(),
            ordering: self.ordering.name().into(),
            calibration: calibration.name().into(),
            demonstration_labels: match shared {
                true => DemonstrationLabels::Shared(labels(&shots.chosen[0])),
                false => DemonstrationLabels::PerRow(shots.chosen.iter().map(labels).collect()),
            },
            predicted: scored.predicted,
            probability: scored.probability,
            metrics: scored.metrics,
        }
    }
}

/// Keeps the orders drawn here apart from the demonstrations.
const RNG_STREAM: u64 = 0x0d3;

/// Every example as it is shown.
///
/// # Errors
/// [`Error::Data`] for one without label.
pub fn shown(task: &Task, train: &Dataset<Example>) -> Result<Vec<Demonstration>> {
    let one = |e: &Example| {
        Demonstration::of(e, task).ok_or_else(|| train.error(e.line, "it has no answer".into()))
    };
    train.rows.iter().map(one).collect()
}

/// What was chosen, in another order. Choices that were shared still are.
pub fn permuted(chosen: &[Arc<[usize]>], permutation: &[usize]) -> Vec<Arc<[usize]>> {
    let mut all: Vec<Arc<[usize]>> = Vec::with_capacity(chosen.len());
    for (i, one) in chosen.iter().enumerate() {
        let same = i > 0 && Arc::ptr_eq(one, &chosen[i - 1]);
        all.push(if same { all[i - 1].clone() } else { permutation.iter().map(|&j| one[j]).collect() });
    }
    all
}

fn answers(
    scoring: &Scoring,
    calibration: Calibration,
    asked: &[Question],
    scores: &[Scores],
) -> Vec<Answer> {
    let scoring = Scoring { calibration, ..scoring.clone() };
    asked.iter().zip(scores).map(|(question, scores)| question.answer(&scoring, scores)).collect()
}
