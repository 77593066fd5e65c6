//! `conductor subsystem ...`

use conductor::api::{CreateSubsystem, Subsystem, SubsystemChanged};

use super::args::SubsystemCommand;
use super::client::Client;
use super::failure::Failure;
use super::namespace;
use super::output::{Printer, facts, moment, outcome, table};

pub(super) async fn run(
    client: &Client,
    printer: &Printer,
    command: SubsystemCommand,
) -> Result<(), Failure> {
    match command {
        SubsystemCommand::Create { nqn } => {
            let reply = client.post(&["subsystems"], &CreateSubsystem { nqn: nqn.clone() }).await?;
            let done = |_: &SubsystemChanged| format!("subsystem {nqn} made");
            outcome(printer.answer(&reply, done)?.outcome)
        }
        SubsystemCommand::List => {
            let reply = client.get(&["subsystems"]).await?;
            printer.answer(&reply, |subsystems: &Vec<Subsystem>| list(subsystems))?;
            Ok(())
        }
        SubsystemCommand::Show { nqn } => {
            let reply = client.get(&["subsystems", &nqn]).await?;
            printer.answer(&reply, show)?;
            Ok(())
        }
        SubsystemCommand::Delete { nqn } => {
            let before: Subsystem = client.get(&["subsystems", &nqn]).await?.read()?;
            let reply = client.delete(&["subsystems", &nqn], Some(before.version)).await?;
            let done = |_: &SubsystemChanged| format!("subsystem {nqn} deleted");
            outcome(printer.answer(&reply, done)?.outcome)
        }
    }
}

/// Who may connect, in a few words.
pub(super) fn hosts(allow_any: bool, hosts: &[String]) -> String {
    match (allow_any, hosts.len()) {
        (true, _) => "any".to_owned(),
        (false, 0) => "none".to_owned(),
        (false, count) => count.to_string(),
    }
}

fn list(subsystems: &[Subsystem]) -> String {
    let rows = subsystems.iter().map(|subsystem| {
        [
            subsystem.nqn.clone(),
            subsystem.serial.clone(),
            subsystem.namespaces.len().to_string(),
            hosts(subsystem.allow_any_host, &subsystem.hosts),
        ]
    });
    table(
        ["NQN", "SERIAL", "NAMESPACES", "HOSTS"],
        rows,
        "no subsystems; make one: conductor subsystem create nqn.2026-11.com.example:NAME",
    )
}

fn show(subsystem: &Subsystem) -> String {
    let top = facts([
        ("nqn", subsystem.nqn.clone()),
        ("serial", subsystem.serial.clone()),
        ("model", subsystem.model.clone()),
        ("any host", if subsystem.allow_any_host { "yes" } else { "no" }.to_owned()),
        ("hosts", subsystem.hosts.join("\n")),
        ("made", moment(subsystem.created_ms)),
        ("version", subsystem.version.to_string()),
    ]);
    format!("{top}\n{}", namespace::list(&subsystem.nqn, &subsystem.namespaces))
}
