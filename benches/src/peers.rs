//! The same product by the best crates there are: `out[m, n] = x[m, k] · w`, `w` stored `[n, k]`.
#![allow(unsafe_code, reason = "both peers take pointers")]

use rayon::current_num_threads;

/// Sizes and operands of a product whose weight is stored `[n, k]`.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// Rows.
    pub m: usize,
    /// Inner size.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// `[m, k]`
    pub x: &'a [f32],
    /// `[n, k]`
    pub w: &'a [f32],
}

impl Product<'_> {
    fn check(&self, out: &[f32]) {
        assert!(
            self.x.len() == self.m * self.k
                && self.w.len() == self.n * self.k
                && out.len() == self.m * self.n
        );
    }
}

/// By the `gemm` crate, on all threads.
pub fn gemm(p: Product, out: &mut [f32]) {
    p.check(out);
    let parallelism = gemm::Parallelism::Rayon(current_num_threads());
    let (m, n, k) = (p.m, p.n, p.k);
    // SAFETY: `check` has made sure that the strides stay within the three slices.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            p.x.as_ptr(),
            1,
            k as isize,
            p.w.as_ptr(),
            k as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// By `matrixmultiply`, on its own threads (`MATMUL_NUM_THREADS`).
pub fn matrixmultiply(p: Product, out: &mut [f32]) {
    p.check(out);
    let (k, n) = (p.k as isize, p.n as isize);
    // SAFETY: `check` has made sure that the strides stay within the three slices.
    unsafe {
        matrixmultiply::sgemm(
            p.m,
            p.k,
            p.n,
            1.0,
            p.x.as_ptr(),
            k,
            1,
            p.w.as_ptr(),
            1,
            k,
            0.0,
            out.as_mut_ptr(),
            n,
            1,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::matmul::{Elements, Epilogue, Layout, Weight, forward};
    use kernels::testing::{Rng, Tolerance, close};

    #[test]
    fn peers_compute_what_we_compute() {
        let (m, k, n) = (5, 33, 18);
        let (x, w) = (Rng(1).normals(m * k), Rng(2).normals(n * k));
        let weight = Weight { elements: Elements::F32(&w), layout: Layout::OutIn, n_in: k, n_out: n };
        let mut ours = vec![0.0; m * n];
        forward(kernels::Isa::best(), &x, weight, Epilogue::default(), &mut ours);
        let p = Product { m, k, n, x: &x, w: &w };
        for peer in [gemm, matrixmultiply] {
            let mut out = vec![f32::NAN; m * n];
            peer(p, &mut out);
            close(&out, &ours, Tolerance::both(1e-5)).expect("the same product");
        }
    }
}
