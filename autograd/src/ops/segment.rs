//! A piece of the model that may be computed twice, so that little has to be remembered.
//!
//! ```text
//! forward    y = f(x), recording nothing
//! backward   y = f(x) once more on a tape of its own, then d_x from d_y along that tape
//! ```
//! Remembers `x` and `f`. With one segment per block, a batch costs the memory of one block and of the inputs of the
//! others, and one more forward pass. The second pass does the same operations on the same numbers, and gradients are
//! summed in the same order, so they have the same bits. Source: Chen et al. 2016, "Training Deep Nets with Sublinear
//! Memory Cost".

use tensor::Tensor;

use crate::{Gradients, Op, Tape, Value};

/// `f(x)`: recorded as one operation if the tape recomputes, else operation by operation.
pub fn segment(tape: &Tape, x: &Value, f: impl Fn(&Tape, &Value) -> Value + 'static) -> Value {
    if !tape.recomputes() {
        return f(tape, x);
    }
    let y = f(&Tape::new(), &Value::constant(x.tensor().clone()));
    tape.record(y.tensor().clone(), &[x], || Segment { x: x.clone(), f })
}

struct Segment<F> {
    x: Value,
    f: F,
}

impl<F: Fn(&Tape, &Value) -> Value> Op for Segment<F> {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let tape = Tape::new();
        let x = tape.leaf_of(self.x.clone());
        let y = (self.f)(&tape, &x);
        let mut inner = tape.backward_from(&y, d_y);
        grads.add(self.x.node(), || inner.take(&x));
    }
}
