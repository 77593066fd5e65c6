//! I/O on a volume that is led somewhere: here by a call, elsewhere by forwarding to its leader.
//!
//! What was forwarded and got no answer may still be carried out. It fails to the host only after it would be refused for its
//! age (DESIGN 5 rule 10), so that the host's retry on another path cannot be overtaken by it.

use std::time::Duration;

use afs_decisions::NodeId;
use afs_env::{Answer, Buffer, BufferMut, Clock, HEADER_BYTES, Link, LinkError, SystemClock};
use afs_volume::{Gone, VolumeError, result_bytes, result_of, tick_of};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::local::LocalHost;
use crate::backend::BackendError;

const VERSION: u8 = 1;
const READ: u8 = 1;
const WRITE: u8 = 2;
const ZERO: u8 = 3;
const TRIM: u8 = 4;
/// Asks for nothing but the answer's tick.
const TICK: u8 = 5;

/// Codes of answers.
const NOT_LEADER: u8 = 1;
const UNAVAILABLE: u8 = 2;
const OUT_OF_RANGE: u8 = 3;
const FULL: u8 = 4;
const MEDIA: u8 = 5;
const TOO_OLD: u8 = 6;
const NO_MEMORY: u8 = 7;
const MALFORMED: u8 = 8;

/// Between two attempts to find the leader.
const AGAIN: Duration = Duration::from_millis(20);
/// How long an I/O waits for a leader that this node does not reach. Its host may reach it by another path (CONFORMANCE M-46); when
/// the leader is gone for everybody another one takes over in less.
const OUT_OF_REACH: Duration = Duration::from_millis(1500);
/// Read at a time to verify.
const VERIFY_BYTES: usize = 256 << 10;

/// A forwarded command.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Forward {
    kind: u8,
    version: u8,
    zero: U16,
    /// The leader's tick as we last heard it.
    tick: U32,
    lba: U64,
    blocks: U64,
    rest: [U64; 2],
}

const _: () = assert!(size_of::<Forward>() == HEADER_BYTES);

/// What is done to a volume's blocks.
#[derive(Clone)]
enum Change {
    Write(Buffer),
    Clear { deallocate: bool },
}

/// A volume, on one reactor.
#[derive(Clone)]
pub struct VolumeClient {
    host: LocalHost,
    volume: Uuid,
    /// The leader's tick as it was last heard, and of whom.
    tick: std::rc::Rc<std::cell::Cell<(u32, u32)>>,
}

/// Why an attempt came to nothing.
enum Failed {
    /// Not carried out; another try may do better.
    Again,
    /// The same, as this node, which leads, is not reached from here.
    OutOfReach(NodeId),
    /// For good.
    With(VolumeError),
}

/// When an I/O gives up.
struct Waiting {
    until: Instant,
    out_of_reach: Option<(NodeId, Instant)>,
}

impl Waiting {
    fn new(patience: Duration) -> Waiting {
        Waiting { until: Instant::now() + patience, out_of_reach: None }
    }

    /// Another attempt has failed. The error for the host, if there is to be no other.
    fn failed(&mut self, failed: Failed) -> Result<(), VolumeError> {
        let now = Instant::now();
        self.out_of_reach = match failed {
            Failed::With(error) => return Err(error),
            Failed::Again => None,
            Failed::OutOfReach(leader) => match self.out_of_reach {
                Some((known, since)) if known == leader => Some((leader, since)),
                _ => Some((leader, now)),
            },
        };
        let too_long = |(_, since)| now.duration_since(since) > OUT_OF_REACH;
        if now >= self.until || self.out_of_reach.is_some_and(too_long) {
            return Err(VolumeError::Unavailable);
        }
        Ok(())
    }
}

impl VolumeClient {
    /// The volume on the reactor of `host`.
    pub fn new(host: LocalHost, volume: Uuid) -> VolumeClient {
        VolumeClient { host, volume, tick: std::rc::Rc::default() }
    }

    /// Fills the whole buffer from block `lba` on.
    pub async fn read(
        &self,
        lba: u64,
        mut buffer: BufferMut,
    ) -> (BufferMut, Result<(), VolumeError>) {
        let mut waiting = Waiting::new(self.host.cluster().params.patience);
        loop {
            if let Some(leader) = self.host.leading(self.volume) {
                let result;
                (buffer, result) = leader.read(lba, buffer).await;
                if result != Err(VolumeError::NotLeader) {
                    return (buffer, result);
                }
            }
            // Led elsewhere; one that was led here until now may end while others are under way already.
            let blocks = (buffer.len() / afs_env::BLOCK_BYTES as usize) as u64;
            // A late read does no harm.
            let gone = &|| false;
            let failed = match self.forward((READ, lba, blocks), None, buffer.len(), gone).await {
                Ok(Some(data)) if data.len() == buffer.len() => {
                    buffer.copy_from_slice(&data);
                    return (buffer, Ok(()));
                }
                Ok(_) => Failed::Again,
                Err(failed) => failed,
            };
            if let Err(error) = waiting.failed(failed) {
                return (buffer, Err(error));
            }
            self.news().await;
        }
    }

    /// Reads blocks and checks that they can be read.
    pub async fn verify(&self, lba: u64, blocks: u64) -> Result<(), VolumeError> {
        let most = (VERIFY_BYTES / afs_env::BLOCK_BYTES as usize) as u64;
        let pool = afs_volume::Host::pool(&self.host).clone();
        let end = lba.checked_add(blocks).ok_or(VolumeError::OutOfRange)?;
        let mut at = lba;
        while at < end {
            let count = most.min(end - at);
            let bytes = usize::try_from(count).unwrap_or(0) * afs_env::BLOCK_BYTES as usize;
            let (_, result) = self.read(at, pool.alloc(bytes).await).await;
            result?;
            at += count;
        }
        Ok(())
    }

    /// Writes whole blocks. `gone` tells that the host's connection was lost: then nothing begins any more.
    pub async fn write(&self, lba: u64, data: Buffer, gone: Gone<'_>) -> Result<(), VolumeError> {
        let blocks = (data.len() / afs_env::BLOCK_BYTES as usize) as u64;
        self.change(lba, blocks, Change::Write(data), gone).await
    }

    /// Makes blocks read as zeroes; with `deallocate`, also gives their space back.
    pub async fn write_zeroes(
        &self,
        lba: u64,
        blocks: u64,
        deallocate: bool,
        gone: Gone<'_>,
    ) -> Result<(), VolumeError> {
        self.change(lba, blocks, Change::Clear { deallocate }, gone).await
    }

    async fn change(
        &self,
        lba: u64,
        blocks: u64,
        change: Change,
        gone: Gone<'_>,
    ) -> Result<(), VolumeError> {
        let mut waiting = Waiting::new(self.host.cluster().params.patience);
        loop {
            if gone() {
                return Err(VolumeError::Unavailable);
            }
            if let Some(leader) = self.host.leading(self.volume) {
                let result = match change.clone() {
                    Change::Write(data) => leader.write(lba, data, gone).await,
                    Change::Clear { deallocate } => {
                        leader.write_zeroes(lba, blocks, deallocate, gone).await
                    }
                };
                if result != Err(VolumeError::NotLeader) {
                    return result;
                }
            }
            let (kind, data) = match change.clone() {
                Change::Write(data) => (WRITE, Some(data)),
                Change::Clear { deallocate: false } => (ZERO, None),
                Change::Clear { deallocate: true } => (TRIM, None),
            };
            let failed = match self.forward((kind, lba, blocks), data, 0, gone).await {
                Ok(_) => return Ok(()),
                Err(failed) => failed,
            };
            waiting.failed(failed)?;
            self.news().await;
        }
    }

    /// Waits for news about the leader, but not long.
    async fn news(&self) {
        let mut changes = self.host.cluster().changes();
        // Either way it is tried again.
        let _ = timeout(AGAIN, changes.changed()).await;
    }

    async fn forward(
        &self,
        (kind, lba, blocks): (u8, u64, u64),
        data: Option<Buffer>,
        reply: usize,
        gone: Gone<'_>,
    ) -> Result<Option<Buffer>, Failed> {
        let leader = self.host.cluster().leader_of(self.volume).ok_or(Failed::Again)?;
        if leader == self.host.cluster().id() {
            return Err(Failed::Again);
        }
        let link = self.host.volume_link(leader, self.volume);
        if self.tick.get().0 != leader.0 {
            let call = link.call(Forward::of(TICK, 0, 0, 0), None, 0);
            let answer = timeout(self.host.cluster().params.answer, call).await;
            let answer = answer.ok().and_then(Result::ok).ok_or(Failed::OutOfReach(leader))?;
            self.heard(leader.0, &answer);
        }
        let reads = kind == READ;
        let header = Forward::of(kind, self.tick.get().1, lba, blocks);
        let patience = self.host.cluster().params.patience;
        let answer = tokio::select! {
            biased;
            // Before it is sent it may have waited for a leader here, for that tick and for its turn, or stood still with the process,
            // and its host may have had it done elsewhere (M-45). Long data follows when the leader asks for it, and is held to the
            // tick alone.
            answer = timeout(patience, link.call_for(gone, header, data, reply)) => {
                answer.unwrap_or(Err(LinkError::Lost))
            }
            () = self.deposed(leader) => Err(LinkError::Lost),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(LinkError::Unreachable) => return Err(Failed::OutOfReach(leader)),
            Err(LinkError::Lost) if reads => return Err(Failed::Again),
            Err(LinkError::Lost) => {
                sleep(self.host.cluster().params.ghosts_over()).await;
                return Err(Failed::With(VolumeError::Unavailable));
            }
        };
        self.heard(leader.0, &answer);
        match answer.status {
            0 => Ok(answer.data),
            NOT_LEADER | TOO_OLD | NO_MEMORY => Err(Failed::Again),
            OUT_OF_RANGE => Err(Failed::With(VolumeError::OutOfRange)),
            FULL => Err(Failed::With(VolumeError::Full)),
            MEDIA => Err(Failed::With(VolumeError::Media)),
            _ => Err(Failed::With(VolumeError::Unavailable)),
        }
    }

    /// Ends some time after another node is to lead: one that hands over has answered by then, one that stands still never does,
    /// and its connection is not lost by that.
    async fn deposed(&self, leader: NodeId) {
        let cluster = self.host.cluster();
        let mut changes = cluster.changes();
        loop {
            while cluster.leader_of(self.volume) == Some(leader) {
                if changes.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
            sleep(cluster.params.answer).await;
            if cluster.leader_of(self.volume) != Some(leader) {
                return;
            }
        }
    }

    fn heard(&self, leader: u32, answer: &Answer) {
        self.tick.set((leader, result_of(answer.result).0));
    }
}

impl Forward {
    fn of(kind: u8, tick: u32, lba: u64, blocks: u64) -> [u8; HEADER_BYTES] {
        let forward = Forward {
            kind,
            version: VERSION,
            zero: U16::ZERO,
            tick: tick.into(),
            lba: lba.into(),
            blocks: blocks.into(),
            rest: [U64::ZERO; 2],
        };
        zerocopy::transmute!(forward)
    }
}

/// Serves what another node forwards to the leader here; `closed` tells that its connection may be lost.
pub async fn serve_forwarded(
    host: &LocalHost,
    volume: Uuid,
    header: &[u8; HEADER_BYTES],
    data: Option<Buffer>,
    reply: usize,
    closed: Gone<'_>,
) -> Answer {
    let forward: Forward = zerocopy::transmute!(*header);
    let result = carry_out(host, volume, &forward, data, reply, closed).await;
    let (status, data) = match result {
        Ok(data) => (0, data),
        Err(code) => (code, None),
    };
    let result = result_bytes(tick_of(SystemClock.now()), 0);
    Answer { status, result, data }
}

async fn carry_out(
    host: &LocalHost,
    volume: Uuid,
    forward: &Forward,
    data: Option<Buffer>,
    reply: usize,
    closed: Gone<'_>,
) -> Result<Option<Buffer>, u8> {
    if forward.version != VERSION {
        return Err(MALFORMED);
    }
    if forward.kind == TICK {
        return Ok(None);
    }
    // The host's connection is on the other node, which forwards nothing for a host that is gone. What is here already, and waits
    // for the volume to serve or for a range, begins no more when that node is gone, or may have said that it failed (M-45).
    let params = host.cluster().params;
    let too_old = || closed() || !params.is_fresh(SystemClock.now(), forward.tick.get());
    if forward.kind != READ && too_old() {
        return Err(TOO_OLD);
    }
    let (lba, blocks) = (forward.lba.get(), forward.blocks.get());
    let wanted = Wanted::new(host, forward, data, reply)?;
    let Some(leader) = host.leading(volume) else {
        return direct(host, volume, (lba, blocks), wanted, &too_old).await;
    };
    let changes = matches!(wanted, Wanted::Change(_));
    let done = match wanted {
        Wanted::Read(buffer) => {
            let (buffer, result) = leader.read(lba, buffer).await;
            result.map(|()| Some(buffer.freeze()))
        }
        Wanted::Change(Change::Write(data)) => {
            leader.write(lba, data, &too_old).await.map(|()| None)
        }
        Wanted::Change(Change::Clear { deallocate }) => {
            leader.write_zeroes(lba, blocks, deallocate, &too_old).await.map(|()| None)
        }
    };
    done.map_err(|error| match error {
        VolumeError::NotLeader => NOT_LEADER,
        // The other node sends it again if its host is there.
        VolumeError::Unavailable if changes && too_old() => TOO_OLD,
        other => code(other.into()),
    })
}

/// The same for a volume whose only replica is here and that needs no leader.
async fn direct(
    host: &LocalHost,
    volume: Uuid,
    (lba, blocks): (u64, u64),
    wanted: Wanted,
    too_old: Gone<'_>,
) -> Result<Option<Buffer>, u8> {
    let source = host.cluster().direct(volume).ok_or(NOT_LEADER)?;
    let backend = source.open(host.reactor()).ok_or(UNAVAILABLE)?;
    let range = lba..lba.checked_add(blocks).ok_or(OUT_OF_RANGE)?;
    let done = match wanted {
        Wanted::Read(buffer) => {
            source.ranges().settled(range).await;
            let (buffer, result) = backend.read(lba, buffer).await;
            result.map(|()| Some(buffer.freeze()))
        }
        Wanted::Change(Change::Write(data)) => {
            let _held = source.ranges().write(range).await;
            if too_old() {
                return Err(TOO_OLD);
            }
            backend.write(lba, data, too_old).await.map(|()| None)
        }
        Wanted::Change(Change::Clear { deallocate }) => {
            let _held = source.ranges().write(range).await;
            if too_old() {
                return Err(TOO_OLD);
            }
            backend.write_zeroes(lba, blocks, deallocate, too_old).await.map(|()| None)
        }
    };
    done.map_err(code)
}

/// What a peer forwarded, checked.
enum Wanted {
    Read(BufferMut),
    Change(Change),
}

impl Wanted {
    fn new(
        host: &LocalHost,
        forward: &Forward,
        data: Option<Buffer>,
        reply: usize,
    ) -> Result<Wanted, u8> {
        let blocks = forward.blocks.get();
        let bytes = u64::from(afs_env::BLOCK_BYTES).checked_mul(blocks).ok_or(MALFORMED)?;
        match (forward.kind, data) {
            (READ, None) => {
                if bytes != reply as u64 || reply == 0 || reply > afs_env::MAX_BUFFER_BYTES {
                    return Err(MALFORMED);
                }
                let buffer = afs_volume::Host::pool(host).try_alloc(reply);
                Ok(Wanted::Read(buffer.ok_or(NO_MEMORY)?))
            }
            (WRITE, Some(data)) if data.len() as u64 == bytes => {
                Ok(Wanted::Change(Change::Write(data)))
            }
            (ZERO, None) => Ok(Wanted::Change(Change::Clear { deallocate: false })),
            (TRIM, None) => Ok(Wanted::Change(Change::Clear { deallocate: true })),
            _ => Err(MALFORMED),
        }
    }
}

/// The answer's code for an error.
fn code(error: BackendError) -> u8 {
    match error {
        BackendError::Unavailable | BackendError::Stopped => UNAVAILABLE,
        BackendError::OutOfRange => OUT_OF_RANGE,
        BackendError::Full => FULL,
        BackendError::Media => MEDIA,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn io_waits_long_for_a_leader_but_not_for_one_out_of_reach() {
        let mut waiting = Waiting::new(Duration::from_secs(20));
        for _ in 0..19 {
            assert_eq!(waiting.failed(Failed::Again), Ok(()));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(waiting.failed(Failed::Again), Err(VolumeError::Unavailable));

        let mut waiting = Waiting::new(Duration::from_secs(20));
        for leader in [1, 2] {
            // A new leader has its own time.
            assert_eq!(waiting.failed(Failed::OutOfReach(NodeId(leader))), Ok(()));
            tokio::time::advance(OUT_OF_REACH).await;
            assert_eq!(waiting.failed(Failed::OutOfReach(NodeId(leader))), Ok(()));
        }
        tokio::time::advance(AGAIN).await;
        let given_up = waiting.failed(Failed::OutOfReach(NodeId(2)));
        assert_eq!(given_up, Err(VolumeError::Unavailable));
        assert_eq!(waiting.failed(Failed::With(VolumeError::Full)), Err(VolumeError::Full));
    }
}
