//! The specification: plain loops, generic over `f32` and `f64`.

use super::Layout;
use crate::real::Real;

/// Shape of a weight: what [`super::Weight`] says besides its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Which way round the numbers are.
    pub layout: Layout,
    /// Width of the input.
    pub n_in: usize,
    /// Width of the output.
    pub n_out: usize,
}

impl Shape {
    /// Where the number that maps input `i` to output `o` lies.
    pub fn index(self, i: usize, o: usize) -> usize {
        match self.layout {
            Layout::OutIn => o * self.n_in + i,
            Layout::InOut => i * self.n_out + o,
        }
    }
}

/// `out[r, o] = Σ_i x[r, i] W[i → o] + bias[o] + residual[r, o]` for the `m` rows of `out[m, n_out]`.
/// See [`super::forward`].
pub fn forward<R: Real>(
    x: &[R],
    (w, shape): (&[R], Shape),
    bias: Option<&[R]>,
    residual: Option<&[R]>,
    out: &mut [R],
) {
    let Shape { n_in, n_out, .. } = shape;
    for (at, out) in out.iter_mut().enumerate() {
        let (r, o) = (at / n_out, at % n_out);
        let mut sum = R::from_f64(0.0);
        for i in 0..n_in {
            sum += x[r * n_in + i] * w[shape.index(i, o)];
        }
        if let Some(bias) = bias {
            sum += bias[o];
        }
        if let Some(residual) = residual {
            sum += residual[at];
        }
        *out = sum;
    }
}

/// `d_x[r, i] = Σ_o d_out[r, o] W[i → o]`: in the forward pass `x[r, i]` was multiplied by `W[i → o]` and added to
/// every `out[r, o]`, so it collects from each of them. See [`super::backward_input`].
pub fn backward_input<R: Real>(d_out: &[R], (w, shape): (&[R], Shape), d_x: &mut [R]) {
    let Shape { n_in, n_out, .. } = shape;
    for (at, d_x) in d_x.iter_mut().enumerate() {
        let (r, i) = (at / n_in, at % n_in);
        let mut sum = R::from_f64(0.0);
        for o in 0..n_out {
            sum += d_out[r * n_out + o] * w[shape.index(i, o)];
        }
        *d_x = sum;
    }
}

/// `d_w[i → o] = Σ_r x[r, i] d_out[r, o]`: the derivative of `out[r, o]` with respect to `W[i → o]` is `x[r, i]`.
/// See [`super::backward_weight`].
pub fn backward_weight<R: Real>(x: &[R], d_out: &[R], shape: Shape, d_w: &mut [R]) {
    let Shape { n_in, n_out, .. } = shape;
    d_w.fill(R::from_f64(0.0));
    for (x, d_out) in x.chunks_exact(n_in.max(1)).zip(d_out.chunks_exact(n_out.max(1))) {
        for (i, &x) in x.iter().enumerate() {
            for (o, &d) in d_out.iter().enumerate() {
                d_w[shape.index(i, o)] += x * d;
            }
        }
    }
}
