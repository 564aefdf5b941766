//! What every test of the workspace compares with: one `close`, one random number generator.

/// How far two numbers may be apart: `|a - e| <= absolute + relative * |e|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Absolute part.
    pub absolute: f64,
    /// Part proportional to the expected number.
    pub relative: f64,
}

impl Tolerance {
    /// The same bound, absolute and relative.
    pub fn both(x: f64) -> Tolerance {
        Tolerance { absolute: x, relative: x }
    }
}

/// `Ok` when `actual` equals `expected` within the tolerance at every place; otherwise says where it does not.
///
/// Fails on different lengths, on a NaN or infinity that the other side does not have at the same place, and when
/// both sides are zero throughout (such a comparison proves nothing; test zeros on purpose with `assert!`).
pub fn close<A: Copy + Into<f64>, E: Copy + Into<f64>>(
    actual: &[A],
    expected: &[E],
    tol: Tolerance,
) -> Result<(), String> {
    if actual.len() != expected.len() {
        return Err(format!("{} numbers, expected {}", actual.len(), expected.len()));
    }
    let pairs = || actual.iter().zip(expected).map(|(&a, &e)| (a.into(), e.into()));
    if !actual.is_empty() && pairs().all(|(a, e)| a == 0.0 && e == 0.0) {
        return Err("both sides are zero throughout".into());
    }
    // written so that a NaN is never "within"
    let within = |a: f64, e: f64| {
        (a.is_nan() && e.is_nan())
            || a == e
            || (e.is_finite() && (a - e).abs() <= tol.absolute + tol.relative * e.abs())
    };
    let wrong: Vec<_> = pairs().enumerate().filter(|&(_, (a, e))| !within(a, e)).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let shown: Vec<_> =
        wrong.iter().take(3).map(|(i, (a, e))| format!("[{i}] {a:e}, expected {e:e}")).collect();
    Err(format!("{} of {} numbers differ: {}", wrong.len(), actual.len(), shown.join("; ")))
}

/// A small generator for test data (SplitMix64): the same seed gives the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, n)`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next_u64() % n.max(1) as u64) as usize
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal (sum of four uniforms), mean 0, variance 1.
    pub fn normal(&mut self) -> f64 {
        let sum: f64 = (0..4).map(|_| self.uniform() - 0.5).sum();
        sum * 3f64.sqrt()
    }

    /// `n` numbers from [`Rng::normal`].
    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal() as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOL: Tolerance = Tolerance { absolute: 0.1, relative: 0.0 };

    #[test]
    fn close_within_the_tolerance() {
        close(&[1.0f32, 2.05], &[1.0f64, 2.0], TOL).unwrap();
        close(&[10.9f32], &[10.0f64], Tolerance { absolute: 0.0, relative: 0.1 }).unwrap();
        close::<f32, f32>(&[], &[], TOL).unwrap();
        assert!(close(&[1.0, 2.2], &[1.0, 2.0], TOL).unwrap_err().contains("[1] 2.2e0, expected 2e0"));
    }

    #[test]
    fn not_close_when_a_nan_or_infinity_is_on_one_side_only() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        for (a, e) in [(nan, 1.0), (1.0, nan), (inf, 1.0), (1.0, inf), (inf, -inf), (nan, inf), (inf, nan)] {
            assert!(close(&[a, 1.0], &[e, 1.0], Tolerance::both(1e9)).is_err(), "{a} {e}");
        }
        close(&[nan, inf, -inf], &[nan, inf, -inf], TOL).unwrap();
    }

    #[test]
    fn not_close_when_the_comparison_proves_nothing() {
        assert!(close(&[0.0; 3], &[0.0; 3], TOL).is_err());
        assert!(close(&[1.0; 3], &[1.0; 2], TOL).is_err());
        // a NaN tolerance accepts only what is equal
        assert!(close(&[1.0], &[1.5], Tolerance::both(f64::NAN)).is_err());
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // SplitMix64 from seed 0
        let mut rng = Rng(0);
        assert_eq!([rng.next_u64(), rng.next_u64()], [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4]);
        let x = rng.normals(20_000);
        let mean = x.iter().sum::<f32>() / 20_000.0;
        let variance = x.iter().map(|x| x * x).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }
}
