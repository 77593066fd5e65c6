//! The few lines that a person sees when the node is up, ending with what to type next.

use std::fmt;
use std::net::SocketAddr;

use conductor::api::{DEFAULT_URL, DiskKind, DiskReport, DiskState};
use conductor::size::human;

use crate::listeners::PortalStatus;

/// What is up.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The node's name.
    pub node: String,
    /// Where hosts connect, and whether they can.
    pub portals: Vec<PortalStatus>,
    /// Where other nodes connect, and whether they can.
    pub peers: Vec<PortalStatus>,
    /// The node's HTTP server.
    pub http: SocketAddr,
    /// Its disks.
    pub disks: Vec<DiskReport>,
    /// How many volumes it has.
    pub volumes: usize,
    /// The conductor in the same process, if there is one.
    pub api: Option<SocketAddr>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "afs {} is up as node `{}`", env!("CARGO_PKG_VERSION"), self.node)?;
        for (who, portals) in [("hosts", &self.portals), ("peers", &self.peers)] {
            for PortalStatus { portal, state } in portals {
                match state.problem() {
                    None => line(f, who, format_args!("{portal}"))?,
                    Some(problem) => line(f, who, format_args!("{portal} NOT YET: {problem}"))?,
                }
            }
        }
        if let Some(api) = self.api {
            line(f, "API", format_args!("http://{api}"))?;
        }
        line(f, "metrics", format_args!("http://{}/metrics", self.http))?;
        for disk in &self.disks {
            line(f, "disk", format_args!("{} ({})", disk.path, describe(disk)))?;
        }
        line(f, "volumes", format_args!("{}", self.volumes))?;
        self.next(f)
    }
}

impl Summary {
    fn next(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(api) = self.api else { return Ok(()) };
        let url = format!("http://{api}");
        let command = if url == DEFAULT_URL {
            "conductor".to_owned()
        } else {
            format!("conductor --api {url}")
        };
        let next = if self.volumes == 0 { "volume create NAME --size 10G" } else { "volume list" };
        writeln!(f, "\nNext: {command} {next}")
    }
}

fn line(f: &mut fmt::Formatter<'_>, what: &str, value: fmt::Arguments<'_>) -> fmt::Result {
    writeln!(f, "  {what:<8} {value}")
}

fn describe(disk: &DiskReport) -> String {
    match (disk.state, disk.kind) {
        (DiskState::Failed, _) => {
            format!("FAILED: {}", disk.error.as_deref().unwrap_or("see the log"))
        }
        (DiskState::Starting, _) => "starting".to_owned(),
        (DiskState::Online, DiskKind::Null) => "keeps nothing".to_owned(),
        (DiskState::Online, DiskKind::Store) => {
            format!("{} of {} free", human(disk.free_bytes), human(disk.total_bytes))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::listeners::State;
    use crate::portal::{Portal, Transport};

    fn portal(transport: Transport, state: State) -> PortalStatus {
        let address = "192.0.2.1:4420".parse().unwrap();
        PortalStatus { portal: Portal { transport, address }, state }
    }

    fn summary(api: Option<&str>, volumes: usize) -> Summary {
        let disk = |state, error: Option<&str>| DiskReport {
            uuid: Uuid::nil(),
            kind: DiskKind::Store,
            path: "/d".to_owned(),
            total_bytes: 10 << 30,
            free_bytes: 5 << 30,
            state,
            error: error.map(str::to_owned),
        };
        Summary {
            node: "n1".to_owned(),
            portals: vec![
                portal(Transport::Tcp, State::Listening),
                portal(Transport::Rdma, State::Unavailable("no such library".to_owned())),
            ],
            peers: vec![portal(Transport::Rdma, State::Waiting("no device".to_owned()))],
            http: "127.0.0.1:49181".parse().unwrap(),
            disks: vec![disk(DiskState::Online, None), disk(DiskState::Failed, Some("cut short"))],
            volumes,
            api: api.map(|api| api.parse().unwrap()),
        }
    }

    #[test]
    fn a_person_sees_addresses_disks_and_what_to_type_next() {
        let text = summary(Some("127.0.0.1:49180"), 0).to_string();
        for part in [
            "tcp://192.0.2.1:4420\n",
            "hosts    rdma://192.0.2.1:4420 NOT YET: no such library\n",
            "peers    rdma://192.0.2.1:4420 NOT YET: no device\n",
            "http://127.0.0.1:49181/metrics",
            "5G of 10G free",
            "FAILED: cut short",
            "Next: conductor volume create",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let other = summary(Some("127.0.0.1:7"), 2).to_string();
        assert!(other.contains("Next: conductor --api http://127.0.0.1:7 volume list"), "{other}");
        assert!(!summary(None, 0).to_string().contains("Next"));
    }
}
