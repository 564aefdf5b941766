//! ROUGE-L, as `rouge_score` computes it: F1 of the longest common subsequence of words, the mean over texts. Words are
//! runs of `a-z` and `0-9` in lower case, not stemmed. Source: Lin 2004.

use super::{f_score, mean};

/// From 0 to 1.
pub fn rouge_l(pairs: &[(&str, &str)]) -> f64 {
    mean(pairs, |text, reference| {
        let [text, reference] = [text, reference].map(words);
        if text.is_empty() || reference.is_empty() {
            return 0.0;
        }
        let common = longest_common(&text, &reference) as f64;
        f_score(common / text.len() as f64, common / reference.len() as f64, 1.0)
    })
}

fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    words.filter(|word| !word.is_empty()).map(String::from).collect()
}

/// Length of the longest sequence that is in both, in order but not always side by side.
fn longest_common(a: &[String], b: &[String]) -> usize {
    let mut above = vec![0; b.len() + 1];
    for word in a {
        let mut row = vec![0; b.len() + 1];
        for (j, other) in b.iter().enumerate() {
            row[j + 1] = if word == other { above[j] + 1 } else { row[j].max(above[j + 1]) };
        }
        above = row;
    }
    above[b.len()]
}
