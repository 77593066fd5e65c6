//! I/O on a volume that is led somewhere: here by a call, elsewhere by forwarding to its leader.
//!
//! What was forwarded and got no answer may still be carried out. It fails to the host only after it would be refused for its
//! age (DESIGN 5 rule 10), so that the host's retry on another path cannot be overtaken by it.

use std::time::Duration;

use afs_env::{Answer, Buffer, BufferMut, Clock, HEADER_BYTES, Link, LinkError, SystemClock};
use afs_volume::{Gone, VolumeError};
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

/// What is done to a volume.
#[derive(Clone)]
enum Operation {
    Read,
    Write(Buffer),
    Clear { deallocate: bool },
}

#[allow(clippy::cast_possible_truncation, reason = "ticks are compared by their difference")]
fn tick() -> u32 {
    (SystemClock.now() / 1_000_000) as u32
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
    /// For good.
    With(VolumeError),
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
        let until = Instant::now() + self.host.cluster().params.patience;
        loop {
            if let Some(leader) = self.host.leading(self.volume) {
                let result;
                (buffer, result) = leader.read(lba, buffer).await;
                if result != Err(VolumeError::NotLeader) {
                    return (buffer, result);
                }
            } else {
                let blocks = (buffer.len() / afs_env::BLOCK_BYTES as usize) as u64;
                match self.forward(lba, blocks, Operation::Read, buffer.len()).await {
                    Ok(Some(data)) if data.len() == buffer.len() => {
                        buffer.copy_from_slice(&data);
                        return (buffer, Ok(()));
                    }
                    Err(Failed::With(error)) => return (buffer, Err(error)),
                    Ok(_) | Err(Failed::Again) => {}
                }
            }
            if !self.another(until).await {
                return (buffer, Err(VolumeError::Unavailable));
            }
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
        self.change(lba, blocks, Operation::Write(data), gone).await
    }

    /// Makes blocks read as zeroes; with `deallocate`, also gives their space back.
    pub async fn write_zeroes(
        &self,
        lba: u64,
        blocks: u64,
        deallocate: bool,
        gone: Gone<'_>,
    ) -> Result<(), VolumeError> {
        self.change(lba, blocks, Operation::Clear { deallocate }, gone).await
    }

    async fn change(
        &self,
        lba: u64,
        blocks: u64,
        operation: Operation,
        gone: Gone<'_>,
    ) -> Result<(), VolumeError> {
        let until = Instant::now() + self.host.cluster().params.patience;
        loop {
            if gone() {
                return Err(VolumeError::Unavailable);
            }
            if let Some(leader) = self.host.leading(self.volume) {
                let result = match operation.clone() {
                    Operation::Write(data) => leader.write(lba, data, gone).await,
                    Operation::Clear { deallocate } => {
                        leader.write_zeroes(lba, blocks, deallocate, gone).await
                    }
                    Operation::Read => Err(VolumeError::Unavailable),
                };
                if result != Err(VolumeError::NotLeader) {
                    return result;
                }
            } else {
                match self.forward(lba, blocks, operation.clone(), 0).await {
                    Ok(_) => return Ok(()),
                    Err(Failed::With(error)) => return Err(error),
                    Err(Failed::Again) => {}
                }
            }
            if !self.another(until).await {
                return Err(VolumeError::Unavailable);
            }
        }
    }

    /// Waits for news about the leader, but not long; false when the time is over.
    async fn another(&self, until: Instant) -> bool {
        let mut changes = self.host.cluster().changes();
        // Either way it is tried again.
        let _ = timeout(AGAIN, changes.changed()).await;
        Instant::now() < until
    }

    async fn forward(
        &self,
        lba: u64,
        blocks: u64,
        operation: Operation,
        reply: usize,
    ) -> Result<Option<Buffer>, Failed> {
        let leader = self.host.cluster().leader_of(self.volume).ok_or(Failed::Again)?;
        if leader == self.host.cluster().id() {
            return Err(Failed::Again);
        }
        let link = self.host.volume_link(leader, self.volume);
        if self.tick.get().0 != leader.0 {
            let call = link.call(Forward::of(TICK, 0, 0, 0), None, 0);
            let answer = timeout(self.host.cluster().params.answer, call).await;
            let answer = answer.ok().and_then(Result::ok).ok_or(Failed::Again)?;
            self.heard(leader.0, &answer);
        }
        let (kind, data) = match operation {
            Operation::Read => (READ, None),
            Operation::Write(data) => (WRITE, Some(data)),
            Operation::Clear { deallocate: false } => (ZERO, None),
            Operation::Clear { deallocate: true } => (TRIM, None),
        };
        let reads = kind == READ;
        let header = Forward::of(kind, self.tick.get().1, lba, blocks);
        let patience = self.host.cluster().params.patience;
        let answer = timeout(patience, link.call(header, data, reply)).await;
        let answer = match answer.unwrap_or(Err(LinkError::Lost)) {
            Ok(answer) => answer,
            Err(LinkError::Unreachable) => return Err(Failed::Again),
            Err(LinkError::Lost) if reads => return Err(Failed::Again),
            Err(LinkError::Lost) => {
                sleep(self.host.cluster().params.tick_age).await;
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

    fn heard(&self, leader: u32, answer: &Answer) {
        let tick = answer.result.first_chunk().map_or(0, |tick| u32::from_le_bytes(*tick));
        self.tick.set((leader, tick));
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

/// Serves what another node forwards to the leader here.
pub async fn serve_forwarded(
    host: &LocalHost,
    volume: Uuid,
    header: &[u8; HEADER_BYTES],
    data: Option<Buffer>,
    reply: usize,
) -> Answer {
    let forward: Forward = zerocopy::transmute!(*header);
    let result = carry_out(host, volume, &forward, data, reply).await;
    let (status, data) = match result {
        Ok(data) => (0, data),
        Err(code) => (code, None),
    };
    let mut result = [0; 8];
    if let Some(place) = result.first_chunk_mut::<4>() {
        *place = tick().to_le_bytes();
    }
    Answer { status, result, data }
}

async fn carry_out(
    host: &LocalHost,
    volume: Uuid,
    forward: &Forward,
    data: Option<Buffer>,
    reply: usize,
) -> Result<Option<Buffer>, u8> {
    if forward.version != VERSION {
        return Err(MALFORMED);
    }
    if forward.kind == TICK {
        return Ok(None);
    }
    let age = tick().wrapping_sub(forward.tick.get());
    let fresh = u128::from(age) <= host.cluster().params.tick_age.as_millis();
    if !fresh && forward.kind != READ {
        return Err(TOO_OLD);
    }
    let (lba, blocks) = (forward.lba.get(), forward.blocks.get());
    let Some(leader) = host.leading(volume) else {
        return direct(host, volume, forward, data, reply).await;
    };
    // The host's connection is on the other node; that one forwards nothing for a host that is gone.
    let never = || false;
    let code = |error| match error {
        VolumeError::NotLeader => NOT_LEADER,
        VolumeError::Unavailable => UNAVAILABLE,
        VolumeError::OutOfRange => OUT_OF_RANGE,
        VolumeError::Full => FULL,
        VolumeError::Media => MEDIA,
    };
    match (forward.kind, data) {
        (READ, None) => {
            let buffer = reply_buffer(host, blocks, reply)?;
            let (buffer, result) = leader.read(lba, buffer).await;
            result.map_err(code)?;
            Ok(Some(buffer.freeze()))
        }
        (WRITE, Some(data)) => {
            if data.len() as u64 / u64::from(afs_env::BLOCK_BYTES) != blocks {
                return Err(MALFORMED);
            }
            leader.write(lba, data, &never).await.map_err(code)?;
            Ok(None)
        }
        (ZERO | TRIM, None) => {
            let deallocate = forward.kind == TRIM;
            leader.write_zeroes(lba, blocks, deallocate, &never).await.map_err(code)?;
            Ok(None)
        }
        _ => Err(MALFORMED),
    }
}

/// The same for a volume whose only replica is here and that needs no leader.
async fn direct(
    host: &LocalHost,
    volume: Uuid,
    forward: &Forward,
    data: Option<Buffer>,
    reply: usize,
) -> Result<Option<Buffer>, u8> {
    let source = host.cluster().direct(volume).ok_or(NOT_LEADER)?;
    let backend = source.open(host.reactor()).ok_or(UNAVAILABLE)?;
    let code = |error| match error {
        BackendError::Unavailable | BackendError::Stopped => UNAVAILABLE,
        BackendError::OutOfRange => OUT_OF_RANGE,
        BackendError::Full => FULL,
        BackendError::Media => MEDIA,
    };
    let (lba, blocks) = (forward.lba.get(), forward.blocks.get());
    let range = lba..lba.checked_add(blocks).ok_or(OUT_OF_RANGE)?;
    let never = || false;
    match (forward.kind, data) {
        (READ, None) => {
            let mut buffer = reply_buffer(host, blocks, reply)?;
            source.ranges().settled(range).await;
            let result;
            (buffer, result) = backend.read(lba, buffer).await;
            result.map_err(code)?;
            Ok(Some(buffer.freeze()))
        }
        (WRITE, Some(data)) => {
            if data.len() as u64 / u64::from(afs_env::BLOCK_BYTES) != blocks {
                return Err(MALFORMED);
            }
            let _held = source.ranges().write(range).await;
            backend.write(lba, data, &never).await.map_err(code)?;
            Ok(None)
        }
        (ZERO | TRIM, None) => {
            let _held = source.ranges().write(range).await;
            let deallocate = forward.kind == TRIM;
            backend.write_zeroes(lba, blocks, deallocate, &never).await.map_err(code)?;
            Ok(None)
        }
        _ => Err(MALFORMED),
    }
}

/// A buffer for an answer of exactly `blocks` blocks.
fn reply_buffer(host: &LocalHost, blocks: u64, reply: usize) -> Result<BufferMut, u8> {
    let bytes = u64::from(afs_env::BLOCK_BYTES).checked_mul(blocks).ok_or(MALFORMED)?;
    if bytes != reply as u64 || reply == 0 || reply > afs_env::MAX_BUFFER_BYTES {
        return Err(MALFORMED);
    }
    afs_volume::Host::pool(host).try_alloc(reply).ok_or(NO_MEMORY)
}
