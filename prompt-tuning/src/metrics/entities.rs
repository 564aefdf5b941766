//! Lists of entities: which of them are found, all lists together.

use super::{f_score, matches, n_grams};

/// Micro-averaged F1 of the items of lists against those of their references, as multisets; case and white space around
/// an item do not count. Two empty lists agree; 1 when all of them are empty.
pub fn entity_f1(pairs: &[[Vec<String>; 2]]) -> f64 {
    let (mut common, mut found, mut wanted) = (0, 0, 0);
    for lists in pairs {
        let [list, reference] =
            lists.each_ref().map(|l| l.iter().map(|i| i.trim().to_lowercase()).collect::<Vec<_>>());
        common += matches(&n_grams(&list, 1), &n_grams(&reference, 1));
        found += list.len();
        wanted += reference.len();
    }
    if found + wanted == 0 {
        return 1.0;
    }
    let share = |n: usize| if n == 0 { 0.0 } else { common as f64 / n as f64 };
    f_score(share(found), share(wanted), 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_by_hand() {
        let list = |items: &[&str]| items.iter().map(|i| i.to_string()).collect::<Vec<_>>();
        // 2 of 3 found ones are right, 2 of 4 wanted ones are found; the second Rome is one too many
        let pairs = [
            [list(&["Rome", "rome "]), list(&["Rome", "Bonn", "Bern"])],
            [list(&["Oslo"]), list(&["oslo"])],
            [list(&[]), list(&[])],
        ];
        let (p, r) = (2.0 / 3.0, 2.0 / 4.0);
        assert!((entity_f1(&pairs) - 2.0 * p * r / (p + r)).abs() < 1e-12);
        assert_eq!(entity_f1(&[[list(&[]), list(&[])]]), 1.0);
        assert_eq!(entity_f1(&[[list(&["x"]), list(&[])]]), 0.0);
    }
}
