//! What a leader knows of its volume at one moment: configuration, phase, replicas.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use afs_decisions::{NodeId, Role, VolumeConfig};
use uuid::Uuid;

use super::{Host, Leader, Shared};
use crate::leader::pending::Pending;
use crate::replica::ReplicaServer;

/// What the leader is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It asks the conductor for the volume.
    Claiming,
    /// It waits for the replicas' promises.
    Sealing,
    /// It serves.
    Serving,
    /// It does not lead any more.
    Over,
}

/// What writes go to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Mode {
    /// None: it is away, or was not looked at yet.
    Away = 0,
    /// All, but nobody waits for success.
    Live = 1,
    /// All; its admission was asked for, so no write succeeds without it.
    Required = 2,
    /// All: it is in sync.
    InSync = 3,
}

/// One replica as the leader sees it; kept from view to view.
pub(super) struct Member {
    pub(super) replica: Uuid,
    pub(super) node: NodeId,
    mode: AtomicU32,
    /// Until when we may believe in its lease, on our clock.
    pub(super) lease_until: AtomicU64,
    /// Its tick as we last heard it.
    pub(super) tick: AtomicU32,
    /// It missed something, or does not answer.
    pub(super) failed: AtomicBool,
    /// When it last answered, on our clock.
    pub(super) heard: AtomicU64,
    /// Chunks of a resync that are left, and bytes that it copied, for people.
    pub(super) chunks_left: AtomicU64,
    pub(super) bytes_copied: AtomicU64,
    pub(super) bytes_compared: AtomicU64,
}

impl Member {
    fn new(replica: Uuid, node: NodeId) -> Member {
        Member {
            replica,
            node,
            mode: AtomicU32::new(Mode::Away as u32),
            lease_until: AtomicU64::new(0),
            tick: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            chunks_left: AtomicU64::new(0),
            bytes_copied: AtomicU64::new(0),
            bytes_compared: AtomicU64::new(0),
        }
    }

    pub(super) fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Acquire) {
            1 => Mode::Live,
            2 => Mode::Required,
            3 => Mode::InSync,
            _ => Mode::Away,
        }
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u32, Ordering::Release);
    }

    /// Gives a learner up that failed. False if it is one by now that writes wait for: then its failure calls for a new epoch.
    pub(super) fn give_up(&self) -> bool {
        self.failed.store(true, Ordering::Release);
        let (live, away) = (Mode::Live as u32, Mode::Away as u32);
        let mode = self.mode.compare_exchange(live, away, Ordering::AcqRel, Ordering::Acquire);
        mode.is_ok() || mode == Err(away)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

/// A moment. It never changes; its members do.
pub(super) struct View {
    /// Counts the views of this leader.
    pub(super) number: u64,
    pub(super) phase: Phase,
    pub(super) config: VolumeConfig,
    pub(super) shards: Vec<Vec<Arc<Member>>>,
}

impl View {
    /// Before the volume was claimed, when its epoch was `epoch`.
    pub(super) fn nothing(volume: Uuid, epoch: u64) -> View {
        let config = VolumeConfig {
            volume,
            epoch,
            leader: None,
            leader_process: 0,
            reign: 0,
            planned: false,
            min_in_sync: 1,
            blocks: 0,
            shard_blocks: 0,
            shards: Vec::new(),
        };
        View { number: 0, phase: Phase::Claiming, config, shards: Vec::new() }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.config.epoch
    }

    /// Replicas of a shard that must have every write.
    pub(super) fn in_sync(&self, shard: usize) -> impl Iterator<Item = (usize, &Arc<Member>)> {
        let members = self.shards.get(shard).map_or(&[][..], Vec::as_slice);
        members.iter().enumerate().filter(|(_, member)| member.mode() == Mode::InSync)
    }

    /// Blocks of a shard.
    pub(super) fn shard_blocks(&self, shard: usize) -> u64 {
        u32::try_from(shard).map_or(0, |shard| self.config.blocks_of_shard(shard))
    }

    /// Whether a shard has as many in-sync replicas as writes need.
    pub(super) fn enough(&self, shard: usize) -> bool {
        self.in_sync(shard).count() >= usize::from(self.config.min_in_sync)
    }
}

/// A way to a replica.
pub(super) enum Port<H: Host> {
    /// On this node; `None` if it is not there.
    Local(Option<ReplicaServer<H::Disk, H::Clock>>),
    /// On another.
    Remote(H::Link),
}

impl<H: Host> Leader<H> {
    /// The view of now.
    pub(super) fn view(&self) -> Arc<View> {
        self.shared().view.lock().clone()
    }

    /// The ways to the replicas of a shard.
    pub(super) fn ports(&self, view: &View, shard: usize) -> Rc<[Port<H>]> {
        let mut ports = self.inner.ports.borrow_mut();
        if ports.0 != view.number {
            let shards = view
                .shards
                .iter()
                .map(|members| members.iter().map(|member| self.port(member)).collect::<Rc<[_]>>());
            *ports = (view.number, shards.collect());
        }
        ports.1.get(shard).cloned().unwrap_or_else(|| Rc::from([]))
    }

    fn port(&self, member: &Member) -> Port<H> {
        if member.node == self.shared().node {
            Port::Local(self.host().local(member.replica))
        } else {
            Port::Remote(self.host().link(member.node, member.replica))
        }
    }
}

impl Shared {
    /// Makes a configuration and a phase the view of now.
    pub(super) fn show(&self, phase: Phase, config: &VolumeConfig) -> Arc<View> {
        let mut view = self.view.lock();
        let shards = config.shards.iter().map(|shard| {
            let members = shard.members.iter().map(|wanted| {
                let known =
                    view.shards.iter().flatten().find(|member| {
                        member.replica == wanted.replica && member.node == wanted.node
                    });
                let member = known
                    .cloned()
                    .unwrap_or_else(|| Arc::new(Member::new(wanted.replica, wanted.node)));
                match (wanted.role, member.mode()) {
                    (Role::InSync, _) => member.set_mode(Mode::InSync),
                    (Role::OutOfSync, Mode::InSync) => member.set_mode(Mode::Away),
                    (Role::OutOfSync, _) => {}
                }
                member
            });
            members.collect()
        });
        let shards: Vec<Vec<_>> = shards.collect();
        let mut pending = self.pending.lock();
        if pending.len() != shards.len() {
            *pending = (0..shards.len()).map(|_| Pending::default()).collect();
        }
        drop(pending);
        let number = view.number + 1;
        *view = Arc::new(View { number, phase, config: config.clone(), shards });
        let shown = view.clone();
        drop(view);
        self.changes.send_replace(number);
        self.work.notify_one();
        shown
    }

    pub(super) fn pending(&self) -> Arc<[Pending]> {
        self.pending.lock().clone()
    }
}

/// A replica, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Which one.
    pub replica: Uuid,
    /// Where.
    pub node: NodeId,
    /// It has every acknowledged write.
    pub in_sync: bool,
    /// It gets live writes.
    pub live: bool,
    /// Bytes that a resync has still to compare.
    pub bytes_left: u64,
    /// Bytes that resyncs copied to it.
    pub bytes_copied: u64,
    /// Bytes that they compared.
    pub bytes_compared: u64,
}

/// A volume, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeView {
    /// What the leader is doing.
    pub phase: Phase,
    /// Its epoch.
    pub epoch: u64,
    /// Blocks that must be made equal yet.
    pub pending_blocks: u64,
    /// Replicas, by shard.
    pub shards: Vec<Vec<MemberView>>,
}

impl Shared {
    pub(super) fn describe(&self) -> VolumeView {
        let view = self.view.lock().clone();
        let blocks = u64::from(self.chunk_blocks.load(Ordering::Acquire));
        let chunk = blocks * u64::from(afs_env::BLOCK_BYTES);
        let member = |member: &Arc<Member>| MemberView {
            replica: member.replica,
            node: member.node,
            in_sync: member.mode() == Mode::InSync,
            live: member.mode() != Mode::Away,
            bytes_left: member.chunks_left.load(Ordering::Relaxed) * chunk,
            bytes_copied: member.bytes_copied.load(Ordering::Relaxed),
            bytes_compared: member.bytes_compared.load(Ordering::Relaxed),
        };
        VolumeView {
            phase: view.phase,
            epoch: view.epoch(),
            pending_blocks: self.pending().iter().map(Pending::blocks).sum(),
            shards: view.shards.iter().map(|shard| shard.iter().map(member).collect()).collect(),
        }
    }
}
