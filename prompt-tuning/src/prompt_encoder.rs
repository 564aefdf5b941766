//! What is trained, and how it becomes a prompt.
//!
//! ```text
//! soft        prompt = E                              [n, d_model]              Lester et al. 2021
//! p-tuning    prompt = MLP(E), or MLP(LSTM(E))         [n, d_model]              Liu et al. 2021
//! prefix      prompt = E, or W₂ tanh(W₁ E + b₁) + b₂   [n, 2 · layers · kv width]  Li & Liang 2021
//! ```
//! The networks and the names of their tensors are PEFT's. Only what they make is exported: the prompt. They themselves
//! are in the training state, so that a run can go on. (For encoder-decoders PEFT's LSTM reads twice as many rows, of which
//! the second half is never used; here it reads those that are used.)

use autograd::ops::{self, Direction};
use autograd::{Linear, Tape, Value};
use kernels::activation::Activation;
use kernels::matmul::Layout;
use kernels::threads::on_pool;
use model::Prompt;
use serde::{Deserialize, Serialize};

use crate::parameter::Parameter;
use crate::rng::Rng;
use crate::soft_prompt::{Kind, SoftPrompt};

/// What makes the prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Vectors among the token embeddings.
    #[default]
    Soft,
    /// Vectors made by three linear layers with ReLU between them.
    Mlp {
        /// Width of the layers.
        hidden: usize,
    },
    /// Vectors made by a bidirectional LSTM and two linear layers.
    Lstm {
        /// Width of one direction.
        hidden: usize,
        /// Layers of the LSTM.
        layers: usize,
    },
    /// Keys and values in every layer.
    Prefix,
    /// Keys and values in every layer, made by two linear layers with tanh between them.
    ProjectedPrefix {
        /// Width between the layers.
        hidden: usize,
    },
}

impl Method {
    /// Whether the prompt is keys and values of every layer, not vectors among the token embeddings.
    pub fn is_prefix(self) -> bool {
        matches!(self, Method::Prefix | Method::ProjectedPrefix { .. })
    }

    /// Shapes of the parameters by name: the table first. `width` is the table's, `out` that of the prompt.
    fn shapes(self, n_tokens: usize, width: usize, out: usize) -> Vec<(String, Vec<usize>)> {
        let mut shapes = vec![("embedding.weight".to_string(), vec![n_tokens, width])];
        let mut layer = |name: &str, n_in: usize, n_out: usize| {
            shapes.push((format!("{name}.weight"), vec![n_out, n_in]));
            shapes.push((format!("{name}.bias"), vec![n_out]));
        };
        match self {
            Method::Soft | Method::Prefix => {}
            Method::Mlp { hidden } => {
                layer("mlp_head.0", width, hidden);
                layer("mlp_head.2", hidden, hidden);
                layer("mlp_head.4", hidden, out);
            }
            Method::ProjectedPrefix { hidden } => {
                layer("transform.0", width, hidden);
                layer("transform.2", hidden, out);
            }
            Method::Lstm { hidden, layers } => {
                layer("mlp_head.0", 2 * hidden, 2 * hidden);
                layer("mlp_head.2", 2 * hidden, out);
                for (i, end) in (0..layers).flat_map(|i| [(i, ""), (i, "_reverse")]) {
                    let n_in = if i == 0 { width } else { 2 * hidden };
                    for (kind, shape) in [
                        ("weight_ih", vec![4 * hidden, n_in]),
                        ("weight_hh", vec![4 * hidden, hidden]),
                        ("bias_ih", vec![4 * hidden]),
                        ("bias_hh", vec![4 * hidden]),
                    ] {
                        shapes.push((format!("lstm_head.{kind}_l{i}{end}"), shape));
                    }
                }
            }
        }
        shapes
    }
}

/// The trainable part of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptEncoder {
    method: Method,
    /// In the order of [`Method`]'s layers, the table first.
    pub parameters: Vec<Parameter>,
}

impl From<SoftPrompt> for PromptEncoder {
    /// Trains the vectors themselves.
    fn from(table: SoftPrompt) -> PromptEncoder {
        let width = table.d_model;
        PromptEncoder::new(Method::Soft, table, width, 0)
    }
}

impl PromptEncoder {
    /// Starts from a table; the networks start from random numbers as PyTorch's layers do. `out` is the width of the
    /// prompt; panics when it is not the table's and no network is between them.
    pub fn new(method: Method, table: SoftPrompt, out: usize, seed: u64) -> PromptEncoder {
        let plain = matches!(method, Method::Soft | Method::Prefix);
        assert!(
            !plain || table.d_model == out,
            "a table of width {} is no prompt of width {out}",
            table.d_model
        );
        let mut rng = Rng::new(seed).fork(RNG_STREAM);
        let shapes = method.shapes(table.n_tokens, table.d_model, out);
        let mut parameters: Vec<Parameter> = Vec::with_capacity(shapes.len());
        for (name, shape) in shapes {
            let size = shape.iter().product();
            let values = match &*name {
                "embedding.weight" => table.values.clone(),
                _ => {
                    let bound = (fan_in(&name, &shape, method, &parameters) as f32).sqrt().recip();
                    let uniform = |rng: &mut Rng| (2.0 * rng.uniform() - 1.0) as f32 * bound;
                    (0..size).map(|_| uniform(&mut rng)).collect()
                }
            };
            parameters.push(Parameter::new(name, &shape, values));
        }
        PromptEncoder { method, parameters }
    }

    /// What makes the prompt.
    pub fn method(&self) -> Method {
        self.method
    }

    /// How many numbers are trained.
    pub fn len(&self) -> usize {
        self.parameters.iter().map(|p| p.values().len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the last layer of a projected prefix to zero, so that the first prefix is zero.
    pub fn zero_output(&mut self) {
        let last = self.parameters.iter_mut().filter(|p| p.name.starts_with("transform.2."));
        last.for_each(|p| p.values_mut().fill(0.0));
    }

    /// The prompt, from the parameters as leaves of `tape` or constants in their place.
    pub fn forward(&self, tape: &Tape, parameters: &[Value]) -> Prompt {
        let value = self.value(tape, parameters);
        if self.method.is_prefix() { Prompt::Prefix(value) } else { Prompt::Soft(value) }
    }

    fn value(&self, tape: &Tape, parameters: &[Value]) -> Value {
        let relu = |x: &Value| ops::activation(tape, x, Activation::Relu);
        let layer = |x: &Value, i: usize| {
            let layer = Linear::new(&parameters[i], Layout::OutIn, Some((&parameters[i + 1]).into()));
            ops::linear(tape, x, &layer, None)
        };
        let table = &parameters[0];
        match self.method {
            Method::Soft | Method::Prefix => table.clone(),
            Method::Mlp { .. } => layer(&relu(&layer(&relu(&layer(table, 1)), 3)), 5),
            Method::ProjectedPrefix { .. } => layer(&ops::tanh(tape, &layer(table, 1)), 3),
            Method::Lstm { .. } => layer(&relu(&layer(&lstm(tape, table, &parameters[5..]), 1)), 3),
        }
    }

    /// The prompt's numbers.
    pub fn prompt(&self) -> SoftPrompt {
        let parameters: Vec<Value> = self.parameters.iter().map(Parameter::constant).collect();
        let prompt = on_pool(|| self.value(&Tape::new(), &parameters));
        let prompt = prompt.tensor();
        let kind = if self.method.is_prefix() { Kind::Prefix } else { Kind::Soft };
        SoftPrompt { kind, ..SoftPrompt::new(prompt.rows(), prompt.width(), prompt.f32s().to_vec()) }
    }
}

/// Keeps the numbers drawn here apart from those of tables and orders.
const RNG_STREAM: u64 = 0xe0c0de;

/// What PyTorch's default initialisation of a layer goes by: its inputs, or for an LSTM its width.
fn fan_in(name: &str, shape: &[usize], method: Method, before: &[Parameter]) -> usize {
    match (method, shape) {
        (Method::Lstm { hidden, .. }, _) if name.starts_with("lstm") => hidden,
        (_, [_, n_in]) => *n_in,
        _ => before.last().map_or(1, |weight| weight.shape()[1]),
    }
}

/// Bidirectional, `[n, in]` to `[n, 2 * hidden]`, layer by layer: four parameters each direction.
fn lstm(tape: &Tape, table: &Value, parameters: &[Value]) -> Value {
    let mut x = table.clone();
    for layer in parameters.chunks_exact(8) {
        let one = |p: &[Value], direction| {
            let input = Linear::new(&p[0], Layout::OutIn, Some((&p[2]).into()));
            ops::lstm(tape, &ops::linear(tape, &x, &input, None), &p[1], &p[3], direction)
        };
        let (there, back) = (one(&layer[..4], Direction::Forward), one(&layer[4..], Direction::Backward));
        x = ops::beside(tape, &there, &back);
    }
    x
}
