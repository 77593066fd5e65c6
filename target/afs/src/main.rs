//! The `afs` program; see `afs::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    afs::cli::main()
}
