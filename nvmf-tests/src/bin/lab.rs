//! `cargo lab`: the demo, all tests, the benchmarks, and a shell in a Linux guest.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use nvmf_tests::prepare::{Consent, Kernel};
use nvmf_tests::{agent, commands};

/// Afs with stock Linux hosts, in virtual machines on this computer.
#[derive(Parser)]
#[command(name = "lab", bin_name = "cargo lab")]
struct Arguments {
    /// Install missing packages without asking.
    #[arg(long, global = true)]
    yes: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Open a shell in a guest; everything on this machine is there, writes vanish.
    Shell {
        /// Which of Debian's kernels: 6.1 or 6.12.
        #[arg(long, default_value = "6.12")]
        kernel: Kernel,
    },
    /// Runs inside a guest: serve commands from outside.
    #[command(hide = true)]
    Agent,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let consent = if arguments.yes { Consent::Given } else { Consent::Ask };
    match &arguments.command {
        Command::Shell { kernel } => commands::shell::shell(*kernel, consent),
        Command::Agent => agent::serve(),
    }
}
