//! Every operation of every available instruction set against plain scalars.

use half::{bf16, f16};
use proptest::prelude::*;

use super::{MAX_LANES, Simd, SimdOp};
use crate::Isa;

/// All operations that map lanes to lanes, applied to the first `LANES` of three inputs; one row of results each.
struct LaneWise<'a>(&'a [f32; MAX_LANES], &'a [f32; MAX_LANES], &'a [f32; MAX_LANES]);

impl SimdOp for LaneWise<'_> {
    type Output = Vec<(&'static str, Vec<f32>)>;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> Self::Output {
        let (a, b, c) = (s.load(self.0), s.load(self.1), s.load(self.2));
        let results = [
            ("load", a),
            ("splat", s.splat(self.0[0])),
            ("add", s.add(a, b)),
            ("sub", s.sub(a, b)),
            ("mul", s.mul(a, b)),
            ("div", s.div(a, b)),
            ("mul_add", s.mul_add(a, b, c)),
            ("max", s.max(a, b)),
            ("min", s.min(a, b)),
            ("abs", s.abs(a)),
            ("copysign", s.copysign(a, b)),
            ("sqrt", s.sqrt(s.abs(a))),
            ("round", s.round(a)),
            ("select_lt", s.select_lt(a, b, c, a)),
            ("round_bf16", s.round_bf16(a)),
        ];
        let stored = |v| {
            let mut out = vec![0.0; S::LANES];
            s.store(v, &mut out);
            out
        };
        results.map(|(name, v)| (name, stored(v))).into()
    }
}

fn scalar(name: &str, a: [f32; MAX_LANES], i: usize, b: f32, c: f32) -> Vec<f32> {
    let first = a[0];
    let a = a[i];
    let one = match name {
        "load" => a,
        "splat" => first,
        "add" => a + b,
        "sub" => a - b,
        "mul" => a * b,
        "div" => a / b,
        // fused or not: either is right
        "mul_add" => return vec![a * b + c, a.mul_add(b, c)],
        // which zero wins is not specified
        "max" => return vec![a.max(b), b.max(a)],
        "min" => return vec![a.min(b), b.min(a)],
        "abs" => a.abs(),
        "copysign" => a.copysign(b),
        "sqrt" => a.abs().sqrt(),
        "round" => a.round_ties_even(),
        "round_bf16" => bf16::from_f32(a).to_f32(),
        "select_lt" => {
            if a < b {
                c
            } else {
                a
            }
        }
        _ => panic!("no scalar for {name}"),
    };
    vec![one]
}

fn same(a: f32, b: f32) -> bool {
    a == b && (a != 0.0 || a.is_sign_positive() == b.is_sign_positive()) || (a.is_nan() && b.is_nan())
}

/// Ordinary numbers, halves (ties of rounding), huge ones, zeros of both signs.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        -10f32..10.0,
        (-100i32..100).prop_map(|x| x as f32 / 2.0),
        any::<f32>().prop_filter("normal", |x| x.is_normal()),
        Just(0.0),
        Just(-0.0),
        Just(f32::INFINITY),
        Just(f32::NEG_INFINITY),
    ]
}

fn vector() -> impl Strategy<Value = [f32; MAX_LANES]> {
    prop::array::uniform16(number())
}

proptest! {
    #[test]
    fn lane_wise_operations_equal_scalars(a in vector(), b in vector(), c in vector()) {
        for isa in Isa::available() {
            for (name, results) in isa.run(LaneWise(&a, &b, &c)) {
                for (i, &result) in results.iter().enumerate() {
                    let right = scalar(name, a, i, b[i], c[i]);
                    prop_assert!(
                        right.iter().any(|&r| same(result, r) || (r == 0.0 && result == 0.0 && right.len() > 1)),
                        "{} {name}({:e}, {:e}, {:e}) = {result:e}, expected {right:?}", isa.name(), a[i], b[i], c[i]
                    );
                }
            }
        }
    }

    #[test]
    fn sums_and_maxima_equal_scalars(x in prop::array::uniform16(-10f32..10.0)) {
        for isa in Isa::available() {
            let (lanes, sum, max) = isa.run(Reductions(&x));
            let x = &x[..lanes];
            let exact: f64 = x.iter().map(|&x| f64::from(x)).sum();
            let scale: f64 = x.iter().map(|&x| f64::from(x.abs())).sum();
            prop_assert!((f64::from(sum) - exact).abs() <= 4.0 * f64::from(f32::EPSILON) * scale, "{}", isa.name());
            prop_assert_eq!(max, x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}

/// Products of pairs of bf16, added to the third input.
struct DotBf16<'a>([&'a [f32; MAX_LANES]; 5]);

impl SimdOp for DotBf16<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> Vec<f32> {
        let [a_even, a_odd, b_even, b_odd, sum] = self.0.map(|x| s.load(x));
        let pair = |even, odd| s.pair_bf16(s.round_bf16(even), s.round_bf16(odd));
        let mut out = vec![0.0; S::LANES];
        s.store(s.dot_bf16(pair(a_even, a_odd), pair(b_even, b_odd), sum), &mut out);
        out
    }
}

#[test]
fn a_nan_stays_one_when_rounded_to_bf16() {
    // the largest mantissas, of which rounding would carry into the exponent and the sign
    for bits in [0x7fff_ffff_u32, 0xffff_ffff, 0x7f80_0001, 0xff80_0001] {
        let x = [f32::from_bits(bits); MAX_LANES];
        for isa in Isa::available() {
            let results = isa.run(LaneWise(&x, &x, &x));
            let (_, rounded) = results.iter().find(|(name, _)| *name == "round_bf16").expect("it is tested");
            assert!(rounded.iter().all(|x| x.is_nan()), "{} {bits:x}: {rounded:?}", isa.name());
        }
    }
}

proptest! {
    #[test]
    fn bf16_dot_products_equal_scalars(x in prop::array::uniform5(prop::array::uniform16(-10f32..10.0))) {
        let [a_even, a_odd, b_even, b_odd, sum] = &x;
        for isa in Isa::available() {
            for (i, result) in isa.run(DotBf16([a_even, a_odd, b_even, b_odd, sum])).into_iter().enumerate() {
                let round = |x: f32| f64::from(bf16::from_f32(x).to_f32());
                let (odd, even) = (round(a_odd[i]) * round(b_odd[i]), round(a_even[i]) * round(b_even[i]));
                let exact = f64::from(sum[i]) + odd + even;
                let scale = f64::from(sum[i].abs()) + odd.abs() + even.abs();
                let error = (f64::from(result) - exact).abs();
                prop_assert!(error <= 2.0 * f64::from(f32::EPSILON) * scale, "{}: {result} {exact}", isa.name());
            }
        }
    }
}

struct Reductions<'a>(&'a [f32; MAX_LANES]);

impl SimdOp for Reductions<'_> {
    type Output = (usize, f32, f32);
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> Self::Output {
        let x = s.load(self.0);
        (S::LANES, s.sum(x), s.max_lane(x))
    }
}

struct Partial<'a>(&'a [f32; MAX_LANES]);

impl SimdOp for Partial<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for n in 0..S::LANES {
            // slices of exactly n elements, so that a touch beyond them is visible to Miri and to the guard below
            let input = self.0[..n].to_vec();
            let mut all = vec![f32::NAN; S::LANES];
            let v = s.load_partial(&input);
            s.store(v, &mut all);
            assert_eq!(all[..n], input[..]);
            assert!(all[n..].iter().all(|x| x.to_bits() == 0), "lanes beyond {n} are zero");

            let mut guarded = vec![-1.0; S::LANES];
            let v = s.load(self.0);
            s.store_partial(v, &mut guarded[..n]);
            assert_eq!(guarded[..n], self.0[..n]);
            assert!(guarded[n..].iter().all(|&x| x == -1.0), "nothing is written beyond {n}");
        }
    }
}

#[test]
fn partial_loads_and_stores_touch_nothing_else() {
    let x = std::array::from_fn(|i| i as f32 + 1.0);
    for isa in Isa::available() {
        isa.run(Partial(&x));
    }
}

struct Widen<'a>(&'a [f16], &'a [bf16], &'a mut [f32], &'a mut [f32]);

impl SimdOp for Widen<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for i in (0..self.0.len()).step_by(S::LANES) {
            s.store(s.load_f16(&self.0[i..]), &mut self.2[i..]);
            s.store(s.load_bf16(&self.1[i..]), &mut self.3[i..]);
        }
    }
}

#[test]
fn all_65536_halves_widen_exactly() {
    let f16s: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let bf16s: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    for isa in Isa::available() {
        let mut from_f16 = vec![0.0; f16s.len()];
        let mut from_bf16 = vec![0.0; f16s.len()];
        isa.run(Widen(&f16s, &bf16s, &mut from_f16, &mut from_bf16));
        for i in 0..f16s.len() {
            assert!(same(from_f16[i], f16s[i].to_f32()), "{} f16 {i:#x}: {:e}", isa.name(), from_f16[i]);
            assert!(same(from_bf16[i], bf16s[i].to_f32()), "{} bf16 {i:#x}: {:e}", isa.name(), from_bf16[i]);
        }
    }
}

struct Pow2<'a>(&'a [f32; MAX_LANES]);

impl SimdOp for Pow2<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> Vec<f32> {
        let mut out = vec![0.0; S::LANES];
        s.store(s.pow2(s.load(self.0)), &mut out);
        out
    }
}

#[test]
fn pow2_is_exact() {
    for isa in Isa::available() {
        for first in -126..=127 {
            // another power in every lane
            let n = std::array::from_fn(|i| (first + i as i32).min(127));
            for (n, power) in n.into_iter().zip(isa.run(Pow2(&n.map(|n| n as f32)))) {
                assert_eq!(power, 2f32.powi(n), "{} 2^{n}", isa.name());
            }
        }
    }
}

struct Prefetch<'a>(&'a [f32]);

impl SimdOp for Prefetch<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        s.prefetch(self.0);
    }
}

#[test]
fn prefetch_changes_nothing_wherever_it_points() {
    let x = [1.0, 2.0];
    for isa in Isa::available() {
        // memory, the end of it, and an address that is not mapped
        for slice in [&x[..], &x[2..], &[]] {
            isa.run(Prefetch(slice));
        }
        assert_eq!(x, [1.0, 2.0], "{}", isa.name());
    }
}

struct Transpose;

impl SimdOp for Transpose {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let numbers: Vec<f32> = (0..S::LANES * S::LANES).map(|i| i as f32).collect();
        let mut rows = [s.splat(-1.0); MAX_LANES];
        for (v, row) in rows.iter_mut().zip(numbers.chunks(S::LANES)) {
            *v = s.load(row);
        }
        s.transpose(&mut rows);
        for (i, &v) in rows[..S::LANES].iter().enumerate() {
            let mut row = vec![0.0; S::LANES];
            s.store(v, &mut row);
            let column: Vec<f32> = (0..S::LANES).map(|j| numbers[j * S::LANES + i]).collect();
            assert_eq!(row, column, "row {i}");
        }
    }
}

#[test]
fn transpose_swaps_rows_and_columns() {
    for isa in Isa::available() {
        isa.run(Transpose);
    }
}
