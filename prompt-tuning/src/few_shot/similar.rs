//! Choosing by embeddings: the nearest, or those that are near and unlike each other. All products are matrix products of a
//! block of queries with the whole pool, so the time is that of `queries × pool` cosines, and as many again for each
//! demonstration of [`marginal`].

use rayon::prelude::*;

use super::embed::Embeddings;

/// Queries computed at a time.
const BLOCK: usize = 128;

/// For each query the `k` vectors of `pool` with the largest cosine, best first.
pub(super) fn nearest(pool: &Embeddings, queries: &Embeddings, k: usize) -> Vec<Vec<usize>> {
    by_block(pool, queries, |near| {
        let of_query = |near: &[f32]| best(&near.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), k);
        near.par_chunks_exact(pool.len()).map(of_query).collect()
    })
}

/// For each query `k` vectors of `pool`, picked one after the other by the largest `cos(query, d) - max cos(picked, d)`, in
/// that order; the first of equals.
pub(super) fn marginal(pool: &Embeddings, queries: &Embeddings, k: usize) -> Vec<Vec<usize>> {
    by_block(pool, queries, |near| {
        let mut picked: Vec<Vec<usize>> = vec![Vec::new(); near.len() / pool.len()];
        let mut likeness = vec![0.0; near.len()];
        for _ in 0..k.min(pool.len()) {
            let rows = near.par_chunks_exact(pool.len()).zip(likeness.par_chunks_exact(pool.len()));
            picked.par_iter_mut().zip(rows).for_each(|(picked, (near, likeness))| {
                let gain = |i: usize| near[i] - likeness[i];
                let open = (0..near.len()).filter(|i| !picked.contains(i));
                picked.extend(open.reduce(|a, b| if gain(b) > gain(a) { b } else { a }));
            });
            let last: Vec<usize> = picked.iter().filter_map(|p| p.last().copied()).collect();
            let is_first = picked[0].len() == 1;
            let alike = pool.rows(&last).cosines(pool);
            likeness.par_iter_mut().zip(alike).for_each(|(likeness, alike)| {
                *likeness = if is_first { alike } else { likeness.max(alike) };
            });
        }
        picked
    })
}

/// What `choose` says of the cosines of each block of queries with the pool, `[queries of the block, pool]`.
fn by_block(
    pool: &Embeddings,
    queries: &Embeddings,
    choose: impl Fn(&[f32]) -> Vec<Vec<usize>>,
) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..queries.len()).collect();
    all.chunks(BLOCK).flat_map(|block| choose(&queries.rows(block).cosines(pool))).collect()
}

/// The `k` with the largest score, best first; the first of equals.
pub(super) fn best(scores: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let by_score = |&a: &usize, &b: &usize| scores[b].total_cmp(&scores[a]).then(a.cmp(&b));
    if k < order.len() {
        order.select_nth_unstable_by(k, by_score);
        order.truncate(k);
    }
    order.sort_unstable_by(by_score);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// More than the sums of two kernels differ by.
    const CLOSE: f64 = 1e-6;

    fn cos(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    /// That no vector left over has more of `gain`, given those picked before, than each that was picked.
    fn check(picked: &[usize], n: usize, gain: impl Fn(&[usize], usize) -> f64) -> Result<(), String> {
        for (place, &one) in picked.iter().enumerate() {
            let before = &picked[..place];
            if before.contains(&one) {
                return Err(format!("{one} twice"));
            }
            let open = (0..n).filter(|i| !before.contains(i));
            let best = open.map(|i| gain(before, i)).fold(f64::NEG_INFINITY, f64::max);
            if gain(before, one) < best - CLOSE {
                return Err(format!("place {place}: {one} has {}, but {best} was left", gain(before, one)));
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn nearest_and_marginal_are_what_brute_force_finds(
            rows in prop::collection::vec(prop::array::uniform3(-1.0f32..1.0), 4..20),
            queries in prop::collection::vec(prop::array::uniform3(-1.0f32..1.0), 1..12),
        ) {
            let n = rows.len();
            let (pool, queries) = (Embeddings::new(3, rows.concat()), Embeddings::new(3, queries.concat()));
            let (near, apart) = (nearest(&pool, &queries, 3), marginal(&pool, &queries, 3));
            prop_assert_eq!((near.len(), apart.len()), (queries.len(), queries.len()));
            for i in 0..queries.len() {
                let relevance = |j: usize| cos(queries.row(i), pool.row(j));
                let gain = |before: &[usize], j: usize| {
                    let alike = before.iter().map(|&b| cos(pool.row(b), pool.row(j))).reduce(f64::max);
                    relevance(j) - alike.unwrap_or(0.0)
                };
                prop_assert!(near[i].len() == 3 && apart[i].len() == 3);
                prop_assert_eq!(check(&near[i], n, |_, j| relevance(j)), Ok(()));
                prop_assert_eq!(check(&apart[i], n, gain), Ok(()));
            }
        }
    }

    #[test]
    fn a_case_by_hand() {
        // the second is the first again, the third is further from the query and unlike the first, the fourth far away
        let pool = Embeddings::new(2, vec![1.0, 0.1, 1.0, 0.1, 1.0, 1.0, -1.0, 0.0]);
        let query = Embeddings::new(2, vec![1.0, 0.2]);
        assert_eq!(nearest(&pool, &query, 3), [[0, 1, 2]]);
        // behind the first, gains are 0.995 - 1, 0.832 - 0.774 and -0.981 + 0.995; behind the third, the second's is the
        // same and the fourth's -0.981 + 0.707
        assert_eq!(marginal(&pool, &query, 2), [[0, 2]]);
        assert_eq!(marginal(&pool, &query, 9), [[0, 2, 1, 3]]);
    }

    #[test]
    fn queries_of_several_blocks_keep_their_order() {
        let mut rng = crate::rng::Rng::new(4);
        let pool = Embeddings::new(5, (0..300 * 5).map(|_| rng.normal() as f32).collect());
        let expected: Vec<Vec<usize>> = (0..300).map(|i| vec![i]).collect();
        assert_eq!(nearest(&pool, &pool, 1), expected);
        assert_eq!(marginal(&pool, &pool, 1), expected);
    }

    #[test]
    fn the_first_of_equals_is_best() {
        assert_eq!(best(&[1.0, 3.0, 3.0, 0.0, 3.0], 2), [1, 2]);
        assert_eq!(best(&[1.0, 3.0], 5), [1, 0]);
    }
}
