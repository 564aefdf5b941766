//! Reading a soft prompt: the rows of the vocabulary table nearest to each virtual token (Lester et al. 2021, §7).

use rayon::prelude::*;
use tensor::Frozen;

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

/// For each virtual token the `k` tokens of `table` (`[V, C]`) with the largest cosine, best first.
///
/// The table is widened a row at a time, once for all virtual tokens.
pub fn nearest(prompt: &SoftPrompt, table: &Frozen, k: usize) -> Vec<Vec<Neighbour>> {
    const ROWS: usize = 1024;
    let blocks = table.rows().div_ceil(ROWS);
    let found: Vec<Vec<Vec<Neighbour>>> = (0..blocks)
        .into_par_iter()
        .map(|block| {
            let ids = block * ROWS..table.rows().min((block + 1) * ROWS);
            of_block(prompt, table, ids, k)
        })
        .collect();
    let of_token = |i: usize| best(found.iter().flat_map(|block| block[i].iter().copied()).collect(), k);
    (0..prompt.n_tokens).map(of_token).collect()
}

fn of_block(
    prompt: &SoftPrompt,
    table: &Frozen,
    ids: std::ops::Range<usize>,
    k: usize,
) -> Vec<Vec<Neighbour>> {
    let mut row = vec![0.0; prompt.d_model];
    let mut found = vec![Vec::new(); prompt.n_tokens];
    for id in ids {
        kernels::embedding::row(table.elements(), id, &mut row);
        for (i, found) in found.iter_mut().enumerate() {
            found.push(compare(prompt.row(i), &row, id as u32));
        }
    }
    found.into_iter().map(|list| best(list, k)).collect()
}

fn compare(a: &[f32], b: &[f32], id: u32) -> Neighbour {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    let distance = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
    // unused rows of real tables are zero
    let cosine = if norms > 0.0 { dot(a, b) / norms } else { 0.0 };
    Neighbour { id, cosine, distance }
}

/// The `k` with the largest cosine; the lower id of equals.
fn best(mut list: Vec<Neighbour>, k: usize) -> Vec<Neighbour> {
    list.sort_by(|a, b| b.cosine.total_cmp(&a.cosine).then(a.id.cmp(&b.id)));
    list.truncate(k);
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::Tensor;

    #[test]
    fn finds_the_row_a_token_was_made_of() {
        let mut rng = kernels::testing::Rng(3);
        let data = rng.normals(3000 * 8);
        let prompt = SoftPrompt::new(2, 8, [&data[2999 * 8..], &data[17 * 8..18 * 8]].concat());
        let table = Frozen::new(Tensor::from_vec(&[3000, 8], data));
        let found = nearest(&prompt, &table, 3);
        assert_eq!((found[0][0].id, found[1][0].id), (2999, 17));
        assert!((found[0][0].cosine - 1.0).abs() < 1e-6 && found[0][0].distance == 0.0);
        assert!(found[0][1].cosine < found[0][0].cosine && found[0].len() == 3);
    }
}
