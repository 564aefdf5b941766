//! Which examples are shown.
//!
//! | choice | |
//! |---|---|
//! | `first` | the first of the file, in its order, the same for all texts |
//! | `random` | drawn without replacement, the same for all texts |
//! | `balanced` | as many of each label as `k` allows, drawn within the label, the same for all texts |
//! | `nearest` | for each text those with the largest cosine of the model's own embeddings (Liu et al. 2022) |
//! | `bm25` | for each text those that share its words |
//! | `mmr` | near the text and unlike each other: maximal marginal relevance (Carbonell & Goldstein 1998), `1/2 cos(text, d) - 1/2 max cos(chosen, d)` |
//!
//! An example whose text is one of the texts that are asked is never shown, and no text is shown twice. What is chosen for a
//! text stands nearest last.

use std::collections::HashSet;
use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;

use super::bm25::Bm25;
use super::embed::Embeddings;
use super::similar;
use crate::error::{Error, Result};
use crate::rng::Rng;

/// How demonstrations are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The first of the file, the same for all texts.
    First,
    /// Drawn, the same for all texts.
    Random,
    /// Drawn, equally many of each label, the same for all texts.
    #[default]
    Balanced,
    /// Those whose embeddings are nearest to the text's.
    Nearest,
    /// Those that share words with the text.
    Bm25,
    /// Near the text and unlike each other.
    Mmr,
}

impl Choice {
    /// As on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Choice::First => "first",
            Choice::Random => "random",
            Choice::Balanced => "balanced",
            Choice::Nearest => "nearest",
            Choice::Bm25 => "bm25",
            Choice::Mmr => "mmr",
        }
    }

    /// Whether each text has its own.
    pub fn is_by_text(self) -> bool {
        matches!(self, Choice::Nearest | Choice::Bm25 | Choice::Mmr)
    }

    /// Whether embeddings are needed.
    pub fn needs_embeddings(self) -> bool {
        matches!(self, Choice::Nearest | Choice::Mmr)
    }
}

/// Examples that can be shown, and the texts that are asked.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    /// Text of each example of the pool.
    pub texts: &'a [String],
    /// Its label; all 0 where answers are texts.
    pub labels: &'a [usize],
    /// The names of the labels.
    pub label_names: &'a [String],
    /// The texts that are asked.
    pub queries: &'a [String],
    /// Embeddings of the pool and of the queries, for the choices that need them.
    pub embeddings: Option<(&'a Embeddings, &'a Embeddings)>,
}

/// For each query `k` indices into the pool. Queries with the same choice share it.
///
/// # Errors
/// A pool that has too few examples, or none of a label.
pub fn choose(pool: &Pool, choice: Choice, k: usize, seed: u64) -> Result<Vec<Arc<[usize]>>> {
    let usable = pool.usable();
    if usable.len() < k {
        return Err(Error::Input(format!(
            "{k} demonstrations are asked for, but the training data has {} different texts that are not among those asked",
            usable.len()
        )));
    }
    let mut rng = Rng::new(seed).fork(RNG_STREAM);
    let same = |chosen: Vec<usize>| vec![Arc::from(chosen); pool.queries.len()];
    Ok(match choice {
        _ if k == 0 => same(Vec::new()),
        Choice::First => same(usable[..k].to_vec()),
        Choice::Random => {
            let drawn = rng.sample(usable.len(), k);
            same(drawn.into_iter().map(|i| usable[i]).collect())
        }
        Choice::Balanced => same(balanced(pool, &usable, k, &mut rng)?),
        Choice::Bm25 => {
            let index = Bm25::new(usable.iter().map(|&i| pool.texts[i].as_str()));
            let own = |query: &String| last_first(&similar::best(&index.scores(query), k), &usable);
            pool.queries.par_iter().map(own).collect()
        }
        Choice::Nearest | Choice::Mmr => {
            let (of_pool, of_queries) = pool.embeddings.expect("the caller embeds what this choice needs");
            let of_pool = of_pool.rows(&usable);
            let chosen = match choice {
                Choice::Nearest => similar::nearest(&of_pool, of_queries, k),
                _ => similar::marginal(&of_pool, of_queries, k),
            };
            chosen.iter().map(|best| last_first(best, &usable)).collect()
        }
    })
}

/// Keeps the numbers drawn here apart from others of the seed.
const RNG_STREAM: u64 = 0x5407;

impl Pool<'_> {
    /// The first example of each text that is not asked.
    fn usable(&self) -> Vec<usize> {
        let mut seen: HashSet<String> = self.queries.iter().map(|text| folded(text)).collect();
        (0..self.texts.len()).filter(|&i| seen.insert(folded(&self.texts[i]))).collect()
    }
}

/// Without differences that nobody sees.
fn folded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Equally many of each label; which labels get one more is drawn among those that have it, and so is the order.
fn balanced(pool: &Pool, usable: &[usize], k: usize, rng: &mut Rng) -> Result<Vec<usize>> {
    let n_labels = pool.label_names.len();
    let mut labels: Vec<usize> = (0..n_labels).collect();
    rng.shuffle(&mut labels);
    let (each, mut n_more) = (k / n_labels, k % n_labels);
    let (mut chosen, mut passed_over) = (Vec::with_capacity(k), None);
    for &label in &labels {
        let of_label: Vec<usize> = usable.iter().copied().filter(|&j| pool.labels[j] == label).collect();
        let name = &pool.label_names[label];
        too_few(of_label.len(), each.max(1), name)?;
        let more = usize::from(n_more > 0 && of_label.len() > each);
        if more == 0 {
            passed_over = Some(name);
        }
        n_more -= more;
        chosen.extend(rng.sample(of_label.len(), each + more).into_iter().map(|j| of_label[j]));
    }
    if let Some(name) = passed_over.filter(|_| n_more > 0) {
        too_few(each, each + 1, name)?;
    }
    rng.shuffle(&mut chosen);
    Ok(chosen)
}

fn too_few(there: usize, wanted: usize, label: &str) -> Result<()> {
    match there < wanted {
        true => Err(Error::Input(format!(
            "{wanted} demonstrations of label `{label}` are asked for, but the training data has {there}; use fewer shots or \
             --choice random"
        ))),
        false => Ok(()),
    }
}

/// What is best in the place that is nearest to the text.
fn last_first(best: &[usize], usable: &[usize]) -> Arc<[usize]> {
    best.iter().rev().map(|&i| usable[i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| t.to_string()).collect()
    }

    fn pool<'a>(
        texts: &'a [String],
        labels: &'a [usize],
        names: &'a [String],
        queries: &'a [String],
    ) -> Pool<'a> {
        Pool { texts, labels, label_names: names, queries, embeddings: None }
    }

    #[test]
    fn drawn_once_for_all_and_the_same_for_a_seed() {
        let texts: Vec<String> = (0..40).map(|i| format!("text {i}")).collect();
        let labels: Vec<usize> = (0..40).map(|i| usize::from(i < 10)).collect();
        let (names, queries) = (strings(&["a", "b"]), strings(&["q", "r"]));
        let pool = pool(&texts, &labels, &names, &queries);
        let drawn = |choice, seed| choose(&pool, choice, 5, seed).unwrap();
        for choice in [Choice::Random, Choice::Balanced] {
            let chosen = drawn(choice, 1);
            assert!(Arc::ptr_eq(&chosen[0], &chosen[1]));
            assert_eq!((drawn(choice, 1), chosen[0].len()), (chosen.clone(), 5));
            assert_ne!(drawn(choice, 2), chosen);
        }
        for seed in 0..20 {
            let of_b = drawn(Choice::Balanced, seed)[0].iter().filter(|&&i| labels[i] == 1).count();
            assert!((2..=3).contains(&of_b));
        }
    }

    #[test]
    fn what_is_asked_is_never_shown_and_nothing_twice() {
        let texts = strings(&["a  b", "c", "c ", "d"]);
        let (labels, names, queries) = ([0, 0, 0, 1], strings(&["x", "y"]), strings(&[" a b "]));
        let pool = pool(&texts, &labels, &names, &queries);
        let mut chosen = choose(&pool, Choice::Random, 2, 7).unwrap()[0].to_vec();
        chosen.sort_unstable();
        assert_eq!(chosen, [1, 3]);
        let error = choose(&pool, Choice::Random, 3, 7).unwrap_err().to_string();
        assert!(error.contains("3 demonstrations are asked for, but the training data has 2"), "{error}");
        let other = Pool { labels: &[0, 0, 0, 0], ..pool };
        let error = choose(&other, Choice::Balanced, 2, 7).unwrap_err().to_string();
        assert!(error.contains("of label `y`") && error.contains("has 0"), "{error}");
        assert!(choose(&other, Choice::Balanced, 0, 7).unwrap()[0].is_empty());
    }

    #[test]
    fn one_more_of_a_label_that_has_one_more() {
        let texts: Vec<String> = (0..7).map(|i| format!("text {i}")).collect();
        let (labels, names, queries) = ([0, 1, 1, 1, 1, 2, 2], strings(&["a", "b", "c"]), strings(&["q"]));
        let pool = pool(&texts, &labels, &names, &queries);
        for seed in 0..20 {
            let of = |k: usize| {
                let chosen = choose(&pool, Choice::Balanced, k, seed)?;
                let count = |label| chosen[0].iter().filter(|&&i| labels[i] == label).count();
                Ok::<_, Error>([count(0), count(1), count(2)])
            };
            assert_eq!((of(5).unwrap(), of(3).unwrap()), ([1, 2, 2], [1, 1, 1]));
            assert!([[1, 2, 1], [1, 1, 2]].contains(&of(4).unwrap()));
            let error = of(6).unwrap_err().to_string();
            assert!(error.contains("2 demonstrations of label `a`") && error.contains("has 1"), "{error}");
        }
        let rare = Pool { labels: &[0, 1, 2, 2, 2, 2, 2], ..pool };
        for seed in 0..20 {
            let error = choose(&rare, Choice::Balanced, 5, seed).unwrap_err().to_string();
            assert!(error.starts_with("2 demonstrations") && !error.contains("`c`"), "{error}");
        }
        let missing = Pool { labels: &[1, 1, 1, 1, 1, 2, 2], ..pool };
        let error = choose(&missing, Choice::Balanced, 1, 0).unwrap_err().to_string();
        assert!(error.contains("of label `a`") && error.contains("has 0"), "{error}");
        let pair = Pool { labels: &[0, 1, 0, 1, 0, 1, 0], label_names: &names[..2], ..pool };
        let error = |k| choose(&pair, Choice::Balanced, k, 0).unwrap_err().to_string();
        assert!(choose(&pair, Choice::Balanced, 7, 0).is_ok() && error(8).contains("8 demonstrations"));
    }

    /// By embeddings: places in the pool, not among what may be shown.
    #[test]
    fn the_nearest_comes_last_and_what_is_asked_is_passed_over() {
        let texts = strings(&["q", "far", "near", "near"]);
        let of_pool = Embeddings::new(2, vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.1, 1.0, 0.1]);
        let of_query = Embeddings::new(2, vec![1.0, 0.0]);
        let (labels, names, queries) = ([0; 4], strings(&["x"]), strings(&["q"]));
        let pool =
            Pool { embeddings: Some((&of_pool, &of_query)), ..pool(&texts, &labels, &names, &queries) };
        for choice in [Choice::Nearest, Choice::Mmr] {
            assert_eq!(choose(&pool, choice, 2, 0).unwrap()[0].to_vec(), [1, 2]);
        }
    }

    #[test]
    fn the_first_keep_their_order() {
        let texts = strings(&["b", "a", "b", "c"]);
        let (labels, names, queries) = ([0; 4], strings(&["x"]), strings(&["a"]));
        let chosen = choose(&pool(&texts, &labels, &names, &queries), Choice::First, 2, 5).unwrap();
        assert_eq!(chosen[0].to_vec(), [0, 3]);
    }

    #[test]
    fn words_that_are_shared_come_last() {
        let texts = strings(&["a fine film", "bad plot", "a film", "nothing"]);
        let (labels, names, queries) = ([0; 4], strings(&["x"]), strings(&["fine film", "plot twist"]));
        let chosen = choose(&pool(&texts, &labels, &names, &queries), Choice::Bm25, 2, 0).unwrap();
        assert_eq!((chosen[0].to_vec(), chosen[1][1]), (vec![2, 0], 1));
    }
}
