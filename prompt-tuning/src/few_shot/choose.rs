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
            let own = |query: &String| nearest_last(&index.scores(query), k, &usable);
            pool.queries.par_iter().map(own).collect()
        }
        Choice::Nearest | Choice::Mmr => {
            let (of_pool, of_queries) = pool.embeddings.expect("the caller embeds what this choice needs");
            let own = |i: usize| {
                let query = of_queries.row(i);
                let near: Vec<f64> = usable.iter().map(|&j| dot(query, of_pool.row(j))).collect();
                match choice {
                    Choice::Nearest => nearest_last(&near, k, &usable),
                    _ => marginal(&near, k, &usable, of_pool),
                }
            };
            (0..pool.queries.len()).into_par_iter().map(own).collect()
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

/// Equally many of each label; which labels get one more is drawn, and so is the order.
fn balanced(pool: &Pool, usable: &[usize], k: usize, rng: &mut Rng) -> Result<Vec<usize>> {
    let n_labels = pool.label_names.len();
    let mut labels: Vec<usize> = (0..n_labels).collect();
    rng.shuffle(&mut labels);
    let mut chosen = Vec::with_capacity(k);
    for (i, &label) in labels.iter().enumerate() {
        let wanted = k / n_labels + usize::from(i < k % n_labels);
        let of_label: Vec<usize> = usable.iter().copied().filter(|&j| pool.labels[j] == label).collect();
        if of_label.len() < wanted {
            return Err(Error::Input(format!(
                "{wanted} demonstrations of label `{}` are asked for, but the training data has {}; use fewer shots or \
                 --choice random",
                pool.label_names[label],
                of_label.len()
            )));
        }
        chosen.extend(rng.sample(of_label.len(), wanted).into_iter().map(|j| of_label[j]));
    }
    rng.shuffle(&mut chosen);
    Ok(chosen)
}

/// The `k` with the largest score, the largest last; of equals the first of the pool is the nearer one.
fn nearest_last(scores: &[f64], k: usize, usable: &[usize]) -> Arc<[usize]> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let by_score = |&a: &usize, &b: &usize| scores[b].total_cmp(&scores[a]).then(a.cmp(&b));
    if k < order.len() {
        order.select_nth_unstable_by(k, by_score);
        order.truncate(k);
    }
    order.sort_unstable_by(by_score);
    order.into_iter().rev().map(|i| usable[i]).collect()
}

/// The `k` that are picked one after the other by relevance less likeness to those picked before; the first of them last.
fn marginal(near: &[f64], k: usize, usable: &[usize], embeddings: &Embeddings) -> Arc<[usize]> {
    let mut likeness = vec![0.0f64; near.len()];
    let mut picked: Vec<usize> = Vec::with_capacity(k);
    while picked.len() < k {
        let gain = |i: usize| near[i] - likeness[i];
        let open = (0..near.len()).filter(|i| !picked.contains(i));
        let best = open.reduce(|a, b| if gain(b) > gain(a) { b } else { a });
        let Some(best) = best else { break };
        let row = embeddings.row(usable[best]);
        for (i, likeness) in likeness.iter_mut().enumerate() {
            let alike = dot(row, embeddings.row(usable[i]));
            *likeness = if picked.is_empty() { alike } else { likeness.max(alike) };
        }
        picked.push(best);
    }
    picked.into_iter().rev().map(|i| usable[i]).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    // lanes of their own, so that the compiler can use vectors
    let mut sums = [0.0f32; 16];
    let (a, rest_a) = a.as_chunks::<16>();
    let (b, rest_b) = b.as_chunks::<16>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..16 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    f64::from(sums.iter().sum::<f32>() + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    /// Unit vectors of three numbers.
    fn embeddings(rows: &[[f32; 3]]) -> Embeddings {
        Embeddings::new(3, rows.concat())
    }

    proptest! {
        #[test]
        fn nearest_and_mmr_are_what_brute_force_finds(
            rows in prop::collection::vec(prop::array::uniform3(-1.0f32..1.0), 4..12),
            query in prop::array::uniform3(-1.0f32..1.0),
        ) {
            let texts: Vec<String> = (0..rows.len()).map(|i| i.to_string()).collect();
            let (labels, names, queries) = (vec![0; rows.len()], strings(&["x"]), strings(&["q"]));
            let (of_pool, of_query) = (embeddings(&rows), embeddings(&[query]));
            let pool = Pool { embeddings: Some((&of_pool, &of_query)), ..pool(&texts, &labels, &names, &queries) };
            let near = |i: usize| dot(of_query.row(0), of_pool.row(i));
            let mut order: Vec<usize> = (0..rows.len()).collect();
            order.sort_by(|&a, &b| near(b).total_cmp(&near(a)).then(a.cmp(&b)));
            let expected: Vec<usize> = order[..3].iter().rev().copied().collect();
            prop_assert_eq!(choose(&pool, Choice::Nearest, 3, 0).unwrap()[0].to_vec(), expected);

            let mut picked: Vec<usize> = Vec::new();
            while picked.len() < 3 {
                let gain = |i: usize| {
                    let alike = picked.iter().map(|&j| dot(of_pool.row(j), of_pool.row(i))).reduce(f64::max);
                    near(i) - alike.unwrap_or(0.0)
                };
                let open = (0..rows.len()).filter(|i| !picked.contains(i));
                let best = open.reduce(|a, b| if gain(b) > gain(a) { b } else { a }).unwrap();
                picked.push(best);
            }
            picked.reverse();
            prop_assert_eq!(choose(&pool, Choice::Mmr, 3, 0).unwrap()[0].to_vec(), picked);
        }
    }
}
