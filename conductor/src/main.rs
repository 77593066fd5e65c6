//! `conductor`: the daemon (`conductor serve`) and the admin CLI, a client of its HTTP API.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
