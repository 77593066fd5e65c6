//! The decisions, except elections and places. Each takes what is and returns what is to be.

use uuid::Uuid;

use crate::config::{Member, NodeId, Role, Shard, VolumeConfig};
use crate::denied::Denied;
use crate::elect::{Election, best_leader, needs_election};
use crate::mutant::{Mutant, planted};
use crate::view::{ClusterView, Verdict};

/// Who says that it leads a volume, and in which epoch it believes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Its node.
    pub node: NodeId,
    /// Its process.
    pub process: u64,
    /// The epoch that it serves in.
    pub epoch: u64,
}

/// Where a replica is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its identity, never used before.
    pub replica: Uuid,
    /// Its node.
    pub node: NodeId,
}

/// A volume that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// Its identity, never used before.
    pub volume: Uuid,
    /// Size in blocks.
    pub blocks: u64,
    /// Blocks in each shard but the last.
    pub shard_blocks: u64,
    /// Writes stall with fewer in-sync replicas than this.
    pub min_in_sync: u8,
    /// The replicas of each shard.
    pub shards: Vec<Vec<Place>>,
}

/// The answer to a leader that starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It leads from this epoch on.
    New(VolumeConfig),
    /// This process has claimed already; nothing changes.
    AlreadyYours,
}

/// Makes a volume: epoch 1, every replica in sync (all are empty), a leader near the most
/// replicas, not claimed yet.
pub fn create(new: &NewVolume, view: &ClusterView) -> Result<VolumeConfig, Denied> {
    let shards = new.shards.iter().map(|places| shard_of(places, Role::InSync)).collect();
    let mut config = VolumeConfig {
        volume: new.volume,
        epoch: 1,
        leader: None,
        leader_process: 0,
        reign: 0,
        planned: true,
        min_in_sync: new.min_in_sync,
        blocks: new.blocks,
        shard_blocks: new.shard_blocks,
        shards,
    };
    checked(&config)?;
    config.leader = Some(best_leader(&config, view).ok_or(Denied::NoCandidate)?);
    Ok(config)
}

/// A leader starts (DESIGN 5, rule 3: "every start of a leader takes a new epoch, also on the same
/// node"). Asking twice is fine: the answer may have been lost.
pub fn claim(config: &VolumeConfig, node: NodeId, process: u64) -> Result<Claim, Denied> {
    if config.leader != Some(node) {
        return Err(Denied::NotLeader { node });
    }
    if process == 0 {
        return Err(Denied::OldProcess);
    }
    if config.leader_process == process {
        return Ok(Claim::AlreadyYours);
    }
    let mut next = if planted(Mutant::ClaimKeepsEpoch) { config.clone() } else { next(config)? };
    // Another process on the same node most likely comes after a failure.
    next.planned = config.planned && config.leader_process == 0;
    next.leader_process = process;
    next.reign = next.epoch;
    Ok(Claim::New(next))
}

/// The leader wants to seal again with the same sets, for example after a member lost its list of
/// uncommitted writes (DESIGN 5, rules 3 and 6): a new epoch with which a new reign begins.
///
/// When the answer gets lost, asking again is denied, as the epoch of who asks is old by then; the
/// newest configuration, which goes with the denial, is the answer.
pub fn renew(config: &VolumeConfig, asker: Asker) -> Result<VolumeConfig, Denied> {
    check_asker(config, asker)?;
    let mut next = next(config)?;
    next.planned = false;
    next.reign = next.epoch;
    Ok(next)
}

/// The leader says that an in-sync replica fails or is late (DESIGN 5, rule 2: it is dropped
/// "before the writes it lacks are acknowledged"; rule 13: slow is not dead, but dropped as well).
///
/// Only the present leader is believed, and not when it is the suspect. At least `min_in_sync`
/// in-sync replicas remain (rule 1), so every later in-sync set has one that took part in every
/// acknowledged write.
pub fn drop_member(
    config: &VolumeConfig,
    accuser: Asker,
    shard: u32,
    replica: Uuid,
    view: &ClusterView,
) -> Result<VolumeConfig, Denied> {
    check_asker(config, accuser)?;
    let member = find(config, shard, replica)?;
    if member.role != Role::InSync {
        return Err(Denied::NotInSync { replica });
    }
    if view.judge(accuser.node, member.node) == Verdict::Accuser {
        return Err(Denied::Suspect { accuser: accuser.node, accused: member.node });
    }
    check_min_without(config, shard)?;
    let mut next = with_role(config, shard, replica, Role::OutOfSync)?;
    next.planned = false;
    Ok(next)
}

/// The leader says that a replica has everything (DESIGN 5, rule 8: "when nothing is left, one
/// compare-and-swap admits it").
///
/// Only the leader of the present epoch knows that, so an earlier word of it, delayed, is refused.
pub fn admit(
    config: &VolumeConfig,
    leader: Asker,
    shard: u32,
    replica: Uuid,
) -> Result<VolumeConfig, Denied> {
    check_asker(config, leader)?;
    if find(config, shard, replica)?.role == Role::InSync {
        return Err(Denied::AlreadyInSync { replica });
    }
    with_role(config, shard, replica, Role::InSync)
}

/// A planned change of leader (DESIGN 5, rule 11). The old one drains and gives its leases back
/// when it learns of this; the new one claims. The old one's process must not be believed again.
///
/// A node that is believed cut off is refused: an election would take the volume from it at once.
pub fn move_leader(
    config: &VolumeConfig,
    to: NodeId,
    view: &ClusterView,
) -> Result<VolumeConfig, Denied> {
    if config.leader == Some(to) {
        return Err(Denied::AlreadyLeads { node: to });
    }
    if !view.is_alive(to) {
        return Err(Denied::NotAlive { node: to });
    }
    let mut next = next(config)?;
    depose(&mut next, Some(to));
    next.planned = had_leader(config);
    if needs_election(&next, view) == Some(Election::LeaderCutOff) {
        return Err(Denied::CutOff { node: to });
    }
    Ok(next)
}

/// A further replica, which the leader is to resynchronise (DESIGN 5, rule 11: "add a learner,
/// resync, admit, drop the old one").
pub fn add_member(config: &VolumeConfig, shard: u32, place: Place) -> Result<VolumeConfig, Denied> {
    let mut next = next(config)?;
    let members = &mut shard_mut(&mut next, shard)?.members;
    if !planted(Mutant::AddOnSameNode) && members.iter().any(|member| member.node == place.node) {
        return Err(Denied::NodeTaken { shard, node: place.node });
    }
    if config.members().any(|(_, member)| member.replica == place.replica) {
        return Err(Denied::ReplicaTaken { replica: place.replica });
    }
    members.push(member_at(&place, Role::OutOfSync));
    if !planted(Mutant::AddOnSameNode) {
        checked(&next)?;
    }
    Ok(next)
}

/// Takes a replica out for good (DESIGN 5, rule 11); an in-sync one only when enough others are.
pub fn remove_member(
    config: &VolumeConfig,
    shard: u32,
    replica: Uuid,
) -> Result<VolumeConfig, Denied> {
    if find(config, shard, replica)?.role == Role::InSync {
        check_min_without(config, shard)?;
    }
    let mut next = next(config)?;
    shard_mut(&mut next, shard)?.members.retain(|member| member.replica != replica);
    checked(&next)?;
    Ok(next)
}

/// A disk was carried to another node, and this replica with it; its data is what it was. A leader
/// that went with it has to claim at the new place, another one seals again.
pub fn relocate(config: &VolumeConfig, replica: Uuid, to: NodeId) -> Result<VolumeConfig, Denied> {
    let found = config.members().find(|(_, member)| member.replica == replica);
    let (shard, member) = found.ok_or(Denied::NoSuchReplica { shard: 0, replica })?;
    let from = member.node;
    if shard_of_config(config, shard)?.on_node(to).is_some_and(|it| it.replica != replica) {
        return Err(Denied::NodeTaken { shard, node: to });
    }
    let mut next = next(config)?;
    for member in &mut shard_mut(&mut next, shard)?.members {
        if member.replica == replica {
            member.node = to;
        }
    }
    if config.leader == Some(from) && next.members().all(|(_, member)| member.node != from) {
        depose(&mut next, Some(to));
    } else if next.leader_process != 0 {
        next.reign = next.epoch;
    }
    Ok(next)
}

/// The operator's explicit word (DESIGN 5, rule 7): from now on this replica alone is the in-sync
/// set of its shard.
///
/// An in-sync replica may be named at any time: it has every acknowledged write. One that is out of
/// sync may lack some, **which are lost then**; so it is refused while a node with an in-sync
/// replica of that shard is there. It never stands beside the old set, as two replicas that
/// differ would both be taken for the truth. The leader has to claim and seal again.
pub fn force_in_sync(
    config: &VolumeConfig,
    shard: u32,
    replica: Uuid,
    view: &ClusterView,
) -> Result<VolumeConfig, Denied> {
    if find(config, shard, replica)?.role != Role::InSync {
        let mut in_sync = shard_of_config(config, shard)?.in_sync();
        if let Some(member) = in_sync.find(|member| view.is_alive(member.node)) {
            return Err(Denied::InSyncLives { shard, node: member.node });
        }
    }
    let mut next = next(config)?;
    for member in &mut shard_mut(&mut next, shard)?.members {
        if member.replica == replica {
            member.role = Role::InSync;
        } else if !planted(Mutant::ForceMixes) {
            member.role = Role::OutOfSync;
        }
    }
    let leader = best_leader(&next, view).or(config.leader);
    next.planned = false;
    depose(&mut next, leader);
    Ok(next)
}

/// Another minimum (DESIGN 5, rule 1). It does not change who is in sync.
pub fn set_min_in_sync(config: &VolumeConfig, min_in_sync: u8) -> Result<VolumeConfig, Denied> {
    let mut next = next(config)?;
    next.min_in_sync = min_in_sync;
    checked(&next)?;
    Ok(next)
}

/// Makes a volume larger; `added` are the replicas of its new shards. The leader seals again, as
/// the new replicas have promised it nothing yet.
pub fn grow(
    config: &VolumeConfig,
    blocks: u64,
    added: &[Vec<Place>],
) -> Result<VolumeConfig, Denied> {
    if blocks < config.blocks {
        return Err(Denied::Malformed { reason: "a volume cannot shrink".to_owned() });
    }
    let mut next = next(config)?;
    next.blocks = blocks;
    next.planned = had_leader(config);
    next.shards.extend(added.iter().map(|places| shard_of(places, Role::InSync)));
    if next.leader_process != 0 {
        next.reign = next.epoch;
    }
    checked(&next)?;
    Ok(next)
}

/// The configuration of the next epoch, with nothing else changed yet (invariant 1).
pub(crate) fn next(config: &VolumeConfig) -> Result<VolumeConfig, Denied> {
    let epoch = config.epoch.checked_add(1);
    let epoch = epoch.ok_or_else(|| Denied::Malformed { reason: "no epoch is left".to_owned() })?;
    Ok(VolumeConfig { epoch, ..config.clone() })
}

/// Whether what an operator wants of a volume finds it with nothing failed: not between an election and
/// the claim of who was elected.
fn had_leader(config: &VolumeConfig) -> bool {
    config.planned || config.leader_process != 0
}

/// Nobody's word counts until the new leader, which may be the old one's node, has claimed.
pub(crate) fn depose(config: &mut VolumeConfig, leader: Option<NodeId>) {
    config.leader = leader;
    config.leader_process = 0;
    config.reign = 0;
}

/// Invariant 5.
fn check_asker(config: &VolumeConfig, asker: Asker) -> Result<(), Denied> {
    if config.leader != Some(asker.node) {
        return Err(Denied::NotLeader { node: asker.node });
    }
    if planted(Mutant::AdmitWithoutLeader) {
        return Ok(());
    }
    if asker.process == 0 || config.leader_process != asker.process {
        return Err(Denied::OldProcess);
    }
    if config.epoch != asker.epoch {
        return Err(Denied::OldEpoch { asked: asker.epoch, current: config.epoch });
    }
    Ok(())
}

/// Invariant 3: whether one in-sync replica fewer is enough.
fn check_min_without(config: &VolumeConfig, shard: u32) -> Result<(), Denied> {
    let left = shard_of_config(config, shard)?.in_sync_count().saturating_sub(1);
    if left >= usize::from(config.min_in_sync.max(1)) || planted(Mutant::DropLast) {
        return Ok(());
    }
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    Err(Denied::BelowMin { shard, left, min: config.min_in_sync })
}

fn checked(config: &VolumeConfig) -> Result<(), Denied> {
    config.check().map_err(|broken| Denied::Malformed { reason: broken.to_string() })
}

fn member_at(place: &Place, role: Role) -> Member {
    Member { replica: place.replica, node: place.node, role }
}

fn shard_of(places: &[Place], role: Role) -> Shard {
    Shard { members: places.iter().map(|place| member_at(place, role)).collect() }
}

fn index(shard: u32) -> usize {
    usize::try_from(shard).unwrap_or(usize::MAX)
}

fn shard_of_config(config: &VolumeConfig, shard: u32) -> Result<&Shard, Denied> {
    config.shards.get(index(shard)).ok_or(Denied::NoSuchShard { shard })
}

fn shard_mut(config: &mut VolumeConfig, shard: u32) -> Result<&mut Shard, Denied> {
    config.shards.get_mut(index(shard)).ok_or(Denied::NoSuchShard { shard })
}

fn find(config: &VolumeConfig, shard: u32, replica: Uuid) -> Result<Member, Denied> {
    let member = shard_of_config(config, shard)?.member(replica);
    member.copied().ok_or(Denied::NoSuchReplica { shard, replica })
}

fn with_role(
    config: &VolumeConfig,
    shard: u32,
    replica: Uuid,
    role: Role,
) -> Result<VolumeConfig, Denied> {
    let mut next = next(config)?;
    let members = &mut shard_mut(&mut next, shard)?.members;
    for member in members.iter_mut().filter(|member| member.replica == replica) {
        member.role = role;
    }
    Ok(next)
}
