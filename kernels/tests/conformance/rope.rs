//! Rotary embedding: the angles of the table and the rotation.

use prompt_tuning_kernels::{
    rope::{Pairs, Table, reference},
    testing::{Tolerance, close},
};

use crate::{device::on_every_device, named, normals, to_f64};

#[test]
fn the_table_multiplies_in_f32() {
    let table = Table::new(&[0, 3, 4000], &[1.0, 0.1], Pairs::Halves);
    let angles = [0.0, 0.0, 3.0, f64::from(3.0f32 * 0.1), 4000.0, f64::from(4000.0f32 * 0.1)];
    assert_eq!(table.half, 2);
    close(&table.cos, &angles.map(f64::cos), Tolerance::both(1e-7)).unwrap();
    close(&table.sin, &angles.map(f64::sin), Tolerance::both(1e-7)).unwrap();
}

#[test]
fn hand_computed() {
    on_every_device(&[()], |device, ()| {
        // cos 0.6, sin 0.8, one token with two heads of one pair
        let table = Table { cos: vec![0.6], sin: vec![0.8], half: 1, pairs: Pairs::Halves };
        let y = device.rope(&table, &[1.0, 0.0, 0.0, 1.0], false);
        close(&y, &[0.6, 0.8, -0.8, 0.6], Tolerance::both(1e-6))?;
        close(&device.rope(&table, &y, true), &[1.0, 0.0, 0.0, 1.0], Tolerance::both(1e-6))
    });
}

#[test]
fn matches_the_reference() {
    let cases = [
        (0, 1, 4),
        (1, 1, 1),
        (3, 2, 5),
        (7, 1, 7),
        (2, 3, 8),
        (5, 2, 15),
        (5, 2, 16),
        (5, 1, 17),
        (45, 9, 32),
        (850, 4, 64),
    ];
    on_every_device(&cases, |device, &(tokens, heads, half)| {
        let positions: Vec<u32> = (0..tokens as u32).map(|t| t * 7 % 4096).collect();
        let inv_freq: Vec<f32> = (0..half).map(|i| 10_000f32.powf(-(i as f32) / half as f32)).collect();
        let table = Table::new(&positions, &inv_freq, Pairs::Halves);
        let n = tokens * heads * 2 * half;
        let (x, d_y) = (normals(1, n), normals(2, n));
        let (y, d_x) = (device.rope(&table, &x, false), device.rope(&table, &d_y, true));
        let (mut e_y, mut e_d_x) = (vec![], vec![]);
        let heads_of = |x: &[f32]| to_f64(x).chunks(2 * half).map(<[f64]>::to_vec).collect::<Vec<_>>();
        for (i, (x, d_y)) in heads_of(&x).iter().zip(heads_of(&d_y)).enumerate() {
            let angles: Vec<f64> =
                inv_freq.iter().map(|f| f64::from(positions[i / heads] as f32 * f)).collect();
            e_y.extend(reference::forward(&angles, x));
            e_d_x.extend(reference::backward(&angles, &d_y));
        }
        named("y", close(&y, &e_y, Tolerance::both(1e-6)))?;
        named("d_x", close(&d_x, &e_d_x, Tolerance::both(1e-6)))
    });
}

/// Pairs of neighbours: the half-split rotation of reordered lanes.
#[test]
fn neighbours_are_reordered_halves() {
    on_every_device(&[1, 4, 5, 8, 16, 17, 32], |device, &half| {
        let (tokens, heads) = (7, 3);
        let n = tokens * heads * 2 * half;
        let inv_freq: Vec<f32> = (0..half).map(|i| 100f32.powf(-(i as f32) / half as f32)).collect();
        let [halves, neighbours] = [Pairs::Halves, Pairs::Neighbours]
            .map(|pairs| Table::new(&[0, 1, 2, 3, 5, 8, 130], &inv_freq, pairs));
        // lane 2i of a head is lane i of the half-split order, lane 2i + 1 is lane i + half
        let split = |x: &[f32]| -> Vec<f32> {
            let heads = x.chunks(2 * half);
            heads
                .flat_map(|x| [0, 1].into_iter().flat_map(move |o| (0..half).map(move |i| x[2 * i + o])))
                .collect()
        };
        let x = normals(3, n);
        for back in [false, true] {
            let y = device.rope(&neighbours, &x, back);
            let expected = device.rope(&halves, &split(&x), back);
            named("y", close(&split(&y), &expected, Tolerance::both(1e-6)))?;
        }
        Ok(())
    });
}
