//! `conductor namespace ...`

use conductor::api::{AddNamespace, Namespace, NamespaceChanged, Volume};
use conductor::refusal::{Kind, Refusal};
use conductor::size::human;

use super::args::{NamespaceCommand, WhichNamespace};
use super::client::Client;
use super::failure::Failure;
use super::output::{Printer, outcome, table};

pub(super) async fn run(
    client: &Client,
    printer: &Printer,
    command: NamespaceCommand,
) -> Result<(), Failure> {
    match command {
        NamespaceCommand::Add { nqn, volume, nsid, read_only } => {
            let request = AddNamespace { volume: volume.clone(), nsid, read_only };
            let reply = client.post(&["subsystems", &nqn, "namespaces"], &request).await?;
            let done = |done: &NamespaceChanged| match &done.namespace {
                Some(namespace) => {
                    format!("volume {volume} is namespace {} of {nqn}", namespace.nsid)
                }
                None => "the namespace is gone again".to_owned(),
            };
            outcome(printer.answer(&reply, done)?.outcome)
        }
        NamespaceCommand::Remove { nqn, which } => {
            let nsid = resolve(client, &nqn, which).await?;
            let path = ["subsystems", &nqn, "namespaces", &nsid.to_string()];
            let reply = client.delete(&path, None).await?;
            let done = |_: &NamespaceChanged| format!("namespace {nsid} of {nqn} removed");
            outcome(printer.answer(&reply, done)?.outcome)
        }
        NamespaceCommand::List { nqn } => {
            let reply = client.get(&["subsystems", &nqn, "namespaces"]).await?;
            printer.answer(&reply, |namespaces: &Vec<Namespace>| list(&nqn, namespaces))?;
            Ok(())
        }
    }
}

async fn resolve(client: &Client, nqn: &str, which: WhichNamespace) -> Result<u32, Failure> {
    let volume = match which {
        WhichNamespace { nsid: Some(nsid), .. } => return Ok(nsid),
        WhichNamespace { volume, .. } => volume.unwrap_or_default(),
    };
    let found: Volume = client.get(&["volumes", &volume]).await?.read()?;
    match found.export {
        Some(export) if export.nqn == nqn => Ok(export.nsid),
        _ => {
            let (kind, context) = (Kind::Namespace, Some(nqn.to_owned()));
            let refusal = Refusal::NotFound { kind, name: volume, context, nearest: None };
            Err(Failure::Refused(refusal.body()))
        }
    }
}

pub(super) fn list(nqn: &str, namespaces: &[Namespace]) -> String {
    let rows = namespaces.iter().map(|namespace| {
        [
            namespace.nsid.to_string(),
            namespace.volume_name.clone(),
            human(namespace.size_bytes),
            if namespace.read_only { "read only" } else { "read, write" }.to_owned(),
            namespace.volume.to_string(),
        ]
    });
    let empty = format!("no namespaces; add one: conductor namespace add {nqn} --volume NAME");
    table(["NSID", "VOLUME", "SIZE", "HOSTS MAY", "UUID"], rows, &empty)
}
