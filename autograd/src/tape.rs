//! The tape itself: nodes in creation order, drained backwards, each dropped as soon as it has been used.

use std::cell::RefCell;

use kernels::{Isa, elementwise};
use tensor::Tensor;

/// Number of a node: its place on the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(usize);

/// A tensor, and its node if a gradient must flow through it.
#[derive(Clone, Debug)]
pub struct Value {
    tensor: Tensor,
    node: Option<NodeId>,
}

impl Value {
    /// A constant: nothing upstream of it needs a gradient.
    pub fn constant(tensor: Tensor) -> Value {
        Value { tensor, node: None }
    }

    /// The numbers.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The node, if a gradient must flow through this value.
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// Another tensor with the same gradient: `self` plus something constant. Adding a constant has the identity as
    /// its backward pass, so it needs no node of its own.
    pub(crate) fn shifted(&self, tensor: Tensor) -> Value {
        assert_eq!(tensor.len(), self.tensor.len(), "a shift keeps the size");
        Value { tensor, node: self.node }
    }
}

/// What an operation remembers, and how it goes backward.
pub trait Op {
    /// Given the gradient of the operation's output, adds the gradients of its inputs to `grads`.
    fn backward(self: Box<Self>, d_out: Tensor, grads: &mut Gradients);
}

/// Gradients waiting for their node's turn.
#[derive(Debug)]
pub struct Gradients {
    slots: Vec<Option<Tensor>>,
}

impl Gradients {
    /// Adds to the gradient of a node; `make` is not called for a constant. Gradients are summed here and in
    /// [`Gradients::add_into`] only: a value used many times (a shared prefix) needs nothing more.
    pub fn add(&mut self, node: Option<NodeId>, make: impl FnOnce() -> Tensor) {
        let Some(NodeId(i)) = node else { return };
        let new = make();
        self.slots[i] = Some(match self.slots[i].take() {
            None => new,
            Some(old) => sum(old, new),
        });
    }

    /// As [`Gradients::add`] for a kernel that can do the sum itself: `write(d, accumulate)` adds to `d`, or overwrites
    /// it when nothing was there. Saves a pass over memory where a residual goes around an operation.
    pub fn add_into(&mut self, node: Option<NodeId>, shape: &[usize], write: impl FnOnce(&mut [f32], bool)) {
        let Some(NodeId(i)) = node else { return };
        if let Some(d) = self.slots[i].as_mut().and_then(Tensor::get_mut) {
            return write(d, true);
        }
        self.add(node, || Tensor::build(shape, |d| write(d, false)));
    }

    /// The gradient of `value`, zeros when the loss does not depend on it. Panics for a constant.
    pub fn take(&mut self, value: &Value) -> Tensor {
        let NodeId(i) = value.node.expect("a constant has no gradient");
        self.slots[i].take().unwrap_or_else(|| Tensor::build(value.tensor.shape(), |out| out.fill(0.0)))
    }
}

/// `a + b`, into the memory of whichever nobody else holds.
fn sum(mut a: Tensor, mut b: Tensor) -> Tensor {
    assert_eq!(a.len(), b.len(), "gradients of one value have one size");
    if let Some(acc) = a.get_mut() {
        elementwise::accumulate(Isa::best(), b.f32s(), acc);
        return a;
    }
    if let Some(acc) = b.get_mut() {
        elementwise::accumulate(Isa::best(), a.f32s(), acc);
        return b;
    }
    Tensor::build(a.shape(), |out| elementwise::add(Isa::best(), a.f32s(), b.f32s(), out))
}

/// Operations in the order they were done.
#[derive(Default)]
pub struct Tape {
    /// `None` marks a leaf.
    nodes: RefCell<Vec<Option<Box<dyn Op>>>>,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Tape {
        Tape::default()
    }

    /// A value whose gradient is wanted. Takes the numbers themselves, so a [`tensor::Frozen`] cannot become one.
    pub fn leaf(&self, shape: &[usize], data: Vec<f32>) -> Value {
        Value { tensor: Tensor::from_vec(shape, data), node: Some(self.push(None)) }
    }

    /// The result of an operation: recorded when one of `inputs` needs a gradient, else a constant and `op` is never
    /// made.
    pub fn record<O: Op + 'static>(&self, out: Tensor, inputs: &[&Value], op: impl FnOnce() -> O) -> Value {
        let wanted = inputs.iter().any(|v| v.node.is_some());
        Value { tensor: out, node: wanted.then(|| self.push(Some(Box::new(op())))) }
    }

    fn push(&self, op: Option<Box<dyn Op>>) -> NodeId {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(op);
        NodeId(nodes.len() - 1)
    }

    /// Number of nodes recorded so far.
    pub fn len(&self) -> usize {
        self.nodes.borrow().len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Goes backward from `loss` (its gradient with respect to itself is one), to the leaves.
    ///
    /// The tape is used up; every node is dropped, and with it what it remembers, right after its turn. A loss that
    /// is a constant gives zero gradients everywhere.
    pub fn backward(self, loss: &Value) -> Gradients {
        let mut nodes = self.nodes.into_inner();
        let mut grads = Gradients { slots: vec![None; nodes.len()] };
        grads.add(loss.node, || Tensor::build(loss.tensor.shape(), |out| out.fill(1.0)));
        while let Some(op) = nodes.pop() {
            let Some(op) = op else { continue };
            if let Some(d_out) = grads.slots[nodes.len()].take() {
                op.backward(d_out, &mut grads);
            }
        }
        grads
    }
}
