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
use conductor::api::DEFAULT_URL;

use args::{Arguments, Command, Question};
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
    let question = match command {
        Command::Serve(serve) => return serve::run(serve, api),
        Command::Ask(question) => question,
    };
    let api = api.as_deref().unwrap_or(DEFAULT_URL);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::other("cannot start"))?;
    runtime.block_on(async {
        let client = Client::new(api)?;
        client.find().await;
        ask(&client, &Printer::new(output), question).await
    })
}

async fn ask(client: &Client, printer: &Printer, question: Question) -> Result<(), Failure> {
    match question {
        Question::Volume(command) => volume::run(client, printer, command).await,
        Question::Subsystem(command) => subsystem::run(client, printer, command).await,
        Question::Namespace(command) => namespace::run(client, printer, command).await,
        Question::Host(command) => host::run(client, printer, command).await,
        Question::ConnectInfo { nqn, host } => host::connect_info(client, printer, nqn, host).await,
        Question::Node(command) => cluster::nodes(client, printer, command).await,
        Question::Disk(command) => cluster::disks(client, printer, command).await,
        Question::Events { follow, limit } => cluster::events(client, printer, follow, limit).await,
        Question::Status => cluster::status(client, printer).await,
    }
}
