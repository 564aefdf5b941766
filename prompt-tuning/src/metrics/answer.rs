//! Short answers: the same, or sharing words with the reference.
//!
//! Texts are normalised as SQuAD's script does: lower case, no ASCII punctuation, no English article, single spaces.
//! Source: Rajpurkar et al. 2016.

use super::{f_score, matches, mean, n_grams};

/// Share of texts that are their reference.
pub fn exact_match(pairs: &[(&str, &str)]) -> f64 {
    mean(pairs, |text, reference| f64::from(normalised(text) == normalised(reference)))
}

/// Mean F1 of the words that a text shares with its reference; two empty ones agree.
pub fn token_f1(pairs: &[(&str, &str)]) -> f64 {
    mean(pairs, |text, reference| {
        let [text, reference] = [text, reference].map(normalised);
        if text.is_empty() || reference.is_empty() {
            return f64::from(text == reference);
        }
        let common = matches(&n_grams(&text, 1), &n_grams(&reference, 1)) as f64;
        f_score(common / text.len() as f64, common / reference.len() as f64, 1.0)
    })
}

fn normalised(text: &str) -> Vec<String> {
    let text: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    text.split_whitespace().filter(|word| !["a", "an", "the"].contains(word)).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_by_hand() {
        let pairs = [("The  Eiffel tower!", "Eiffel Tower"), ("in Paris, France", "Paris"), ("", "x")];
        assert_eq!(exact_match(&pairs), 1.0 / 3.0);
        // the second shares one of three words with one of one
        assert!((token_f1(&pairs) - (1.0 + 0.5) / 3.0).abs() < 1e-12);
        assert_eq!(exact_match(&[]), 0.0);
        assert_eq!(token_f1(&[("the", "")]), 1.0);
    }
}
