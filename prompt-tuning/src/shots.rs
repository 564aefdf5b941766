//! How many demonstrations fit: what is done when the context window is too small for those that were chosen.

use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;

use crate::data::{Dataset, Example};
use crate::encode::{Demonstration, TaskEncoder};
use crate::error::{Error, Result};

/// What is done when demonstrations, text and answer together are too long for the context window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The text is refused.
    #[default]
    Error,
    /// The text goes without its first demonstrations, which are farthest from it.
    DropFarthest,
    /// Every text has as many as the longest text has room for.
    LargestFit,
}

/// Demonstrations for each example of a data set, in the order in which they are shown: the last stands next to the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shots {
    /// By example: indices into the pool.
    pub chosen: Vec<Arc<[usize]>>,
    /// How many were chosen.
    pub requested: usize,
    /// The fewest that an example has.
    pub fewest: usize,
    /// Examples that have fewer than were chosen.
    pub n_reduced: usize,
}

impl Shots {
    /// As many of `chosen` as fit under `policy`.
    ///
    /// # Errors
    /// [`Error::Data`] for a row that lacks a field. What does not fit under [`Policy::Error`] is told when it is read.
    pub fn fit(
        encoder: &TaskEncoder,
        data: &Dataset<Example>,
        (pool, chosen): (&[Demonstration], Vec<Arc<[usize]>>),
        policy: Policy,
    ) -> Result<Shots> {
        let requested = chosen.iter().map(|c| c.len()).max().unwrap_or(0);
        let chosen = match policy {
            Policy::Error => chosen,
            Policy::DropFarthest | Policy::LargestFit => {
                let counts = counts(encoder, data, (pool, &chosen))?;
                let least = counts.iter().copied().min().unwrap_or(0);
                let keep = |n: usize| if policy == Policy::LargestFit { least } else { n };
                chosen.iter().zip(counts).map(|(c, n)| last(c, keep(n))).collect()
            }
        };
        Ok(Shots {
            requested,
            fewest: chosen.iter().map(|c| c.len()).min().unwrap_or(0),
            n_reduced: chosen.iter().filter(|c| c.len() < requested).count(),
            chosen,
        })
    }

    /// The demonstrations themselves, by example. Examples with the same choice share them.
    pub fn demonstrations(&self, pool: &[Demonstration]) -> Vec<Arc<[Demonstration]>> {
        let mut made: Vec<Arc<[Demonstration]>> = Vec::with_capacity(self.chosen.len());
        for (i, chosen) in self.chosen.iter().enumerate() {
            let same = i > 0 && *chosen == self.chosen[i - 1];
            let new = || chosen.iter().map(|&c| pool[c].clone()).collect();
            made.push(if same { made[i - 1].clone() } else { new() });
        }
        made
    }
}

/// How many of its demonstrations each example has room for.
fn counts(
    encoder: &TaskEncoder,
    data: &Dataset<Example>,
    (pool, chosen): (&[Demonstration], &[Arc<[usize]>]),
) -> Result<Vec<usize>> {
    let count = |example: &Example, chosen: &[usize]| {
        let shown: Vec<Demonstration> = chosen.iter().map(|&c| pool[c].clone()).collect();
        for n in (1..=shown.len()).rev() {
            if encoder.fits(example, &shown[shown.len() - n..])? {
                return Ok(n);
            }
        }
        Ok(0)
    };
    let pairs = data.rows.par_iter().zip(chosen);
    let counts: Vec<Result<usize>> = pairs
        .map(|(example, chosen)| {
            count(example, chosen).map_err(|why: String| Error::Data {
                path: data.path.clone(),
                line: example.line,
                why,
            })
        })
        .collect();
    counts.into_iter().collect()
}

/// The last `n`, the same allocation where that is all of them.
fn last(chosen: &Arc<[usize]>, n: usize) -> Arc<[usize]> {
    if n == chosen.len() { chosen.clone() } else { chosen[chosen.len() - n..].into() }
}
