//! The training rows of a cell.

use crate::rng::Rng;

/// Keeps the numbers drawn here apart from others of the seed.
const RNG_STREAM: u64 = 0x5b5e7;

/// `n` of the rows with these labels, as equally many of each label as there are. Of one seed, fewer rows are part of more:
/// a learning curve then differs by the added rows alone.
pub fn draw(labels: &[usize], n_labels: usize, n: usize, seed: u64) -> Vec<usize> {
    let mut rng = Rng::new(seed).fork(RNG_STREAM);
    let mut by_label: Vec<Vec<usize>> = vec![Vec::new(); n_labels];
    labels.iter().enumerate().for_each(|(row, &label)| by_label[label].push(row));
    by_label.iter_mut().for_each(|rows| rng.shuffle(rows));
    let longest = by_label.iter().map(Vec::len).max().unwrap_or(0);
    let rounds = (0..longest).flat_map(|round| by_label.iter().filter_map(move |rows| rows.get(round)));
    rounds.copied().take(n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_nested_and_of_the_seed() {
        let labels: Vec<usize> = (0..100).map(|i| usize::from(i % 5 == 0)).collect();
        let ten = draw(&labels, 2, 10, 3);
        assert_eq!(ten.iter().filter(|&&i| labels[i] == 1).count(), 5);
        assert_eq!(draw(&labels, 2, 60, 3)[..10], ten);
        assert_ne!(draw(&labels, 2, 10, 4), ten);
        let mut all = draw(&labels, 2, 1000, 3);
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }
}
