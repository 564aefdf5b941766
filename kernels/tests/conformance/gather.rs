//! Rows of tables on the GPU: the table's, the prompt's, and the gradient of those.

use half::bf16;
use prompt_tuning_kernels::{
    Elements,
    embedding::{
        self,
        cuda::{Places, gather, gather_backward},
    },
    matmul::cuda::Elements as OnDevice,
};

use crate::{
    device::cuda::{Host, hosts, read, write},
    normals,
};

fn gathered(host: &Host, table: OnDevice, soft: &[f32], rows: &[u32], width: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows.len() * width];
    gather(host, (table, read(soft)), read(rows), width, write(&mut out)).unwrap();
    out
}

#[test]
fn rows_of_both_tables() {
    for width in [1, 5, 32, 64, 300] {
        let (table, soft) = (normals(1, 7 * width), normals(2, 3 * width));
        let halves: Vec<bf16> = table.iter().map(|&x| bf16::from_f32(x)).collect();
        let rows = [3, 0, 7, 6, 9, 3, 8];
        let row_of = |table: Elements, row: u32| {
            let mut out = vec![f32::NAN; width];
            match (row as usize).checked_sub(7) {
                Some(row) => embedding::row(Elements::F32(&soft), row, &mut out),
                None => embedding::row(table, row as usize, &mut out),
            }
            out
        };
        for host in hosts() {
            let of = |table: Elements| rows.iter().flat_map(|&row| row_of(table, row)).collect::<Vec<f32>>();
            assert_eq!(
                gathered(&host, OnDevice::F32(read(&table)), &soft, &rows, width),
                of(Elements::F32(&table))
            );
            assert_eq!(
                gathered(&host, OnDevice::Bf16(read(&halves)), &soft, &rows, width),
                of(Elements::Bf16(&halves))
            );
            let nobody = gathered(&host, OnDevice::F32(read(&table)), &soft, &[10, u32::MAX], width);
            assert!(nobody.iter().all(|x| x.is_nan()));
        }
    }
}

#[test]
fn the_gradient_goes_to_the_rows_that_were_taken() {
    let (rows, width) = ([8, 1, 7, 8, 2, 8], 33);
    let d_out = normals(3, rows.len() * width);
    // row 9 was never taken
    let places = Places::of(&rows, 7, 3);
    assert_eq!(places, Places { begin: vec![0, 1, 4, 4], places: vec![2, 0, 3, 5] });
    let place = |i: usize| &d_out[i * width..][..width];
    let of_row_8: Vec<f32> = (0..width).map(|i| place(0)[i] + place(3)[i] + place(5)[i]).collect();
    let expected = [place(2).to_vec(), of_row_8, vec![0.0; width]].concat();
    for host in hosts() {
        let mut d_rows = vec![f32::NAN; 3 * width];
        let (begin, places) = (read(&places.begin), read(&places.places));
        gather_backward(&host, (read(&d_out), width), begin, places, write(&mut d_rows)).unwrap();
        assert_eq!(d_rows, expected);
    }
}
