//! Reading a soft prompt: the rows of the vocabulary table nearest to each virtual token (Lester et al. 2021, §7), and
//! how alike two prompts are.

use rayon::prelude::*;
use tensor::Tensor;

use crate::soft_prompt::SoftPrompt;

/// A vocabulary token near a virtual token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Its id.
    pub id: u32,
    /// Cosine of the angle between the two vectors.
    pub cosine: f32,
    /// Euclidean distance.
    pub distance: f32,
}

/// What "near" means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// The largest cosine: direction alone.
    #[default]
    Cosine,
    /// The smallest Euclidean distance: length counts too.
    L2,
}

impl Measure {
    /// The number that this measure goes by.
    pub fn of(self, neighbour: &Neighbour) -> f32 {
        match self {
            Measure::Cosine => neighbour.cosine,
            Measure::L2 => neighbour.distance,
        }
    }
}

/// For each virtual token the `k` tokens of `table` (`[V, C]`) that are nearest, best first.
///
/// The table is widened a row at a time, once for all virtual tokens.
pub fn nearest(prompt: &SoftPrompt, table: &Tensor, k: usize, by: Measure) -> Vec<Vec<Neighbour>> {
    const ROWS: usize = 1024;
    let blocks = table.rows().div_ceil(ROWS);
    let found: Vec<Vec<Vec<Neighbour>>> = (0..blocks)
        .into_par_iter()
        .map(|block| {
            let ids = block * ROWS..table.rows().min((block + 1) * ROWS);
            of_block(prompt, table, ids, (k, by))
        })
        .collect();
    let of_token =
        |i: usize| best(found.iter().flat_map(|block| block[i].iter().copied()).collect(), (k, by));
    (0..prompt.n_tokens).map(of_token).collect()
}

fn of_block(
    prompt: &SoftPrompt,
    table: &Tensor,
    ids: std::ops::Range<usize>,
    wanted: (usize, Measure),
) -> Vec<Vec<Neighbour>> {
    let mut row = vec![0.0; prompt.d_model];
    let mut found = vec![Vec::new(); prompt.n_tokens];
    for id in ids {
        kernels::embedding::row(table.elements(), id, &mut row);
        for (i, found) in found.iter_mut().enumerate() {
            found.push(compare(prompt.row(i), &row, id as u32));
        }
    }
    found.into_iter().map(|list| best(list, wanted)).collect()
}

fn compare(a: &[f32], b: &[f32], id: u32) -> Neighbour {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    let distance = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
    // unused rows of real tables are zero
    let cosine = if norms > 0.0 { dot(a, b) / norms } else { 0.0 };
    Neighbour { id, cosine, distance }
}

/// The `k` nearest; the lower id of equals.
fn best(mut list: Vec<Neighbour>, (k, by): (usize, Measure)) -> Vec<Neighbour> {
    let nearer = |a: &Neighbour, b: &Neighbour| match by {
        Measure::Cosine => b.cosine.total_cmp(&a.cosine),
        Measure::L2 => a.distance.total_cmp(&b.distance),
    };
    list.sort_by(|a, b| nearer(a, b).then(a.id.cmp(&b.id)));
    list.truncate(k);
    list
}

/// How alike two prompts are, whatever the order of their tokens (Vu et al. 2022, "SPoT", §3.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Cosine of the means of their tokens.
    pub of_means: f32,
    /// Mean of the cosines of all pairs of tokens.
    pub of_tokens: f32,
}

/// Compares two prompts of any lengths. Panics when their widths differ.
pub fn similarity(a: &SoftPrompt, b: &SoftPrompt) -> Similarity {
    assert_eq!(a.d_model, b.d_model, "prompts of one width");
    let mean = |prompt: &SoftPrompt| {
        let mut mean = vec![0.0; prompt.d_model];
        for i in 0..prompt.n_tokens {
            mean.iter_mut().zip(prompt.row(i)).for_each(|(sum, x)| *sum += x / prompt.n_tokens as f32);
        }
        mean
    };
    let cosine = |a: &[f32], b: &[f32]| compare(a, b, 0).cosine;
    let pairs = (0..a.n_tokens).flat_map(|i| (0..b.n_tokens).map(move |j| (i, j)));
    let sum: f32 = pairs.map(|(i, j)| cosine(a.row(i), b.row(j))).sum();
    Similarity {
        of_means: cosine(&mean(a), &mean(b)),
        of_tokens: sum / (a.n_tokens * b.n_tokens).max(1) as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_row_a_token_was_made_of() {
        let mut rng = kernels::testing::Rng(3);
        let data = rng.normals(3000 * 8);
        let prompt = SoftPrompt::new(2, 8, [&data[2999 * 8..], &data[17 * 8..18 * 8]].concat());
        let table = Tensor::from_vec(&[3000, 8], data);
        let found = nearest(&prompt, &table, 3, Measure::Cosine);
        assert_eq!((found[0][0].id, found[1][0].id), (2999, 17));
        assert!((found[0][0].cosine - 1.0).abs() < 1e-6 && found[0][0].distance == 0.0);
        assert!(found[0][1].cosine < found[0][0].cosine && found[0].len() == 3);
    }

    #[test]
    fn length_counts_by_distance_alone() {
        // a long vector in the same direction, a short one beside it
        let table = Tensor::from_vec(&[2, 2], vec![10.0, 0.0, 1.0, 0.5]);
        let prompt = SoftPrompt::new(1, 2, vec![1.0, 0.0]);
        let first = |by| nearest(&prompt, &table, 1, by)[0][0].id;
        assert_eq!((first(Measure::Cosine), first(Measure::L2)), (0, 1));
    }

    #[test]
    fn similarity_by_hand() {
        let a = SoftPrompt::new(2, 2, vec![1.0, 0.0, 0.0, 2.0]);
        let b = SoftPrompt::new(1, 2, vec![3.0, 0.0]);
        // tokens: cosines 1 and 0; means: (0.5, 1) and (3, 0)
        let s = similarity(&a, &b);
        assert!((s.of_tokens - 0.5).abs() < 1e-6 && (s.of_means - 0.5 / 1.25f32.sqrt()).abs() < 1e-6);
        assert!((similarity(&b, &b).of_tokens - 1.0).abs() < 1e-6);
    }
}
