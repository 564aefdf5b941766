//! Where a NaN or an infinity in attention goes: to everyone who sees it, and to nobody else.

use prompt_tuning_kernels::matmul::Precision;

use crate::attention::{Case, Data, Results, Shape};
use crate::device::{Device, on_every_device};

/// A NaN in a query or a key reaches every query that sees it; it never passes for "sees nothing".
#[test]
fn nan_is_not_lost() {
    on_every_device(&[1, 3, 40, 100], |device, &tokens| check_nan(device, tokens, Precision::F32));
}

fn check_nan(device: Device, tokens: usize, precision: Precision) -> Result<(), String> {
    for in_key in [false, true] {
        let case = Case { shape: Shape::Causal { tokens }, heads: (2, 1, 8), spread: 1.0 };
        let mut data = Data { precision, ..case.data(4) };
        match in_key {
            true => data.k[0] = f32::NAN,
            false => data.q.fill(f32::NAN),
        }
        let out = data.run(device).out;
        if let Some(i) = out.iter().position(|x| !x.is_nan()) {
            return Err(format!("{tokens} tokens, in a key: {in_key}: {} at {i}", out[i]));
        }
    }
    Ok(())
}

/// What holds the bad number.
#[derive(Clone, Copy, Debug)]
enum Place {
    Query,
    Key,
    Value,
    Gradient,
}

/// Of `row`, the second number.
#[derive(Clone, Copy, Debug)]
struct Spoiled {
    shape: Shape,
    place: Place,
    row: usize,
    number: f32,
}

const HEADS: (usize, usize, usize) = (2, 1, 20);

impl Spoiled {
    fn check(&self, device: Device, precision: Precision) -> Result<(), String> {
        let case = Case { shape: self.shape, heads: HEADS, spread: 1.0 };
        let mut data = Data { precision, ..case.data(4) };
        let clean = data.run(device);
        let (queries, keys) = self.reached(&data);
        let (x, width) = match self.place {
            Place::Query => (&mut data.q, HEADS.0 * HEADS.2),
            Place::Key => (&mut data.k, HEADS.1 * HEADS.2),
            Place::Value => (&mut data.v, HEADS.1 * HEADS.2),
            Place::Gradient => (&mut data.d_out, HEADS.0 * HEADS.2),
        };
        x[self.row * width + 1] = self.number;
        let spoiled = data.run(device);
        self.compare(&clean, &spoiled, (&queries, &keys))
    }

    /// The queries that the number may reach, and the keys that these see.
    fn reached(&self, data: &Data) -> (Vec<bool>, Vec<bool>) {
        let mask = &data.mask;
        let sees = |i: usize, j: usize| (mask.begin[j] as usize..mask.end[j] as usize).contains(&i);
        let of_key = matches!(self.place, Place::Key | Place::Value);
        let queries: Vec<bool> =
            (0..mask.queries).map(|i| if of_key { sees(i, self.row) } else { i == self.row }).collect();
        let seen = |j: usize| (0..mask.queries).any(|i| queries[i] && sees(i, j));
        (queries.clone(), (0..mask.begin.len()).map(seen).collect())
    }

    /// The others have the bits they had; those it must reach are not finite.
    fn compare(&self, clean: &Results, spoiled: &Results, reach: (&[bool], &[bool])) -> Result<(), String> {
        let (q_width, kv_width) = (HEADS.0 * HEADS.2, HEADS.1 * HEADS.2);
        let all = [
            ("out", &clean.out, &spoiled.out, q_width, reach.0),
            ("lse", &clean.lse, &spoiled.lse, HEADS.0, reach.0),
            ("d_q", &clean.d_q, &spoiled.d_q, q_width, reach.0),
            ("d_k", &clean.d_k, &spoiled.d_k, kv_width, reach.1),
            ("d_v", &clean.d_v, &spoiled.d_v, kv_width, reach.1),
        ];
        for (name, clean, spoiled, width, reached) in all {
            let rows = clean.chunks(width).zip(spoiled.chunks(width)).zip(reached);
            for (row, ((clean, spoiled), &reached)) in rows.enumerate() {
                let must_reach = match self.place {
                    Place::Query | Place::Key => name == "d_q",
                    Place::Value => name == "out" || name == "d_q",
                    Place::Gradient => name == "d_q" || name == "d_v",
                };
                if !reached && clean != spoiled {
                    return Err(format!("{name} {row} has changed"));
                }
                if reached && must_reach && spoiled.iter().all(|x| x.is_finite()) {
                    return Err(format!("{name} {row} looks as if nothing had happened"));
                }
            }
        }
        Ok(())
    }
}

fn spoiled() -> Vec<Spoiled> {
    let shapes = [
        // two sequences of three tokens, in one tile
        Shape::Rows { shared: 0, rows: 2, len: 3 },
        Shape::Rows { shared: 10, rows: 5, len: 30 },
        Shape::Forest { tokens: 130 },
        Shape::Segments { tokens: 100 },
    ];
    let mut cases = Vec::new();
    for (shape, number) in shapes.into_iter().flat_map(|shape| [(shape, f32::NAN), (shape, f32::INFINITY)]) {
        for place in [Place::Query, Place::Key, Place::Value, Place::Gradient] {
            cases.extend([1, 3, 5].map(|row| Spoiled { shape, place, row, number }));
        }
    }
    cases
}

#[test]
fn a_bad_number_stays_with_those_that_see_it() {
    on_every_device(&spoiled(), |device, case| case.check(device, Precision::F32));
}

#[cfg(feature = "cuda")]
mod on_tensor_cores {
    use super::*;
    use crate::device::on_the_gpu;

    #[test]
    fn nan_is_not_lost() {
        on_the_gpu(&[1, 3, 40, 100], |device, &tokens| check_nan(device, tokens, Precision::Bf16));
    }

    #[test]
    fn a_bad_number_stays_with_those_that_see_it() {
        on_the_gpu(&spoiled(), |device, case| case.check(device, Precision::Bf16));
    }
}
