//! The command `prompt-tuning`.

use std::process::ExitCode;

fn main() -> ExitCode {
    prompt_tuning::cli::main()
}
