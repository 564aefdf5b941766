//! The tape itself: nodes in creation order, drained backwards, each dropped as soon as it has been used.
//!
//! # Gradients at some rows
//!
//! Of a batch's embeddings only the soft tokens can learn: the gradient of every other row would be thrown away. So a
//! value says at which rows its gradient is wanted. [`ops::embed`](crate::ops::embed()) is where such rows begin, a
//! row-wise operation hands them on ([`Tape::record_rows`]), and they end where rows are mixed. A gradient may be made
//! with all rows or with the wanted ones only: the one place where gradients are summed, [`Gradients::add`], cuts it. So
//! an operation that knows nothing of this is right, and one that knows has less to remember and less to compute.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tensor::Tensor;
use tensor::ops::sum;

/// A node: which tape, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId {
    tape: u64,
    place: usize,
}

/// A tensor, and its node if a gradient must flow through it.
#[derive(Clone, Debug)]
pub struct Value {
    tensor: Tensor,
    node: Option<NodeId>,
    wanted: Wanted,
}

/// The rows at which a gradient is wanted, ascending and fewer than all; `None` means all.
pub(crate) type Wanted = Option<Arc<[u32]>>;

impl Value {
    /// A constant: nothing upstream of it needs a gradient.
    pub fn constant(tensor: Tensor) -> Value {
        Value { tensor, node: None, wanted: None }
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
        Value { tensor, node: self.node, wanted: self.wanted.clone() }
    }

    /// The same, wanted at every row: what a row-wise operation remembers of it is then all of it.
    pub(crate) fn everywhere(&self) -> Value {
        Value { wanted: None, ..self.clone() }
    }

    /// The rows of this value that a row-wise operation must remember for its backward pass.
    pub fn remembered(&self) -> Tensor {
        match &self.wanted {
            Some(rows) => self.tensor.take_rows(rows),
            None => self.tensor.clone(),
        }
    }

    /// The same rows of numbers that go with this value, one per row.
    pub fn remembered_of(&self, per_row: &Tensor) -> Tensor {
        match &self.wanted {
            Some(rows) => per_row.take_rows(rows),
            None => per_row.clone(),
        }
    }
}

/// Where a row-wise function of `inputs` wants its gradient: where they want theirs, everywhere if they disagree.
fn wanted_by(inputs: &[&Value]) -> Wanted {
    let mut each = inputs.iter().filter(|v| v.node.is_some()).map(|v| v.wanted.as_ref());
    let first = each.next()??;
    each.all(|rows| rows.is_some_and(|rows| Arc::ptr_eq(rows, first))).then(|| first.clone())
}

/// What an operation remembers, and how it goes backward.
pub trait Op {
    /// Given the gradient of the operation's output, adds the gradients of its inputs to `grads`. `d_out` has the rows
    /// of the output that are wanted: all of them after [`Tape::record`].
    fn backward(self: Box<Self>, d_out: Tensor, grads: &mut Gradients);
}

/// Gradients waiting for their node's turn.
#[derive(Debug)]
pub struct Gradients {
    tape: u64,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    wanted: Wanted,
    sum: Option<Tensor>,
}

impl Gradients {
    /// Adds to the gradient of a node; `make` is not called for a constant. It may give all rows or the wanted ones.
    /// Gradients are summed here and in [`Gradients::add_into`] only: a value used many times (a shared prefix) needs
    /// nothing more.
    pub fn add(&mut self, node: Option<NodeId>, make: impl FnOnce() -> Tensor) {
        let Some(node) = node else { return };
        let (slot, mut new) = (self.slot(node), make());
        // the wanted rows are fewer than all, so the number of rows says which of the two it is
        if let Some(rows) = slot.wanted.as_ref().filter(|rows| rows.len() < new.rows()) {
            new = new.take_rows(rows);
        }
        slot.sum = Some(match slot.sum.take() {
            None => new,
            Some(old) => sum(old, new),
        });
    }

    /// As [`Gradients::add`] for an operation that can do the sum itself: `make(Some(before))` gives the sum with what was
    /// there, in its memory. Saves a pass over memory where a residual goes around an operation.
    pub fn add_into(
        &mut self,
        node: Option<NodeId>,
        shape: &[usize],
        make: impl FnOnce(Option<Tensor>) -> Tensor,
    ) {
        let Some(place) = node else { return };
        let there = &mut self.slot(place).sum;
        match there.take_if(|sum| sum.shape() == shape && sum.is_alone()) {
            Some(before) => *there = Some(make(Some(before))),
            None => self.add(node, || make(None)),
        }
    }

    /// The gradient of a node so far, which it no longer has then.
    pub(crate) fn take_sum(&mut self, node: Option<NodeId>) -> Option<Tensor> {
        node.and_then(|node| self.slot(node).sum.take())
    }

    /// Panics for a node of another tape: that would be a gradient of something else.
    fn slot(&mut self, node: NodeId) -> &mut Slot {
        assert_eq!(node.tape, self.tape, "gradients are those of one tape");
        &mut self.slots[node.place]
    }

    /// The gradient of a leaf, zeros when the loss does not depend on it. Panics for a constant.
    pub fn take(&mut self, value: &Value) -> Tensor {
        let node = value.node.expect("a constant has no gradient");
        self.slot(node).sum.take().unwrap_or_else(|| Tensor::build(value.tensor.shape(), |out| out.fill(0.0)))
    }
}

/// Operations in the order they were done.
pub struct Tape {
    id: u64,
    nodes: RefCell<Vec<Node>>,
    recomputes: bool,
    /// Whether values of other tapes are constants here.
    forgets: bool,
    /// Values of other tapes, and what they are here.
    adopted: RefCell<Vec<(Value, Value)>>,
}

struct Node {
    /// `None` marks a leaf.
    op: Option<Box<dyn Op>>,
    wanted: Wanted,
}

impl Default for Tape {
    fn default() -> Tape {
        Tape::new()
    }
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Tape {
        static TAPES: AtomicU64 = AtomicU64::new(0);
        Tape {
            id: TAPES.fetch_add(1, Ordering::Relaxed),
            nodes: RefCell::default(),
            recomputes: false,
            forgets: false,
            adopted: RefCell::default(),
        }
    }

    /// An empty tape that remembers little and computes it again on the way back; see [`ops::segment`].
    ///
    /// [`ops::segment`]: crate::ops::segment()
    pub fn recomputing() -> Tape {
        Tape { recomputes: true, ..Tape::new() }
    }

    /// An empty tape on which nothing is recorded, but which knows what it was asked for ([`Tape::adopted`]).
    pub(crate) fn forgetting() -> Tape {
        Tape { forgets: true, ..Tape::new() }
    }

    /// Whether this tape was made by [`Tape::recomputing`].
    pub fn recomputes(&self) -> bool {
        self.recomputes
    }

    /// A value whose gradient is wanted. Takes the numbers themselves, so a [`tensor::Frozen`] cannot become one.
    pub fn leaf(&self, shape: &[usize], data: impl AsRef<[f32]>) -> Value {
        self.leaf_of(Value::constant(Tensor::build(shape, |out| out.copy_from_slice(data.as_ref()))))
    }

    /// A leaf with the numbers of a tensor, which is not copied. Panics for numbers of a file: those are frozen.
    pub fn parameter(&self, tensor: Tensor) -> Value {
        assert!(!tensor.is_of_a_file(), "a leaf owns its numbers");
        self.leaf_of(Value::constant(tensor))
    }

    /// A value that may be of another tape, as one of this tape: a leaf then, and the same one each time. So a layer can
    /// hold its weights as values, wherever it is computed.
    pub(crate) fn adopt(&self, value: &Value) -> Value {
        let Some(node) = value.node.filter(|node| node.tape != self.id) else { return value.clone() };
        let is_it = |(there, _): &&(Value, Value)| there.node == Some(node);
        if let Some((_, here)) = self.adopted.borrow().iter().find(is_it) {
            return here.clone();
        }
        let constant = || Value::constant(value.tensor.clone());
        let here = if self.forgets { constant() } else { self.leaf_of(value.clone()) };
        self.adopted.borrow_mut().push((value.clone(), here.clone()));
        here
    }

    /// Values of other tapes that were adopted, in order, and what they are here.
    pub(crate) fn adopted(&self) -> Vec<(Value, Value)> {
        self.adopted.borrow().clone()
    }

    /// A leaf with the numbers of a value, wanted where that is.
    pub(crate) fn leaf_of(&self, value: Value) -> Value {
        let node = self.push(Node { op: None, wanted: value.wanted.clone() });
        Value { node: Some(node), ..value }
    }

    /// The result of an operation: recorded when one of `inputs` needs a gradient, else a constant and `op` is never
    /// made.
    pub fn record<O: Op + 'static>(&self, out: Tensor, inputs: &[&Value], op: impl FnOnce() -> O) -> Value {
        self.record_at(out, None, inputs, op)
    }

    /// The result of an operation of which row `i` depends on row `i` of the inputs alone: its gradient is wanted where
    /// theirs is, and what it keeps of them is [`Value::remembered`].
    pub fn record_rows<O: Op + 'static>(
        &self,
        out: Tensor,
        inputs: &[&Value],
        op: impl FnOnce() -> O,
    ) -> Value {
        self.record_at(out, wanted_by(inputs), inputs, op)
    }

    /// The result of an operation whose gradient is wanted at some rows.
    pub(crate) fn record_at<O: Op + 'static>(
        &self,
        tensor: Tensor,
        wanted: Wanted,
        inputs: &[&Value],
        op: impl FnOnce() -> O,
    ) -> Value {
        if inputs.iter().all(|v| v.node.is_none()) {
            return Value::constant(tensor);
        }
        let node = self.push(Node { op: Some(Box::new(op())), wanted: wanted.clone() });
        Value { tensor, node: Some(node), wanted }
    }

    fn push(&self, node: Node) -> NodeId {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(node);
        NodeId { tape: self.id, place: nodes.len() - 1 }
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
        self.backward_from(loss, Tensor::build(loss.tensor.shape(), |out| out.fill(1.0)))
    }

    /// Goes backward from a value with a given gradient.
    pub(crate) fn backward_from(self, value: &Value, d_value: Tensor) -> Gradients {
        self.backward_on(value, d_value, [])
    }

    /// The same where some leaves have gradients from elsewhere already: sums go on from those, in the order they would
    /// have had on one tape.
    pub(crate) fn backward_on(
        self,
        value: &Value,
        d_value: Tensor,
        started: impl IntoIterator<Item = (NodeId, Tensor)>,
    ) -> Gradients {
        let mut nodes = self.nodes.into_inner();
        let slots = nodes.iter_mut().map(|node| Slot { wanted: node.wanted.take(), sum: None });
        let mut grads = Gradients { tape: self.id, slots: slots.collect() };
        for (node, sum) in started {
            grads.slot(node).sum = Some(sum);
        }
        grads.add(value.node, || d_value);
        while let Some(node) = nodes.pop() {
            let Some(op) = node.op else { continue };
            if let Some(d_out) = grads.slots[nodes.len()].sum.take() {
                op.backward(d_out, &mut grads);
            }
        }
        grads
    }
}
