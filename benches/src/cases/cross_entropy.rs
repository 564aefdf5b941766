//! The softmax and its gradient at the rows that are scored.
//!
//! Operations per logit, counted in the kernel: forward 1 for the maximum and 27 for the sum of exponentials, backward
//! 27. Forward reads the logits only.

use kernels::Isa;
use kernels::cross_entropy::{self, Target, reference};

use super::{VOCAB, compare, rows_of};
use crate::case::{Case, Kernel, Kind, Work};
use crate::data;

/// Scored rows of a training step, and as many as leave the caches.
const ROWS: [usize; 2] = [32, 512];

pub(super) fn cases() -> Vec<Case> {
    ROWS.into_iter().flat_map(|rows| [case(rows, false), case(rows, true)]).collect()
}

fn case(rows: usize, backward: bool) -> Case {
    let n = rows * VOCAB;
    Case {
        kernel: if backward { "cross_entropy backward" } else { "log_sum_exp" },
        kind: Kind::CrossEntropy,
        shape: format!("{rows}x{VOCAB}"),
        dtype: "f32",
        tiers: true,
        work: match backward {
            false => Work::f32(28 * n, n, rows),
            true => Work::f32(27 * n, n + rows, n),
        },
        make: Box::new(move || Box::new(CrossEntropy::new(rows, backward))),
    }
}

struct CrossEntropy {
    backward: bool,
    logits: Vec<f32>,
    targets: Vec<Target>,
    lse: Vec<f32>,
    d_logits: Vec<f32>,
}

impl CrossEntropy {
    fn new(rows: usize, backward: bool) -> CrossEntropy {
        let target = |row: usize| Target { row: row as u32, token: (row * 97 % VOCAB) as u32, weight: 0.5 };
        let mut loss = CrossEntropy {
            backward: false,
            logits: data::normals(1, rows * VOCAB, 3.0),
            targets: (0..rows).map(target).collect(),
            lse: vec![f32::NAN; rows],
            d_logits: vec![f32::NAN; if backward { rows * VOCAB } else { 0 }],
        };
        // backward starts from the sums that forward leaves
        loss.run(Isa::best());
        CrossEntropy { backward, ..loss }
    }
}

impl Kernel for CrossEntropy {
    fn run(&mut self, isa: Isa) {
        let CrossEntropy { logits, targets, lse, d_logits, .. } = self;
        match self.backward {
            false => cross_entropy::log_sum_exp(isa, logits, VOCAB, lse),
            true => cross_entropy::backward(isa, logits, VOCAB, lse, targets, d_logits),
        }
    }

    fn outputs(&mut self) -> Vec<&mut [f32]> {
        if self.backward { vec![&mut self.d_logits] } else { vec![&mut self.lse] }
    }

    fn check(&self) -> Result<(), String> {
        for row in data::sample(self.lse.len(), 8) {
            let logits = data::wide(&rows_of(&self.logits, VOCAB, &[row]));
            let lse = reference::log_sum_exp(&logits);
            if !self.backward {
                compare("lse", &[self.lse[row]], &[lse], 1e-6)?;
                continue;
            }
            let Target { token, weight, .. } = self.targets[row];
            let expected = reference::backward(&logits, lse, &[(token as usize, f64::from(weight))]);
            compare("d_logits", &rows_of(&self.d_logits, VOCAB, &[row]), &expected, 2e-6)?;
        }
        Ok(())
    }
}
