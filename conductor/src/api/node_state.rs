//! What a node should be doing: declarative, complete, with a revision.

use afs_decisions::{NodeId, VolumeConfig};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{Nguid, Portal, PortalReport};

/// Highest NSID in any subsystem, the same on all nodes for ever: NN and MNAN of
/// `CONFORMANCE 4.3`.
pub const MAX_NSID: u32 = 1024;

/// The model number (MN) that every subsystem shows (`CONFORMANCE M-8`).
pub const MODEL: &str = "Afs";

/// Query of `GET /api/v1/nodes/{name}/state`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StateQuery {
    /// The revision that the node knows. The call waits while the newest revision equals this;
    /// any other, also a lower one, is answered: at once, or within some seconds when it changes
    /// nothing but the number.
    pub after: Option<u64>,
    /// [`NodeState::source`] of what the node knows. Given that, the answer has only what is new. One that was told by another term
    /// is told all of it, within half a minute also when the revision is the same.
    pub source: Option<Uuid>,
    /// Longest wait in seconds, 0 to 60; then the answer is 204 with no body.
    pub wait: Option<u64>,
}

/// Everything that one node should hold and export at one revision.
///
/// A replica that is neither in `volumes` nor in `retired` is to be left alone: absence is never a
/// reason to delete data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeState {
    /// Counts every decision of the cluster.
    pub revision: u64,
    /// The node that this is for.
    pub node: String,
    /// Its number, never used again.
    #[serde(default)]
    #[schema(value_type = u32)]
    pub id: NodeId,
    /// Identity of the cluster.
    pub cluster: Uuid,
    /// The conductor's term in which this was told.
    #[serde(default)]
    pub source: Uuid,
    /// Replicas that the node should hold.
    pub volumes: Vec<VolumeAssignment>,
    /// Replicas that the node should delete, with their data, and name in `NodeReport::deleted`.
    pub retired: Vec<Uuid>,
    /// Subsystems that the node should export.
    pub subsystems: Vec<SubsystemState>,
    /// Listeners of all nodes, also of those that are down (`CONFORMANCE D-10`, `D-11`).
    pub portals: Vec<Portal>,
    /// What is decided about the volumes that the node is to lead. It has to claim each one before
    /// it does. Epochs may have moved on since; what a claim answers is newer.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub leads: Vec<VolumeConfig>,
    /// All nodes of the cluster, this one too.
    #[serde(default)]
    pub peers: Vec<Peer>,
}

/// What is new in a [`NodeState`]: a field that is missing is as it was. A node that says nothing of what it knows is told all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateNews {
    /// As there.
    pub revision: u64,
    /// As there.
    pub node: String,
    /// As there.
    #[serde(default)]
    #[schema(value_type = u32)]
    pub id: NodeId,
    /// As there.
    pub cluster: Uuid,
    /// As there.
    #[serde(default)]
    pub source: Uuid,
    /// As there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<VolumeAssignment>>,
    /// As there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Vec<Uuid>>,
    /// All of them, in order; of some maybe only that they did not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subsystems: Option<Vec<SubsystemNews>>,
    /// As there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portals: Option<Vec<Portal>>,
    /// As there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub leads: Option<Vec<VolumeConfig>>,
    /// As there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<Peer>>,
}

/// A subsystem in [`StateNews`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SubsystemNews {
    /// It is new, or something of it is.
    Whole(SubsystemState),
    /// It is as it was.
    Unchanged {
        /// Its NQN.
        unchanged: String,
    },
}

impl StateNews {
    /// The state that comes of this and what was known before; nothing if something is missing that was not known.
    pub fn after(self, before: Option<&NodeState>) -> Option<NodeState> {
        let before = before.filter(|before| before.source == self.source);
        let subsystem = |news| match news {
            SubsystemNews::Whole(subsystem) => Some(subsystem),
            SubsystemNews::Unchanged { unchanged } => {
                let mut known = before?.subsystems.iter();
                known.find(|known| known.nqn == unchanged).cloned()
            }
        };
        Some(NodeState {
            revision: self.revision,
            node: self.node,
            id: self.id,
            cluster: self.cluster,
            source: self.source,
            volumes: self.volumes.or_else(|| Some(before?.volumes.clone()))?,
            retired: self.retired.or_else(|| Some(before?.retired.clone()))?,
            subsystems: match self.subsystems {
                Some(all) => all.into_iter().map(subsystem).collect::<Option<_>>()?,
                None => before?.subsystems.clone(),
            },
            portals: self.portals.or_else(|| Some(before?.portals.clone()))?,
            leads: self.leads.or_else(|| Some(before?.leads.clone()))?,
            peers: self.peers.or_else(|| Some(before?.peers.clone()))?,
        })
    }
}

/// A node as others reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its number.
    #[schema(value_type = u32)]
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where it listens for other nodes.
    pub portals: Vec<PortalReport>,
}

/// One replica on one disk of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeAssignment {
    /// The volume.
    pub volume: Uuid,
    /// The replica to make or keep.
    pub replica: Uuid,
    /// The disk to hold it.
    pub disk: Uuid,
    /// Size of the replica, which is that of its shard: a multiple of 4096; it only grows.
    pub size_bytes: u64,
    /// The volume's name, for logs and metrics only.
    pub name: String,
    /// The shard that this is a replica of.
    #[serde(default)]
    pub shard: u32,
    /// Whether this replica is the whole volume: the only one of the only shard.
    #[serde(default = "yes")]
    pub whole: bool,
}

fn yes() -> bool {
    true
}

/// One subsystem as every node exports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubsystemState {
    /// The subsystem's NQN.
    pub nqn: String,
    /// Serial number (SN), at most 20 ASCII characters.
    pub serial: String,
    /// Model number (MN), at most 40 ASCII characters.
    pub model: String,
    /// First and last controller id that this node may give out (`CONFORMANCE F-5`).
    pub controller_ids: (u16, u16),
    /// Whether any host may connect.
    pub allow_any_host: bool,
    /// NQNs of the hosts that may connect.
    pub hosts: Vec<String>,
    /// Namespaces in ascending order of NSID.
    pub namespaces: Vec<NamespaceState>,
    /// NN and MNAN: always [`MAX_NSID`].
    pub max_nsid: u32,
}

/// One namespace as every node exports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamespaceState {
    /// The namespace id, 1 to [`MAX_NSID`].
    pub nsid: u32,
    /// The volume behind it.
    pub volume: Uuid,
    /// NGUID, for ever.
    #[schema(value_type = String, example = "6ba7b8109dad11d180b400c04fd430c8")]
    pub nguid: Nguid,
    /// UUID, for ever.
    pub uuid: Uuid,
    /// Size: a multiple of 4096.
    pub size_bytes: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// The node that leads the volume: its paths are optimized, and others forward to it.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    pub leader: Option<NodeId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subsystem(nqn: &str, max_nsid: u32) -> SubsystemState {
        SubsystemState {
            nqn: nqn.to_owned(),
            serial: String::new(),
            model: MODEL.to_owned(),
            controller_ids: (1, 2),
            allow_any_host: true,
            hosts: Vec::new(),
            namespaces: Vec::new(),
            max_nsid,
        }
    }

    #[test]
    fn subsystem_that_did_not_change_is_named_and_one_that_is_not_named_is_gone() {
        let subsystems = ["a", "b", "c"].map(|nqn| subsystem(nqn, 1)).to_vec();
        let before = NodeState { revision: 3, subsystems, ..NodeState::default() };
        let unchanged = |nqn: &str| SubsystemNews::Unchanged { unchanged: nqn.to_owned() };
        let news = |subsystems: Vec<SubsystemNews>| StateNews {
            revision: 4,
            subsystems: Some(subsystems),
            ..StateNews::default()
        };
        let some = news(vec![unchanged("a"), SubsystemNews::Whole(subsystem("c", 2))]);
        let text = serde_json::to_string(&some);
        let read: Option<StateNews> = text.ok().and_then(|it| serde_json::from_str(&it).ok());
        assert_eq!(read.as_ref(), Some(&some));
        let expected = vec![subsystem("a", 1), subsystem("c", 2)];
        let expected = NodeState { revision: 4, subsystems: expected, ..before.clone() };
        assert_eq!(some.clone().after(Some(&before)), Some(expected));

        assert_eq!(some.clone().after(None), None);
        assert_eq!(news(vec![unchanged("d")]).after(Some(&before)), None);
        let other = NodeState { source: Uuid::from_u128(1), ..before };
        assert_eq!(some.after(Some(&other)), None, "another one's word is not to be added to");
    }
}
