//! `gpu`: every operation on the GPU, compared with the CPU and timed, and training steps there.

use std::path::PathBuf;

use prompt_tuning_benches::gpu::{self, Effort, cases, cases::Size, report::GpuRun};
use prompt_tuning_benches::step::{self, Plan, report::StepRun, shape, shape::Shape};
use tensor::Device;

use super::{read, say, write_between};

/// Compares every operation on the GPU with the CPU, times it by the clock of the GPU, and takes training steps of GPT-2 small
/// and of a Llama of a billion weights, both random. Needs nothing but this program and NVIDIA's driver.
#[derive(clap::Args)]
#[command(after_help = "Example: prompt-tuning-benches gpu --out gpu.json")]
pub(crate) struct Args {
    /// Small problems and a small model, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Only operations whose name or problem has this in it.
    #[arg(long, value_name = "TEXT")]
    kernel: Option<String>,
    /// Training steps of each model; 0 for none.
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Write the JSON object to this file too.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Measures nothing, but shows what an earlier run wrote.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Rewrite the part between the `gpu` markers of this file.
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Result<(), String> {
    let run: GpuRun = match &args.from {
        Some(file) => serde_json::from_str(&read(file)?).map_err(|e| format!("{}: {e}", file.display()))?,
        None => measure(&args)?,
    };
    let json = serde_json::to_string_pretty(&run).map_err(|e| e.to_string())?;
    if let Some(out) = &args.out {
        std::fs::write(out, &json).map_err(|e| format!("{}: {e}", out.display()))?;
    }
    say(&if args.json { json } else { run.markdown() })?;
    args.readme.iter().try_for_each(|path| write_between(path, "gpu", &run.markdown()))?;
    run.check()
}

fn measure(args: &Args) -> Result<GpuRun, String> {
    Device::Cuda.start().map_err(|e| e.to_string())?;
    let (size, effort) = match args.quick {
        true => (Size::Small, Effort { rounds: 2, seconds: 0.0, copy_bytes: 1 << 16 }),
        false => (Size::Full, Effort { rounds: 10, seconds: 0.01, copy_bytes: 1 << 30 }),
    };
    let mut all = cases::all(size);
    if let Some(text) = &args.kernel {
        all.retain(|case| case.name.contains(text) || case.problem.contains(text));
    }
    let n = all.len();
    let mut done = 0;
    let mut run = gpu::run(&all, effort, |measured| {
        done += 1;
        eprintln!(
            "{done}/{n}  {}, {}: {:.1} µs",
            measured.kernel,
            measured.problem,
            measured.seconds[0] * 1e6
        );
    })?;
    if args.steps > 0 {
        // what was measured is not thrown away
        run.failure = steps(args, &mut run.steps).err();
    }
    Ok(run)
}

/// A small model, for `--quick`.
const TINY: Shape = Shape {
    d_model: 32,
    n_layers: 2,
    n_heads: 4,
    n_kv_heads: 4,
    d_ff: 64,
    vocab_size: 100,
    ..shape::GPT2_SMALL
};

/// Takes the steps, and adds them to `runs` as they are done.
fn steps(args: &Args, runs: &mut Vec<StepRun>) -> Result<(), String> {
    let (shapes, batches, prompts): (&[(&str, &Shape)], &[usize], &[usize]) = match args.quick {
        true => (&[("tiny", &TINY)], &[4], &[3]),
        false => (
            &[("GPT-2 small", &shape::GPT2_SMALL), ("Llama 1B, bf16", &shape::LLAMA_1B_BF16)],
            &[32, 256],
            &[20, 100],
        ),
    };
    for (name, shape) in shapes {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        shape::write(shape, folder.path(), 640, 0)?;
        for &batch in batches {
            for &prompt in prompts {
                eprintln!("{name}, batch {batch}, prompt {prompt}");
                let plan = Plan { prompt, batch, steps: args.steps };
                let run = step::run(folder.path(), &folder.path().join("rows.jsonl"), plan, Device::Cuda)?;
                runs.push(StepRun { model: (*name).to_string(), ..run });
            }
        }
    }
    Ok(())
}
