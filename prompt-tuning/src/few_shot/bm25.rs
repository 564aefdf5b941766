//! BM25: how well texts match a query by the words they share.
//!
//! ```text
//! score(q, d) = Σ idf(w) · tf(w, d) (k1 + 1) / (tf(w, d) + k1 (1 - b + b |d| / mean |d|))      over the words w of q
//! idf(w)      = ln(1 + (N - n(w) + 1/2) / (n(w) + 1/2))         n(w): texts with the word
//! ```
//!
//! Robertson & Zaragoza 2009, with k1 = 1.2 and b = 0.75. The `1 +` (as in Lucene) keeps words that most texts have from
//! counting against a text.

use std::collections::HashMap;

const K1: f64 = 1.2;
const B: f64 = 0.75;

/// Texts by their words.
#[derive(Debug)]
pub struct Bm25 {
    /// Text and count of each place where a word occurs.
    places: HashMap<String, Vec<(u32, u32)>>,
    lengths: Vec<f64>,
    mean_length: f64,
}

impl Bm25 {
    /// An index of `texts`.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Bm25 {
        let mut places: HashMap<String, Vec<(u32, u32)>> = HashMap::new();
        let mut lengths = Vec::new();
        for (i, text) in texts.into_iter().enumerate() {
            let mut n = 0;
            for word in words(text) {
                n += 1;
                let of_word = places.entry(word).or_default();
                match of_word.last_mut() {
                    Some((last, count)) if *last == i as u32 => *count += 1,
                    _ => of_word.push((i as u32, 1)),
                }
            }
            lengths.push(f64::from(n));
        }
        let mean_length = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
        Bm25 { places, lengths, mean_length }
    }

    /// The score of every text; a word that the query has twice counts twice.
    pub fn scores(&self, query: &str) -> Vec<f64> {
        let mut scores = vec![0.0; self.lengths.len()];
        for word in words(query) {
            let Some(places) = self.places.get(&word) else { continue };
            let (n, all) = (places.len() as f64, self.lengths.len() as f64);
            let idf = (1.0 + (all - n + 0.5) / (n + 0.5)).ln();
            for &(i, count) in places {
                let (i, tf) = (i as usize, f64::from(count));
                let norm = K1 * (1.0 - B + B * self.lengths[i] / self.mean_length);
                scores[i] += idf * tf * (K1 + 1.0) / (tf + norm);
            }
        }
        scores
    }
}

/// Runs of letters and digits in lower case; each character of a script without spaces is a word.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let is_alone = |c: char| ('\u{2e80}'..='\u{9fff}').contains(&c) || ('\u{f900}'..='\u{faff}').contains(&c);
    let runs = text.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty());
    runs.flat_map(move |run| {
        let mut words: Vec<String> = Vec::new();
        let mut open = false;
        for c in run.chars() {
            let alone = is_alone(c);
            match words.last_mut() {
                Some(word) if open && !alone => word.extend(c.to_lowercase()),
                _ => words.push(c.to_lowercase().collect()),
            }
            open = !alone;
        }
        words
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_of_texts_with_and_without_spaces() {
        let of = |text| words(text).collect::<Vec<_>>();
        assert_eq!(of("It's GREAT, no. 1"), ["it", "s", "great", "no", "1"]);
        assert_eq!(of("电影iPhone好"), ["电", "影", "iphone", "好"]);
        assert!(of(" ,.").is_empty());
    }

    #[test]
    fn a_score_by_hand() {
        let index = Bm25::new(["a b b", "a", "c c"]);
        let scores = index.scores("B x");
        // one of three texts has it: idf = ln(1 + 2.5 / 1.5); tf 2, length 3 of a mean of 2
        let expected = (1.0f64 + 2.5 / 1.5).ln() * 2.0 * 2.2 / (2.0 + 1.2 * (0.25 + 0.75 * 1.5));
        assert!((scores[0] - expected).abs() < 1e-12);
        assert_eq!(scores[1..], [0.0, 0.0]);
    }

    /// The formula, text by text.
    fn plain(texts: &[String], query: &str) -> Vec<f64> {
        let split = |t: &str| words(t).collect::<Vec<_>>();
        let all: Vec<Vec<String>> = texts.iter().map(|t| split(t)).collect();
        let mean = all.iter().map(Vec::len).sum::<usize>() as f64 / all.len() as f64;
        let score = |text: &Vec<String>| {
            let of_word = |word: &String| {
                let n = all.iter().filter(|t| t.contains(word)).count() as f64;
                let tf = text.iter().filter(|w| *w == word).count() as f64;
                let idf = (1.0 + (all.len() as f64 - n + 0.5) / (n + 0.5)).ln();
                if tf == 0.0 {
                    0.0
                } else {
                    idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * text.len() as f64 / mean))
                }
            };
            split(query).iter().map(of_word).sum()
        };
        all.iter().map(score).collect()
    }

    proptest! {
        #[test]
        fn the_index_is_the_formula(texts in prop::collection::vec("[a-d ]{0,12}", 1..8), query in "[a-e ]{0,8}") {
            let index = Bm25::new(texts.iter().map(String::as_str));
            for (a, b) in index.scores(&query).into_iter().zip(plain(&texts, &query)) {
                prop_assert!((a - b).abs() < 1e-9, "{} {}", a, b);
            }
        }
    }
}
