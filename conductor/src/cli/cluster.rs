//! `conductor node`, `disk`, `events` and `status`

use conductor::api::{Disk, Event, EventList, FleetChanged, Node, Severity, Status};
use conductor::size::human;

use super::args::{DiskCommand, NodeCommand};
use super::client::{Client, Reply};
use super::failure::Failure;
use super::output::{Printer, clean, facts, line, moment, or_dash, outcome, table, word};

/// Seconds that one call of `--follow` waits.
const FOLLOW_WAIT: u64 = 30;

pub(super) async fn nodes(
    client: &Client,
    printer: &Printer,
    command: NodeCommand,
) -> Result<(), Failure> {
    match command {
        NodeCommand::List => {
            let reply = client.get(&["nodes"]).await?;
            printer.answer(&reply, |nodes: &Vec<Node>| list_nodes(nodes))?;
        }
        NodeCommand::Show { name } => {
            let reply = client.get(&["nodes", &name]).await?;
            printer.answer(&reply, show_node)?;
        }
        NodeCommand::Drain { name } => {
            let reply = client.post(&["nodes", &name, "drain"], &()).await?;
            return changed(printer, &reply, format!("node {name} is being emptied"));
        }
        NodeCommand::Resume { name } => {
            let reply = client.post(&["nodes", &name, "resume"], &()).await?;
            return changed(printer, &reply, format!("node {name} takes part again"));
        }
        NodeCommand::Remove { name } => {
            let reply = client.delete(&["nodes", &name], None).await?;
            return changed(printer, &reply, format!("node {name} left the cluster"));
        }
    }
    Ok(())
}

fn changed(printer: &Printer, reply: &Reply, sentence: String) -> Result<(), Failure> {
    outcome(printer.answer(reply, |_: &FleetChanged| sentence)?.outcome)
}

fn list_nodes(nodes: &[Node]) -> String {
    let rows = nodes.iter().map(|node| {
        [
            node.name.clone(),
            state(node),
            or_dash(node.last_report_ms, ago),
            or_dash(node.applied_revision, |revision| revision.to_string()),
            portals(node),
            node.disks.len().to_string(),
            node.replicas.to_string(),
            node.leads.to_string(),
            node.version.clone().unwrap_or_default(),
        ]
    });
    table(
        [
            "NODE",
            "STATE",
            "REPORTED",
            "REVISION",
            "LISTENS ON",
            "DISKS",
            "REPLICAS",
            "LEADS",
            "VERSION",
        ],
        rows,
        "no nodes; start `afs serve` or `afs standalone`",
    )
}

fn show_node(node: &Node) -> String {
    let top = facts([
        ("node", node.name.clone()),
        ("number", node.id.to_string()),
        ("rack", node.rack.clone().unwrap_or_else(|| "-".to_owned())),
        ("state", state(node)),
        ("replicas", node.replicas.to_string()),
        ("leads", format!("{} volume(s)", node.leads)),
        ("cannot reach", node.unreachable.join(", ")),
        ("reported", or_dash(node.last_report_ms, ago)),
        ("revision", or_dash(node.applied_revision, |revision| revision.to_string())),
        ("listens on", portals(node)),
        ("http", node.http.clone().unwrap_or_default()),
        ("version", node.version.clone().unwrap_or_default()),
    ]);
    format!("{top}\n{}", list_disks(&node.disks))
}

fn state(node: &Node) -> String {
    let draining = if node.draining { ", draining" } else { "" };
    format!("{}{draining}", word(node.state))
}

fn portals(node: &Node) -> String {
    let portals = node.portals.iter().map(|portal| {
        let address = match portal.address.contains(':') {
            true => format!("[{}]", portal.address),
            false => portal.address.clone(),
        };
        format!("{}://{address}:{}", portal.transport, portal.service)
    });
    portals.collect::<Vec<_>>().join("\n")
}

fn ago(ms: u64) -> String {
    format!("{}.{} s ago", ms / 1000, ms % 1000 / 100)
}

pub(super) async fn disks(
    client: &Client,
    printer: &Printer,
    command: DiskCommand,
) -> Result<(), Failure> {
    match command {
        DiskCommand::List => {
            let reply = client.get(&["disks"]).await?;
            printer.answer(&reply, |disks: &Vec<Disk>| list_disks(disks))?;
        }
        DiskCommand::Show { disk } => {
            let reply = client.get(&["disks", &disk]).await?;
            printer.answer(&reply, show_disk)?;
        }
        DiskCommand::Retire { disk } => {
            let reply = client.post(&["disks", &disk, "retire"], &()).await?;
            return changed(printer, &reply, format!("disk {disk} is being emptied"));
        }
        DiskCommand::Restore { disk } => {
            let reply = client.post(&["disks", &disk, "restore"], &()).await?;
            return changed(printer, &reply, format!("disk {disk} is used again"));
        }
    }
    Ok(())
}

fn show_disk(disk: &Disk) -> String {
    facts([
        ("disk", disk.uuid.to_string()),
        ("node", disk.node.clone()),
        ("path", disk.path.clone()),
        ("kind", word(disk.kind)),
        ("size", human(disk.total_bytes)),
        ("free", or_dash(disk.free_bytes, human)),
        ("promised", human(disk.provisioned_bytes)),
        ("replicas", disk.replicas.to_string()),
        ("state", disk_state(disk)),
        ("error", disk.error.clone().unwrap_or_default()),
    ])
}

fn disk_state(disk: &Disk) -> String {
    let state = or_dash(disk.state, word);
    match (disk.retired, disk.replicas) {
        (false, _) => state,
        (true, 0) => format!("{state}, empty: it may be taken out"),
        (true, _) => format!("{state}, being emptied"),
    }
}

fn list_disks(disks: &[Disk]) -> String {
    let rows = disks.iter().map(|disk| {
        [
            disk.uuid.to_string(),
            disk.node.clone(),
            disk.path.clone(),
            word(disk.kind),
            human(disk.total_bytes),
            or_dash(disk.free_bytes, human),
            human(disk.provisioned_bytes),
            disk_state(disk),
            disk.error.clone().unwrap_or_default(),
        ]
    });
    table(
        ["DISK", "NODE", "PATH", "KIND", "SIZE", "FREE", "PROMISED", "STATE", "ERROR"],
        rows,
        "no disks; start a node with --disk FILE:SIZE or --disk /dev/X",
    )
}

pub(super) async fn events(
    client: &Client,
    printer: &Printer,
    follow: bool,
    limit: u32,
) -> Result<(), Failure> {
    let query = [("limit", limit.to_string())];
    let reply = client.get_query(&["events"], &query).await?;
    if !follow {
        printer.answer(&reply, |list: &EventList| table_of_events(&list.events))?;
        return Ok(());
    }
    let mut list: EventList = reply.read()?;
    let mut after = list.last_id;
    loop {
        for event in &list.events {
            line(&one_line(printer, event))?;
            after = event.id.max(after);
        }
        let query = [("after", after.to_string()), ("wait", FOLLOW_WAIT.to_string())];
        list = client.get_query(&["events"], &query).await?.read()?;
    }
}

fn table_of_events(events: &[Event]) -> String {
    let rows = events
        .iter()
        .map(|event| [event.id.to_string(), moment(event.at_ms), event.kind.clone(), mark(event)]);
    table(["ID", "WHEN", "WHAT", "MESSAGE"], rows, "no events")
}

fn mark(event: &Event) -> String {
    match event.severity {
        Severity::Info => event.message.clone(),
        Severity::Warning => format!("WARNING: {}", event.message),
    }
}

fn one_line(printer: &Printer, event: &Event) -> String {
    if printer.is_json() {
        return serde_json::to_string(event).unwrap_or_default();
    }
    format!("{} {} {}", moment(event.at_ms), event.kind, clean(&mark(event)))
}

pub(super) async fn status(client: &Client, printer: &Printer) -> Result<(), Failure> {
    let reply = client.get(&["status"]).await?;
    printer.answer(&reply, |status: &Status| {
        let problems = status.problems.join("\n");
        facts([
            ("data", data(status)),
            ("cluster", status.cluster.to_string()),
            ("version", status.version.clone()),
            ("conductors", conductors(status)),
            ("healthy", if status.healthy { "yes" } else { "NO" }.to_owned()),
            ("problems", if problems.is_empty() { "none".to_owned() } else { problems }),
            ("nodes", format!("{} of {} up", status.nodes_up, status.nodes)),
            ("disks", status.disks.to_string()),
            ("disk space", space(status)),
            ("volumes", format!("{}, {} in all", status.volumes, human(status.volume_bytes))),
            ("subsystems", status.subsystems.to_string()),
            ("namespaces", status.namespaces.to_string()),
            ("revision", status.revision.to_string()),
        ])
    })?;
    Ok(())
}

/// Is my data safe now; if not, why, and until when.
fn data(status: &Status) -> String {
    let mut lines = match status.data_safe {
        true => vec!["safe: every volume has all its replicas in sync".to_owned()],
        false => status.data.clone(),
    };
    if status.volumes_alone > 0 {
        let alone = status.volumes_alone;
        lines.push(format!("{alone} volume(s) have one replica: a lost disk loses them"));
    }
    lines.join("\n")
}

fn conductors(status: &Status) -> String {
    let lines = status.conductors.iter().map(|conductor| {
        format!("{} on {}: {}", conductor.api, conductor.host, word(conductor.state))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn space(status: &Status) -> String {
    format!("{} free of {}", human(status.disk_free_bytes), human(status.disk_total_bytes))
}
