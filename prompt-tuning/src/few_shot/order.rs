//! In which order demonstrations are shown.
//!
//! Models are sensitive to it. Lu et al. 2022 ("Fantastically Ordered Prompts") rank orders without labelled data: the model
//! writes a few texts of its own behind each order (`probe`), and is asked about all of them after each order. An order that
//! makes it say one label to everything is a bad one:
//!
//! ```text
//! GlobalE   entropy of the share of each label among the predictions
//! LocalE    mean over the texts of the entropy of the label's probabilities
//! ```

use serde::Serialize;

use crate::rng::Rng;

/// Most demonstrations whose orders are all tried: 5! = 120.
pub const MOST_PERMUTED: usize = 5;
/// Orders that are ranked (Lu et al. use the 24 of 4 demonstrations).
pub const RANKED: usize = 24;

/// Which orders are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Ordering {
    /// As drawn, and then drawn anew.
    Random,
    /// The most similar next to the text.
    NearestLast,
    /// All of them.
    All,
    /// Those after which the predictions have the largest entropy.
    GlobalE,
    /// Those after which each prediction has the largest entropy.
    LocalE,
}

impl Ordering {
    /// As on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Ordering::Random => "random",
            Ordering::NearestLast => "nearest-last",
            Ordering::All => "all",
            Ordering::GlobalE => "global-e",
            Ordering::LocalE => "local-e",
        }
    }

    /// Whether the model is asked which orders are good.
    pub fn is_ranked(self) -> bool {
        matches!(self, Ordering::GlobalE | Ordering::LocalE)
    }
}

/// How many orders `k` things have: `k!`, or more than can be counted.
pub fn n_permutations(k: usize) -> usize {
    (1..=k).fold(1, usize::saturating_mul)
}

/// All orders of `k` things, in lexicographic order.
pub fn permutations(k: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..k).collect();
    let mut all = vec![order.clone()];
    while let Some(i) = (1..k).rev().find(|&i| order[i - 1] < order[i]) {
        let j = (i..k).rev().find(|&j| order[j] > order[i - 1]).unwrap_or(i);
        order.swap(i - 1, j);
        order[i..].reverse();
        all.push(order.clone());
    }
    all
}

/// `n` different orders of `k` things, the first as they are, the others drawn; all of them where there are no more.
pub fn drawn(k: usize, n: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
    if k <= MOST_PERMUTED && n_permutations(k) <= n {
        return permutations(k);
    }
    let n = n.min(n_permutations(k));
    let mut orders: Vec<Vec<usize>> = vec![(0..k).collect()];
    while orders.len() < n {
        let mut order: Vec<usize> = (0..k).collect();
        rng.shuffle(&mut order);
        if !orders.contains(&order) {
            orders.push(order);
        }
    }
    orders
}

/// Indices of orders, the best first: by the probabilities of the labels for each text after each order,
/// `[orders][texts][labels]`.
pub fn ranked(ordering: Ordering, probabilities: &[Vec<Vec<f64>>]) -> Vec<usize> {
    let score = |texts: &Vec<Vec<f64>>| match ordering {
        Ordering::LocalE => texts.iter().map(|p| entropy(p)).sum::<f64>() / texts.len().max(1) as f64,
        _ => {
            let mut shares = vec![0.0; texts.first().map_or(0, Vec::len)];
            for p in texts {
                let best = (1..p.len()).fold(0, |best, i| if p[i] > p[best] { i } else { best });
                shares[best] += 1.0 / texts.len() as f64;
            }
            entropy(&shares)
        }
    };
    let scores: Vec<f64> = probabilities.iter().map(score).collect();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order
}

/// `-Σ p log p`.
fn entropy(p: &[f64]) -> f64 {
    p.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_in_order() {
        let expected = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        assert_eq!(permutations(3), expected.map(|p| p.to_vec()));
        assert_eq!((permutations(0).len(), permutations(1).len(), permutations(4).len()), (1, 1, 24));
    }

    #[test]
    fn drawn_orders_differ() {
        let mut rng = Rng::new(3);
        let orders = drawn(6, 20, &mut rng);
        assert_eq!((orders.len(), &orders[0]), (20, &(0..6).collect()));
        for (i, order) in orders.iter().enumerate() {
            assert!(!orders[..i].contains(order));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, orders[0]);
        }
        assert_eq!(drawn(2, 20, &mut rng).len(), 2);
        // more than there are: all of them, and an end
        assert_eq!(drawn(6, 1000, &mut rng).len(), 720);
        assert_eq!((n_permutations(0), n_permutations(6), n_permutations(32)), (1, 720, usize::MAX));
        assert_eq!(drawn(3, 1, &mut rng), [[0, 1, 2]]);
    }

    #[test]
    fn entropies_by_hand() {
        // after the first order everything is label 0, though narrowly; after the second one each, surely
        let probabilities =
            [vec![vec![0.51, 0.49], vec![0.51, 0.49]], vec![vec![0.99, 0.01], vec![0.01, 0.99]]];
        assert_eq!(ranked(Ordering::GlobalE, &probabilities), [1, 0]);
        assert_eq!(ranked(Ordering::LocalE, &probabilities), [0, 1]);
        assert!((entropy(&[0.5, 0.5]) - 2.0f64.ln()).abs() < 1e-12 && entropy(&[1.0, 0.0]) == 0.0);
    }
}
