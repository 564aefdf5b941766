//! BLEU over a corpus, as sacrebleu computes it.
//!
//! ```text
//! BLEU = bp · exp(¼ Σ_{n=1..4} log p_n)        p_n  share of the texts' n-grams that are in their references
//! bp = min(1, e^(1 - reference length / length))
//! ```
//! A `p_n` without any match is smoothed: the k-th of them is `1 / (2^k · n-grams)`. Words are found by the rules of
//! "13a", mteval's. Sources: Papineni et al. 2002; Post 2018.

use super::{matches, n_grams};

const ORDER: usize = 4;

/// From 0 to 1; 0 for texts of fewer than four words in all.
pub fn bleu(pairs: &[(&str, &str)]) -> f64 {
    let (mut found, mut total, mut length, mut reference_length) = ([0usize; ORDER], [0usize; ORDER], 0, 0);
    for (text, reference) in pairs {
        let [text, reference] = [text, reference].map(|x| words(x));
        length += text.len();
        reference_length += reference.len();
        for n in 1..=ORDER {
            found[n - 1] += matches(&n_grams(&text, n), &n_grams(&reference, n));
            total[n - 1] += (text.len() + 1).saturating_sub(n);
        }
    }
    if found == [0; ORDER] || total.contains(&0) {
        return 0.0;
    }
    let mut smoothing = 1.0;
    let mut log_sum = 0.0;
    for (&found, &total) in found.iter().zip(&total) {
        log_sum += match found {
            0 => {
                smoothing *= 2.0;
                (1.0 / (smoothing * total as f64)).ln()
            }
            _ => (found as f64 / total as f64).ln(),
        };
    }
    let brevity = (1.0 - reference_length as f64 / length as f64).min(0.0).exp();
    brevity * (log_sum / ORDER as f64).exp()
}

/// The words of a text by the rules of "13a".
fn words(text: &str) -> Vec<String> {
    let mut text = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        text = text.replace(entity, character);
    }
    let mut spaced: Vec<char> = vec![' '];
    for c in text.chars() {
        let apart = matches!(c, '!'..='&' | '('..='+' | '/' | ':'..='@' | '['..='`' | '{'..='~');
        spaced.extend(if apart { vec![' ', c, ' '] } else { vec![c] });
    }
    spaced.push(' ');
    // a full stop or comma stands apart unless digits are on both sides, a dash after a digit
    let is_point = |c: char| c == '.' || c == ',';
    let spaced = insert(&spaced, |a, b| !a.is_ascii_digit() && is_point(b), [1, 2]);
    let spaced = insert(&spaced, |a, b| is_point(a) && !b.is_ascii_digit(), [0, 1]);
    let spaced = insert(&spaced, |a, b| a.is_ascii_digit() && b == '-', [1, 2]);
    spaced.iter().collect::<String>().split_whitespace().map(String::from).collect()
}

/// Puts spaces into pairs of characters that `is_pair`, before the characters `at`, from left to right; pairs do not
/// overlap, as in a regular expression.
fn insert(text: &[char], is_pair: impl Fn(char, char) -> bool, at: [usize; 2]) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len() + 8);
    let mut i = 0;
    while i < text.len() {
        match text.get(i + 1) {
            Some(&next) if is_pair(text[i], next) => {
                for (k, c) in [text[i], next].into_iter().enumerate() {
                    out.extend(at.contains(&k).then_some(' '));
                    out.push(c);
                }
                out.extend(at.contains(&2).then_some(' '));
                i += 2;
            }
            _ => {
                out.push(text[i]);
                i += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_by_the_rules() {
        assert_eq!(words("It's 1,234.5 (ok)."), ["It's", "1,234.5", "(", "ok", ")", "."]);
        assert_eq!(words("a.b 3-4 x&amp;y"), ["a", ".", "b", "3", "-", "4", "x", "&", "y"]);
    }

    #[test]
    fn bleu_by_hand() {
        // 5 of 6, 3 of 5, 1 of 4, 0 of 3 smoothed to 1/6
        let score = bleu(&[("the cat sat on a mat", "the cat sat on the mat")]);
        let expected = (5.0 / 6.0 * 3.0 / 5.0 * 2.0 / 4.0 * 1.0 / 3.0f64).powf(0.25);
        assert!((score - expected).abs() < 1e-12, "{score} {expected}");
        assert_eq!(bleu(&[("one two", "one two")]), 0.0);
    }
}
