//! A piece of the model that may be computed twice, so that little has to be remembered.
//!
//! ```text
//! forward    y = f(x, …), recording nothing
//! backward   y = f(x, …) once more on a tape of its own, then d_x, … from d_y along that tape
//! ```
//! Remembers `x` and `f`. With one segment per block, a batch costs the memory of one block and of the inputs of the
//! others, and one more forward pass. The second pass does the same operations on the same numbers, and gradients are
//! summed in the same order, so they have the same bits. Weights that are trained need not be named: the tape of the second
//! pass adopts those it meets. Source: Chen et al. 2016, "Training Deep Nets with Sublinear
//! Memory Cost".

use tensor::Tensor;

use crate::{Gradients, NodeId, Op, Tape, Value};

/// `f(x)`: recorded as one operation if the tape recomputes, else operation by operation.
pub fn segment(tape: &Tape, x: &Value, f: impl Fn(&Tape, &Value) -> Value + 'static) -> Value {
    segment_of(tape, &[x], move |tape, x| f(tape, &x[0]))
}

/// As [`segment`] with several inputs.
pub fn segment_of(tape: &Tape, inputs: &[&Value], f: impl Fn(&Tape, &[Value]) -> Value + 'static) -> Value {
    let values: Vec<Value> = inputs.iter().map(|&x| x.clone()).collect();
    if !tape.recomputes() {
        return f(tape, &values);
    }
    let constants: Vec<Value> = values.iter().map(|x| Value::constant(x.tensor().clone())).collect();
    let scratch = Tape::forgetting();
    let y = f(&scratch, &constants);
    // its layers may hold weights that are trained
    let weights = scratch.adopted();
    let all: Vec<&Value> = inputs.iter().copied().chain(weights.iter().map(|(weight, _)| weight)).collect();
    tape.record(y.tensor().clone(), &all, || Segment { inputs: values, f })
}

struct Segment<F> {
    inputs: Vec<Value>,
    f: F,
}

impl<F: Fn(&Tape, &[Value]) -> Value> Op for Segment<F> {
    fn backward(self: Box<Self>, d_y: Tensor, grads: &mut Gradients) {
        let tape = Tape::new();
        // a constant stays one: nothing is recorded on its way
        let again = |x: &Value| if x.node().is_some() { tape.leaf_of(x.clone()) } else { x.clone() };
        let inputs = self.inputs.iter().map(again).collect::<Vec<Value>>();
        let y = (self.f)(&tape, &inputs);
        let weights = tape.adopted();
        let values = self.inputs.iter().zip(&inputs).chain(weights.iter().map(|(there, here)| (there, here)));
        let pairs = || values.clone().map(|(there, here)| (there.node(), here.node()));
        // what others have added already comes first in the sum, as it does without segments
        let started = pairs().filter_map(|(outer, inner)| Some((inner?, grads.take_sum(outer)?)));
        let started: Vec<(NodeId, Tensor)> = started.collect();
        let mut inner_grads = tape.backward_on(&y, d_y, started);
        for (outer, inner) in pairs() {
            if let Some(sum) = inner_grads.take_sum(inner) {
                grads.add(outer, || sum);
            }
        }
    }
}
