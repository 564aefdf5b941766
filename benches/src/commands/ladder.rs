//! `ladder`: from the triple loop to the kernel.

use std::path::PathBuf;
use std::time::Duration;

use prompt_tuning_benches::ladder::{self, Size};
use prompt_tuning_benches::machine::Machine;

use super::{say, write_between};

/// Measures each step from the triple loop to the kernel, beside the peak of the same instruction set.
#[derive(clap::Args)]
#[command(
    after_help = "Example: cargo run --release -p prompt-tuning-benches -- ladder --readme kernels/README.md"
)]
pub(crate) struct Args {
    /// Rows, inner size and columns of the product.
    #[arg(long, num_args = 3, value_names = ["M", "K", "N"], default_values_t = [768, 768, 2304])]
    size: Vec<usize>,
    /// Rewrite the part between the `ladder` markers of this file.
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Result<(), String> {
    let [m, k, n] = args.size[..] else { return Err("--size needs three numbers".into()) };
    if m * k * n == 0 {
        return Err(format!("--size {m} {k} {n}: each must be at least 1"));
    }
    let size = Size { m, k, n };
    let rungs = ladder::measure(size, Duration::from_millis(300))?;
    let text = format!("{}.\n\n{}", Machine::here().line(), ladder::markdown(size, &rungs));
    say(&text)?;
    match &args.readme {
        Some(path) => write_between(path, "ladder", &text),
        None => Ok(()),
    }
}
