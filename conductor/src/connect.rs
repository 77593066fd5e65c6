//! What a user types on a host to connect to a subsystem: `conductor connect-info`.

use crate::api::{ConnectInfo, Portal, Subsystem};

/// Seconds between attempts to reconnect, and of keep-alive: short enough that a node's return is
/// seen at once, long enough for a busy one (`CONFORMANCE M-44`). The controller is never given
/// up (`CONFORMANCE 6.2`).
const CONNECT_OPTIONS: &str = "--reconnect-delay=2 --keep-alive-tmo=5 --ctrl-loss-tmo=-1";

/// The commands for one host, or for whoever asks.
pub fn connect_info(subsystem: &Subsystem, host: Option<&str>, portals: &[Portal]) -> ConnectInfo {
    let listed = |host| subsystem.hosts.iter().any(|known| known == host);
    let allowed = subsystem.allow_any_host || host.is_some_and(listed);
    ConnectInfo {
        nqn: subsystem.nqn.clone(),
        host: host.map(str::to_owned),
        allowed,
        portals: portals.to_vec(),
        commands: commands(&subsystem.nqn, host, portals),
        notes: notes(subsystem, host, allowed, portals),
    }
}

/// What to type, one transport after the other: each `nvme connect` is one path to the same disks.
fn commands(nqn: &str, host: Option<&str>, portals: &[Portal]) -> Vec<String> {
    let host = host.map(|host| format!(" --hostnqn={}", quoted(host))).unwrap_or_default();
    let of_transport = |transport| {
        let mine: Vec<_> = portals.iter().filter(|portal| portal.transport == transport).collect();
        let load = format!("modprobe nvme-{transport}");
        let discover = mine.first().map(|first| format!("nvme discover {}{host}", address(first)));
        let connects = mine.into_iter().map(|portal| {
            format!("nvme connect {} -n {}{host} {CONNECT_OPTIONS}", address(portal), quoted(nqn))
        });
        [load].into_iter().chain(discover).chain(connects).collect::<Vec<_>>()
    };
    transports(portals).into_iter().flat_map(of_transport).collect()
}

/// The transports of these portals, in the order in which they first appear.
fn transports(portals: &[Portal]) -> Vec<&str> {
    let mut transports: Vec<&str> = Vec::new();
    for portal in portals {
        if !transports.contains(&portal.transport.as_str()) {
            transports.push(&portal.transport);
        }
    }
    transports
}

fn address(portal: &Portal) -> String {
    format!("-t {} -a {} -s {}", portal.transport, portal.address, portal.service)
}

/// For a shell: an NQN may hold characters that mean something to it.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn notes(
    subsystem: &Subsystem,
    host: Option<&str>,
    allowed: bool,
    portals: &[Portal],
) -> Vec<String> {
    let nqn = &subsystem.nqn;
    let mut notes = Vec::new();
    if portals.is_empty() {
        notes.push("no node listens anywhere yet; see `conductor node list`".to_owned());
    }
    if subsystem.namespaces.is_empty() {
        let add = format!("conductor namespace add {nqn} --volume NAME");
        notes.push(format!("the subsystem has no namespace yet, so no disk will appear: {add}"));
    }
    match host {
        Some(host) if !allowed => notes.push(format!(
            "{host} may not use this subsystem yet: conductor host allow {nqn} {host}"
        )),
        None if !allowed && subsystem.hosts.is_empty() => notes.push(format!(
            "no host may use this subsystem yet: conductor host allow {nqn} HOSTNQN \
             (on the host: cat /etc/nvme/hostnqn)"
        )),
        _ => {}
    }
    if transports(portals).len() > 1 {
        notes.push(
            "each `nvme connect` is one path to the same disks; leave out those of a network that \
             the host is not on, and nvme-rdma where it has no RDMA device (`rdma link`)"
                .to_owned(),
        );
    }
    if !portals.is_empty() && portals.iter().all(is_loopback) {
        notes.push("every listener is on a loopback address: only this machine reaches it".into());
    }
    notes
}

fn is_loopback(portal: &Portal) -> bool {
    portal.address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portal(id: u16, address: &str) -> Portal {
        Portal {
            node: "n1".to_owned(),
            portal_id: id,
            transport: "tcp".to_owned(),
            address: address.to_owned(),
            service: "4420".to_owned(),
        }
    }

    fn subsystem(hosts: &[&str]) -> Subsystem {
        Subsystem {
            nqn: "nqn.2026-11.com.example:it's".to_owned(),
            serial: String::new(),
            model: String::new(),
            allow_any_host: false,
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            namespaces: Vec::new(),
            version: 1,
            created_ms: 0,
        }
    }

    #[test]
    fn one_connect_per_portal_with_the_timeouts_of_the_guide() {
        let portals = [portal(1, "192.0.2.1"), portal(2, "2001:db8::1")];
        let info = connect_info(&subsystem(&["h"]), Some("h"), &portals);
        assert!(info.allowed);
        assert_eq!(
            info.commands,
            [
                "modprobe nvme-tcp",
                "nvme discover -t tcp -a 192.0.2.1 -s 4420 --hostnqn=h",
                "nvme connect -t tcp -a 192.0.2.1 -s 4420 -n 'nqn.2026-11.com.example:it'\\''s' \
                 --hostnqn=h --reconnect-delay=2 --keep-alive-tmo=5 --ctrl-loss-tmo=-1",
                "nvme connect -t tcp -a 2001:db8::1 -s 4420 -n 'nqn.2026-11.com.example:it'\\''s' \
                 --hostnqn=h --reconnect-delay=2 --keep-alive-tmo=5 --ctrl-loss-tmo=-1",
            ]
        );
    }

    #[test]
    fn each_transport_has_its_module_its_discovery_and_its_paths() {
        let over =
            |transport: &str, portal: Portal| Portal { transport: transport.to_owned(), ..portal };
        let portals = [
            portal(1, "192.0.2.1"),
            over("rdma", portal(2, "192.0.2.1")),
            portal(3, "192.0.2.2"),
            over("rdma", portal(4, "2001:db8::2")),
        ];
        let info = connect_info(&subsystem(&["h"]), Some("h"), &portals);
        let begins: Vec<String> = info
            .commands
            .iter()
            .map(|line| line.split(' ').take(6).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            begins,
            [
                "modprobe nvme-tcp",
                "nvme discover -t tcp -a 192.0.2.1",
                "nvme connect -t tcp -a 192.0.2.1",
                "nvme connect -t tcp -a 192.0.2.2",
                "modprobe nvme-rdma",
                "nvme discover -t rdma -a 192.0.2.1",
                "nvme connect -t rdma -a 192.0.2.1",
                "nvme connect -t rdma -a 2001:db8::2",
            ]
        );
        assert!(info.notes.join("\n").contains("one path to the same disks"), "{:?}", info.notes);
        let tcp = connect_info(&subsystem(&["h"]), Some("h"), &portals[..1]);
        assert!(!tcp.notes.join("\n").contains("rdma"), "{:?}", tcp.notes);
    }

    #[test]
    fn what_would_keep_a_host_out_is_said() {
        let refused = connect_info(&subsystem(&["h"]), Some("x"), &[portal(1, "127.0.0.1")]);
        assert!(!refused.allowed);
        let notes = refused.notes.join("\n");
        for part in ["host allow", "namespace add", "loopback"] {
            assert!(notes.contains(part), "{part} in {notes}");
        }
        let nowhere = connect_info(&subsystem(&[]), None, &[]);
        assert!(nowhere.commands.is_empty());
        assert!(nowhere.notes.join("\n").contains("no node listens"));
    }
}
