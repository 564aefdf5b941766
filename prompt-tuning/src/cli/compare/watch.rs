//! Showing how a comparison goes.

use serde_json::Value;

use super::setup::Setup;
use crate::cli::progress::Progress;
use crate::compare::Cell;
use crate::compare::plan::PlannedCell;

/// Who is told about a comparison as it goes.
pub(in crate::cli) trait Watch {
    /// So many cells are to be measured.
    fn begin(&mut self, setup: &Setup, cells: usize);
    /// One of them begins.
    fn cell(&mut self, setup: &Setup, planned: PlannedCell);
    /// A line that a command of the cell has printed.
    fn line(&mut self, line: &Value);
    /// The cell is done, with this accuracy.
    fn measured(&mut self, cell: &Cell, accuracy: f64);
    /// All are done.
    fn finish(&mut self);
}

/// A bar, and a line for each cell above it.
pub(super) struct Bar {
    progress: Progress,
    quiet: bool,
    cells: u64,
    name: String,
}

impl Bar {
    pub(super) fn new(quiet: bool) -> Bar {
        Bar { progress: Progress::new("compare", 0, true), quiet, cells: 0, name: String::new() }
    }

    fn note(&self, line: String) {
        if !self.quiet {
            self.progress.note(line);
        }
    }
}

impl Watch for Bar {
    fn begin(&mut self, setup: &Setup, cells: usize) {
        self.progress = Progress::new("compare", cells as u64, self.quiet);
        let (methods, rows) = (setup.methods.len(), setup.gold.len());
        self.note(format!("{}: {methods} methods, {cells} cells, {rows} rows measured", setup.args.model));
        setup.left_out.iter().for_each(|what| self.note(what.clone()));
    }

    fn cell(&mut self, setup: &Setup, planned: PlannedCell) {
        self.name = setup.title(planned);
        self.progress.at(self.cells, &self.name);
    }

    fn line(&mut self, line: &Value) {
        if let (Some(step), Some(loss)) = (line["step"].as_u64(), line["loss"].as_f64()) {
            self.progress.at(self.cells, format!("{}: step {step}, loss {loss:.3}", self.name));
        }
    }

    fn measured(&mut self, cell: &Cell, accuracy: f64) {
        self.cells += 1;
        let training = cell.training.as_ref().map_or_else(String::new, |training| {
            format!(", {:.2} s a step, {} steps", training.seconds_per_step, training.steps)
        });
        self.note(format!("{}: {:.1} %{training}", self.name, 100.0 * accuracy));
        self.progress.at(self.cells, "");
    }

    fn finish(&mut self) {
        self.progress.finish();
    }
}
