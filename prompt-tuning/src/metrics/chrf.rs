//! chrF2 over a corpus, as sacrebleu computes it: F-score of character n-grams up to 6 with recall twice as important,
//! spaces left out. Source: Popović 2015.

use super::{f_score, matches, n_grams};

const ORDER: usize = 6;

/// From 0 to 1.
pub fn chrf(pairs: &[(&str, &str)]) -> f64 {
    let mut counts = [[0usize; 3]; ORDER];
    for (text, reference) in pairs {
        let [text, reference] =
            [text, reference].map(|x| x.chars().filter(|c| !c.is_whitespace()).collect::<Vec<char>>());
        for (n, [of_text, of_reference, common]) in (1..).zip(&mut counts) {
            let grams = [&text, &reference].map(|x| n_grams(x, n));
            let [a, b] = grams.each_ref().map(|grams| grams.values().sum::<usize>());
            *common += matches(&grams[0], &grams[1]);
            // a text counts only where its reference is long enough to have such n-grams
            *of_text += if b > 0 { a } else { 0 };
            *of_reference += b;
        }
    }
    let orders: Vec<[f64; 2]> = counts
        .iter()
        .filter(|[a, b, _]| *a > 0 && *b > 0)
        .map(|&[a, b, common]| [common as f64 / a as f64, common as f64 / b as f64])
        .collect();
    let mean = |i: usize| orders.iter().map(|order| order[i]).sum::<f64>() / orders.len().max(1) as f64;
    f_score(mean(0), mean(1), 2.0)
}
