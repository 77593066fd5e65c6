//! `conductor node`, `disk`, `events` and `status`

use conductor::api::{Disk, Event, EventList, Node, Severity, Status};
use conductor::size::human;

use super::args::{DiskCommand, NodeCommand};
use super::client::Client;
use super::failure::Failure;
use super::output::{Printer, clean, facts, line, moment, or_dash, table, word};

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
    }
    Ok(())
}

fn list_nodes(nodes: &[Node]) -> String {
    let rows = nodes.iter().map(|node| {
        [
            node.name.clone(),
            word(node.state),
            or_dash(node.last_report_ms, ago),
            or_dash(node.applied_revision, |revision| revision.to_string()),
            portals(node),
            node.disks.len().to_string(),
            node.version.clone().unwrap_or_default(),
        ]
    });
    table(
        ["NODE", "STATE", "REPORTED", "REVISION", "LISTENS ON", "DISKS", "VERSION"],
        rows,
        "no nodes; start `afs serve` or `afs standalone`",
    )
}

fn show_node(node: &Node) -> String {
    let top = facts([
        ("node", node.name.clone()),
        ("state", word(node.state)),
        ("reported", or_dash(node.last_report_ms, ago)),
        ("revision", or_dash(node.applied_revision, |revision| revision.to_string())),
        ("listens on", portals(node)),
        ("http", node.http.clone().unwrap_or_default()),
        ("version", node.version.clone().unwrap_or_default()),
    ]);
    format!("{top}\n{}", list_disks(&node.disks))
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
    DiskCommand::List: DiskCommand,
) -> Result<(), Failure> {
    let reply = client.get(&["disks"]).await?;
    printer.answer(&reply, |disks: &Vec<Disk>| list_disks(disks))?;
    Ok(())
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
            or_dash(disk.state, word),
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
            ("cluster", status.cluster.to_string()),
            ("conductor", status.version.clone()),
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

fn space(status: &Status) -> String {
    format!("{} free of {}", human(status.disk_free_bytes), human(status.disk_total_bytes))
}
