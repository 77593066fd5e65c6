//! `conductor host ...` and `conductor connect-info`

use conductor::api::{AllowHost, ConnectInfo, HostAccess, Subsystem, SubsystemChanged};

use super::args::HostCommand;
use super::client::Client;
use super::failure::Failure;
use super::output::{Printer, outcome, table};
use super::subsystem::hosts;

pub(super) async fn run(
    client: &Client,
    printer: &Printer,
    command: HostCommand,
) -> Result<(), Failure> {
    match command {
        HostCommand::Allow { nqn, host } => {
            let request = AllowHost { host: host.clone() };
            let reply = client.post(&["subsystems", &nqn, "hosts"], &request).await?;
            let done = |_: &SubsystemChanged| format!("{host} may use {nqn}");
            outcome(printer.answer(&reply, done)?.outcome)
        }
        HostCommand::Deny { nqn, host } => {
            let reply = client.delete(&["subsystems", &nqn, "hosts", &host], None).await?;
            let done = |_: &SubsystemChanged| format!("{host} may no longer use {nqn}");
            outcome(printer.answer(&reply, done)?.outcome)
        }
        HostCommand::List { nqn: Some(nqn) } => {
            let reply = client.get(&["subsystems", &nqn, "hosts"]).await?;
            printer.answer(&reply, |access: &HostAccess| {
                rows([(access.nqn.as_str(), access.allow_any_host, access.hosts.as_slice())])
            })?;
            Ok(())
        }
        HostCommand::List { nqn: None } => {
            let reply = client.get(&["subsystems"]).await?;
            printer.answer(&reply, |subsystems: &Vec<Subsystem>| {
                rows(
                    subsystems
                        .iter()
                        .map(|s| (s.nqn.as_str(), s.allow_any_host, s.hosts.as_slice())),
                )
            })?;
            Ok(())
        }
    }
}

fn rows<'a>(subsystems: impl IntoIterator<Item = (&'a str, bool, &'a [String])>) -> String {
    let rows = subsystems.into_iter().map(|(nqn, any, list)| {
        let mut shown = list.to_vec();
        if any || shown.is_empty() {
            shown.insert(0, hosts(any, list));
        }
        [nqn.to_owned(), shown.join("\n")]
    });
    table(["SUBSYSTEM", "HOSTS"], rows, "no subsystems")
}

/// Notes go to stderr, so that the commands alone can be piped or pasted.
pub(super) async fn connect_info(
    client: &Client,
    printer: &Printer,
    nqn: String,
    host: Option<String>,
) -> Result<(), Failure> {
    let query: Vec<_> =
        [Some(("nqn", nqn)), host.map(|host| ("host", host))].into_iter().flatten().collect();
    let reply = client.get_query(&["connect-info"], &query).await?;
    let info = printer.answer(&reply, |info: &ConnectInfo| info.commands.join("\n"))?;
    if !printer.is_json() {
        for note in &info.notes {
            eprintln!("note: {note}");
        }
    }
    Ok(())
}
