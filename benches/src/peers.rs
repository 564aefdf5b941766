//! The same f32 product by the best crates there are (feature `peers`).
#![cfg_attr(feature = "peers", allow(unsafe_code, reason = "both peers take pointers"))]

/// `C[m, n] = A[m, k] · B[k, n]`.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// Rows.
    pub m: usize,
    /// Inner size.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// `[m, k]`
    pub a: &'a [f32],
    /// `[k, n]`, or `[n, k]` when `transposed`.
    pub b: &'a [f32],
    /// Whether `B` lies column by column.
    pub transposed: bool,
}

/// Another implementation of the product.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Name of the crate.
    pub name: &'static str,
    /// Computes `C`.
    pub run: fn(Product, &mut [f32]),
}

/// The peers that were compiled in.
pub fn all() -> &'static [Peer] {
    #[cfg(feature = "peers")]
    return &[
        Peer { name: "gemm", run: crates::gemm },
        Peer { name: "matrixmultiply", run: crates::matrixmultiply },
    ];
    #[cfg(not(feature = "peers"))]
    &[]
}

#[cfg(feature = "peers")]
mod crates {
    use super::Product;

    impl Product<'_> {
        fn check(&self, out: &[f32]) {
            let (m, k, n) = (self.m, self.k, self.n);
            assert_eq!((self.a.len(), self.b.len(), out.len()), (m * k, k * n, m * n), "{m} x {k} x {n}");
        }

        /// Distance between two rows of `B`, and between two columns.
        fn strides_of_b(&self) -> (isize, isize) {
            if self.transposed { (1, self.k as isize) } else { (self.n as isize, 1) }
        }
    }

    /// On all threads of the pool.
    pub(super) fn gemm(p: Product, out: &mut [f32]) {
        p.check(out);
        let parallelism = gemm::Parallelism::Rayon(rayon::current_num_threads());
        let (rows_of_b, columns_of_b) = p.strides_of_b();
        // SAFETY: `check` has made sure that the strides stay within the three slices.
        unsafe {
            gemm::gemm(
                p.m,
                p.n,
                p.k,
                out.as_mut_ptr(),
                1,
                p.n as isize,
                false,
                p.a.as_ptr(),
                1,
                p.k as isize,
                p.b.as_ptr(),
                columns_of_b,
                rows_of_b,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    }

    /// On its own threads (`MATMUL_NUM_THREADS`, else one per core, up to four).
    pub(super) fn matrixmultiply(p: Product, out: &mut [f32]) {
        p.check(out);
        let (rows_of_b, columns_of_b) = p.strides_of_b();
        // SAFETY: `check` has made sure that the strides stay within the three slices.
        unsafe {
            matrixmultiply::sgemm(
                p.m,
                p.k,
                p.n,
                1.0,
                p.a.as_ptr(),
                p.k as isize,
                1,
                p.b.as_ptr(),
                rows_of_b,
                columns_of_b,
                0.0,
                out.as_mut_ptr(),
                p.n as isize,
                1,
            );
        }
    }
}

#[cfg(all(test, feature = "peers"))]
mod tests {
    use super::*;
    use kernels::matmul::{Elements, Epilogue, Layout, Precision, Weight, forward};
    use kernels::testing::{Rng, Tolerance, close};

    #[test]
    fn peers_compute_what_we_compute() {
        let (m, k, n) = (5, 33, 18);
        let (a, b) = (Rng(1).normals(m * k), Rng(2).normals(n * k));
        for (layout, transposed) in [(Layout::OutIn, true), (Layout::InOut, false)] {
            let weight =
                Weight { elements: Elements::F32(&b), layout, n_in: k, n_out: n, precision: Precision::F32 };
            let mut ours = vec![0.0; m * n];
            forward(kernels::Isa::best(), &a, weight, Epilogue::default(), &mut ours);
            assert_eq!(all().len(), 2);
            for peer in all() {
                let mut out = vec![f32::NAN; m * n];
                (peer.run)(Product { m, k, n, a: &a, b: &b, transposed }, &mut out);
                close(&out, &ours, Tolerance::both(1e-5)).expect(peer.name);
            }
        }
    }
}
