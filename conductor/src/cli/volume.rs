//! `conductor volume ...`

use conductor::api::{
    CreateVolume, ForceReplica, LeadVolume, Replica, ResizeVolume, Resync, SetMinInSync, Volume,
    VolumeChanged,
};
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
        VolumeCommand::Create { name, size, disk, replicas, min_in_sync, shard_size } => {
            let request = CreateVolume {
                name,
                size_bytes: size,
                disk,
                replicas,
                min_in_sync,
                shard_bytes: shard_size,
            };
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
        VolumeCommand::Lead { name, on } => {
            let reply =
                client.post(&["volumes", &name, "leader"], &LeadVolume { node: on }).await?;
            let done = |done: &VolumeChanged| leader_sentence(done.volume.as_ref());
            outcome(printer.answer(&reply, done)?.outcome)
        }
        VolumeCommand::MinInSync { name, min_in_sync } => {
            let request = SetMinInSync { min_in_sync };
            let reply = client.post(&["volumes", &name, "min-in-sync"], &request).await?;
            let done = |done: &VolumeChanged| sentence(done.volume.as_ref(), "changed");
            outcome(printer.answer(&reply, done)?.outcome)
        }
        VolumeCommand::Force { name, replica, data_may_be_lost: _ } => {
            let reply =
                client.post(&["volumes", &name, "force"], &ForceReplica { replica }).await?;
            let done = |done: &VolumeChanged| sentence(done.volume.as_ref(), "forced");
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

fn leader_sentence(volume: Option<&Volume>) -> String {
    let Some(volume) = volume else { return "the volume is gone again".to_owned() };
    let leader = volume.leader.as_deref().unwrap_or("nobody");
    let how = if volume.claimed { "leads" } else { "is to lead" };
    format!("node {leader} {how} volume {}", volume.name)
}

fn list(volumes: &[Volume]) -> String {
    let rows = volumes.iter().map(|volume| {
        [
            volume.name.clone(),
            human(volume.size_bytes),
            or_dash(volume.allocated_bytes, human),
            word(volume.state),
            replicas(volume),
            volume.leader.clone().unwrap_or_else(|| "-".to_owned()),
            or_dash(volume.export.as_ref(), |export| {
                format!("{} nsid {}", export.nqn, export.nsid)
            }),
        ]
    });
    table(
        ["NAME", "SIZE", "USED", "STATE", "IN SYNC", "LEADER", "EXPORTED AS"],
        rows,
        "no volumes; make one: conductor volume create NAME --size 10G",
    )
}

/// In-sync replicas of the worst shard, of how many.
fn replicas(volume: &Volume) -> String {
    let shards = volume.replicas.chunk_by(|a, b| a.shard == b.shard);
    let in_sync = |shard: &[Replica]| shard.iter().filter(|replica| replica.in_sync).count();
    let worst = shards.map(in_sync).min().unwrap_or(0);
    format!("{worst} of {}", volume.copies)
}

fn show(volume: &Volume) -> String {
    let leader = volume.leader.as_deref().unwrap_or("nobody");
    let claimed = if volume.claimed { "" } else { " (has not claimed it yet)" };
    let top = facts([
        ("name", volume.name.clone()),
        ("uuid", volume.uuid.to_string()),
        ("nguid", volume.nguid.to_string()),
        ("size", format!("{} ({} bytes)", human(volume.size_bytes), volume.size_bytes)),
        ("used", or_dash(volume.allocated_bytes, human)),
        ("state", word(volume.state)),
        ("leader", format!("{leader}{claimed}")),
        ("epoch", volume.epoch.to_string()),
        (
            "replicas",
            format!(
                "{}; writes wait with fewer than {} in sync",
                volume.copies, volume.min_in_sync
            ),
        ),
        ("shards", format!("{} of {}", volume.shards, human(volume.shard_bytes))),
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
            replica.shard.to_string(),
            replica.uuid.to_string(),
            replica.node.clone(),
            replica.disk.to_string(),
            if replica.in_sync { "yes" } else { "NO" }.to_owned(),
            or_dash(replica.state, word),
            or_dash(replica.resync, resync),
            replica.error.clone().unwrap_or_default(),
        ]
    });
    let header = ["SHARD", "REPLICA", "NODE", "DISK", "IN SYNC", "STATE", "FILLED", "ERROR"];
    format!("{top}\n{}", table(header, rows, "no replicas"))
}

fn resync(resync: Resync) -> String {
    let Resync { total_bytes, left_bytes, left_seconds } = resync;
    let done = human(total_bytes.saturating_sub(left_bytes));
    let left = left_seconds.map_or_else(String::new, |seconds| format!(", {seconds} s left"));
    format!("{done} of {}{left}", human(total_bytes))
}
