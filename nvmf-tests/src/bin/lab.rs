//! `cargo lab`: the demo, all tests, the benchmarks, and a shell in a Linux guest.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use nvmf_tests::commands::test::Choice;
use nvmf_tests::prepare::{Consent, Kernel};
use nvmf_tests::{agent, commands, ledger};

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
    /// Show a stock Linux host using an Afs volume, from nothing to verified data, in a few minutes.
    Demo,
    /// Build everything and run the tests, end-to-end tests in guests included.
    Test {
        /// Only tests whose name contains this.
        filter: Option<String>,
        /// Repeat more, and run the tests over RDMA that other runs leave to their like.
        #[arg(long)]
        long: bool,
    },
    /// Measure, side by side with what everybody has.
    Bench {
        /// Which benchmarks; all when none is named.
        names: Vec<String>,
    },
    /// Open a shell in a guest; everything on this machine is there, writes vanish.
    Shell {
        /// Which of Debian's kernels: 6.1 or 6.12.
        #[arg(long, default_value = "6.12")]
        kernel: Kernel,
    },
    /// Runs inside a guest: write stamped blocks and tell which were acknowledged, or read them back.
    #[command(hide = true)]
    Ledger {
        /// `write` or `read`.
        action: LedgerAction,
        /// The block device.
        #[arg(long)]
        device: PathBuf,
        /// How many blocks of 4 KiB from its beginning.
        #[arg(long)]
        blocks: u64,
        /// Writers at once.
        #[arg(long, default_value_t = 4)]
        threads: u64,
        /// Stamps begin after this number.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Runs inside a guest: serve commands from outside.
    #[command(hide = true)]
    Agent,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LedgerAction {
    Write,
    Read,
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
        Command::Demo => commands::demo::demo(consent),
        Command::Test { filter, long } => {
            commands::test::test(Choice { filter: filter.as_deref(), long: *long }, consent)
        }
        Command::Bench { names } => commands::bench::bench(names, consent),
        Command::Shell { kernel } => commands::shell::shell(*kernel, consent),
        Command::Ledger { action: LedgerAction::Write, device, blocks, threads, from } => {
            ledger::write(device, *blocks, *threads, *from)
        }
        Command::Ledger { action: LedgerAction::Read, device, blocks, .. } => {
            ledger::read(device, *blocks)
        }
        Command::Agent => agent::serve(),
    }
}
