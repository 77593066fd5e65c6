//! `conductor volume ...`

use conductor::api::{CreateVolume, ResizeVolume, Volume, VolumeChanged};
use conductor::size::human;

use super::args::VolumeCommand;
use super::client::Client;
use super::failure::Failure;
use super::output::{Printer, facts, moment, or_dash, outcome, table, word};

pub(super) async fn run(
    client: &Client,
    printer: &Printer,
    command: VolumeCommand,
) -> Result<(), Failure> {
    match command {
        VolumeCommand::Create { name, size, disk } => {
            let request = CreateVolume { name, size_bytes: size, disk };
            let reply = client.post(&["volumes"], &request).await?;
            let done = |done: &VolumeChanged| sentence(done.volume.as_ref(), "made");
            outcome(printer.answer(&reply, done)?.outcome)
        }
        VolumeCommand::List => {
            let reply = client.get(&["volumes"]).await?;
            printer.answer(&reply, |volumes: &Vec<Volume>| list(volumes))?;
            Ok(())
        }
        VolumeCommand::Show { name } => {
            let reply = client.get(&["volumes", &name]).await?;
            printer.answer(&reply, show)?;
            Ok(())
        }
        VolumeCommand::Resize { name, size } => {
            let before: Volume = client.get(&["volumes", &name]).await?.read()?;
            let request = ResizeVolume { size_bytes: size, version: Some(before.version) };
            let reply = client.patch(&["volumes", &name], &request).await?;
            let done = |done: &VolumeChanged| sentence(done.volume.as_ref(), "resized");
            outcome(printer.answer(&reply, done)?.outcome)
        }
        VolumeCommand::Delete { name } => {
            let before: Volume = client.get(&["volumes", &name]).await?.read()?;
            let reply = client.delete(&["volumes", &name], Some(before.version)).await?;
            let done = |_: &VolumeChanged| format!("volume {} deleted", before.name);
            outcome(printer.answer(&reply, done)?.outcome)
        }
    }
}

fn sentence(volume: Option<&Volume>, done: &str) -> String {
    let Some(volume) = volume else { return "the volume is gone again".to_owned() };
    let (name, size, state) = (&volume.name, human(volume.size_bytes), word(volume.state));
    format!("volume {name} {done}: {size}, {state}")
}

fn list(volumes: &[Volume]) -> String {
    let rows = volumes.iter().map(|volume| {
        [
            volume.name.clone(),
            human(volume.size_bytes),
            or_dash(volume.allocated_bytes, human),
            word(volume.state),
            volume.replicas.iter().map(|r| r.node.as_str()).collect::<Vec<_>>().join(", "),
            or_dash(volume.export.as_ref(), |export| {
                format!("{} nsid {}", export.nqn, export.nsid)
            }),
        ]
    });
    table(
        ["NAME", "SIZE", "USED", "STATE", "NODE", "EXPORTED AS"],
        rows,
        "no volumes; make one: conductor volume create NAME --size 10G",
    )
}

fn show(volume: &Volume) -> String {
    let top = facts([
        ("name", volume.name.clone()),
        ("uuid", volume.uuid.to_string()),
        ("nguid", volume.nguid.to_string()),
        ("size", format!("{} ({} bytes)", human(volume.size_bytes), volume.size_bytes)),
        ("used", or_dash(volume.allocated_bytes, human)),
        ("state", word(volume.state)),
        (
            "exported as",
            or_dash(volume.export.as_ref(), |export| {
                format!("{} nsid {}", export.nqn, export.nsid)
            }),
        ),
        ("made", moment(volume.created_ms)),
        ("version", volume.version.to_string()),
    ]);
    let rows = volume.replicas.iter().map(|replica| {
        [
            replica.uuid.to_string(),
            replica.node.clone(),
            replica.disk.to_string(),
            or_dash(replica.state, word),
            replica.error.clone().unwrap_or_default(),
        ]
    });
    format!("{top}\n{}", table(["REPLICA", "NODE", "DISK", "STATE", "ERROR"], rows, "no replicas"))
}
