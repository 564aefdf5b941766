//! `cargo run --release -p prompt-tuning-benches -- roofline`, and the other tables.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod commands;

/// Speeds of kernels and training steps beside the limits of this machine.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ceilings of this machine, and every kernel's share of them.
    Roofline(commands::roofline::Args),
    /// Shows measurements again that `roofline --json` or `step --json` wrote.
    Table(commands::table::Args),
    /// From the triple loop to the kernel, a rung at a time.
    Ladder(commands::ladder::Args),
    /// Training steps of a checkpoint: speed, arithmetic and memory.
    Step(commands::step::Args),
    /// Greedy generation from a checkpoint: tokens per second.
    Generate(commands::generate::Args),
    /// Every operation on the GPU: compared with the CPU, then timed; and training steps there.
    Gpu(commands::gpu::Args),
    /// Writes a random checkpoint of a known shape, and rows of token ids.
    Shape(commands::step::ShapeArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Roofline(args) => commands::roofline::run(args),
        Command::Table(args) => commands::table::run(args),
        Command::Ladder(args) => commands::ladder::run(args),
        Command::Step(args) => commands::step::run(args),
        Command::Generate(args) => commands::generate::run(args),
        Command::Gpu(args) => commands::gpu::run(args),
        Command::Shape(args) => commands::step::make_shape(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
