//! The command line: reads it, does it, prints the answer. Errors go to stderr with what to do
//! next; the exit status is 0 done, 1 refused or failed, 2 wrong usage, 3 conductor not reached.

mod args;
mod client;
mod cluster;
mod failure;
mod host;
mod namespace;
mod output;
mod serve;
mod settings;
mod subsystem;
mod volume;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};
use client::Client;
use failure::Failure;
use output::Printer;

/// Runs the whole program.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.exit_code()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { api, output, command } = arguments;
    if let Command::Serve(serve) = command {
        return serve::run(serve);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::other("cannot start"))?;
    runtime.block_on(async {
        let client = Client::new(&api)?;
        ask(&client, &Printer::new(output), command).await
    })
}

async fn ask(client: &Client, printer: &Printer, command: Command) -> Result<(), Failure> {
    match command {
        Command::Volume(command) => volume::run(client, printer, command).await,
        Command::Subsystem(command) => subsystem::run(client, printer, command).await,
        Command::Namespace(command) => namespace::run(client, printer, command).await,
        Command::Host(command) => host::run(client, printer, command).await,
        Command::ConnectInfo { nqn, host } => host::connect_info(client, printer, nqn, host).await,
        Command::Node(command) => cluster::nodes(client, printer, command).await,
        Command::Disk(command) => cluster::disks(client, printer, command).await,
        Command::Events { follow, limit } => cluster::events(client, printer, follow, limit).await,
        Command::Status => cluster::status(client, printer).await,
        Command::Serve(serve) => serve::run(serve),
    }
}
