//! What a leader sends to a replica, and what comes back.
//!
//! A message is [`HEADER_BYTES`] bytes that fit in what an NVMe command has free, and data. Version 2. Little-endian:
//!
//! | bytes | all | I/O, heartbeat | seal | settle | commit | chunks | sums |
//! |---|---|---|---|---|---|---|---|
//! | 0 | kind | | | | | | |
//! | 1 | version | | | | | | |
//! | 2..4 | 0 | | | | | | |
//! | 4..8 | tick | | | | | | |
//! | 8..16 | epoch | | | | | | |
//! | 16..24 | | sequence | reign | reign | epoch of the generation | epoch of the generation | chunk |
//! | 24..32 | | lba, blocks | process | | its number | its number | |
//! | 32..40 | | behind, generation | node | | | first chunk, chunks | |

use afs_env::HEADER_BYTES;
use afs_store::Generation;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The version of all structures of this module.
pub const VERSION: u8 = 2;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    kind: u8,
    version: u8,
    zero: U16,
    tick: U32,
    epoch: U64,
    a: U64,
    b: [U32; 2],
    c: [U32; 2],
}

const _: () = assert!(size_of::<Raw>() == HEADER_BYTES);

/// A change or a read of some blocks of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// The first block, counted within the shard.
    pub lba: u32,
    /// How many.
    pub blocks: u32,
}

/// How far a reign is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The number of this write in its reign, or for other messages that of the last one begun.
    pub sequence: u64,
    /// This many below `sequence` and everything before is committed on all in-sync replicas.
    pub behind: u32,
}

impl Progress {
    /// Every write up to this one is committed.
    pub fn watermark(self) -> u64 {
        self.sequence.saturating_sub(u64::from(self.behind))
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Promise this epoch to this process; answered with a [`SealReport`].
    Seal {
        /// Epoch in which the leader's reign began.
        reign: u64,
        /// The leader's process.
        process: u64,
        /// The leader's node.
        node: u32,
    },
    /// Write the data.
    Write(Blocks, Progress, u32),
    /// Make blocks read as zeroes, and with `true` give their space back.
    Clear(Blocks, Progress, u32, bool),
    /// Renew the lease.
    Heartbeat(Progress),
    /// The lease is given back: the leader serves no more in this epoch.
    Release,
    /// Read blocks.
    Read(Blocks),
    /// Everything of reigns before this one is equal on all in-sync replicas.
    Settle {
        /// The reign.
        reign: u64,
    },
    /// The replica has everything that was acknowledged, and will until it says that it lost it.
    Whole,
    /// Every write up to this generation is on all in-sync replicas.
    Commit(Generation),
    /// Chunks stamped after a generation, and which are allocated; answered with a [`ChunkReport`].
    Chunks {
        /// Stamps above this one.
        after: Generation,
        /// The first chunk looked at.
        from: u32,
        /// How many are looked at, at most [`CHUNKS_MAX`].
        count: u32,
    },
    /// The sums of a chunk's blocks; answered with a [`Sums`].
    Sums {
        /// Index of the chunk.
        chunk: u32,
    },
}

/// A whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The receiver's tick as the sender last heard it, in milliseconds.
    pub tick: u32,
    /// The epoch in which it was sent.
    pub epoch: u64,
    /// The rest.
    pub body: Body,
}

const SEAL: u8 = 1;
const WRITE: u8 = 2;
const ZERO: u8 = 3;
const TRIM: u8 = 4;
const HEARTBEAT: u8 = 5;
const RELEASE: u8 = 6;
const READ: u8 = 7;
const SETTLE: u8 = 8;
const COMMIT: u8 = 9;
const CHUNKS: u8 = 10;
const SUMS: u8 = 11;
const WHOLE: u8 = 12;

impl Message {
    /// The header that carries it.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let (kind, a, b, c) = match self.body {
            Body::Seal { reign, process, node } => (SEAL, reign, halves(process), [node, 0]),
            Body::Write(at, progress, generation) => io(WRITE, at, progress, generation),
            Body::Clear(at, progress, generation, false) => io(ZERO, at, progress, generation),
            Body::Clear(at, progress, generation, true) => io(TRIM, at, progress, generation),
            Body::Heartbeat(progress) => {
                (HEARTBEAT, progress.sequence, [0; 2], [progress.behind, 0])
            }
            Body::Release => (RELEASE, 0, [0; 2], [0; 2]),
            Body::Read(at) => (READ, 0, [at.lba, at.blocks], [0; 2]),
            Body::Settle { reign } => (SETTLE, reign, [0; 2], [0; 2]),
            Body::Whole => (WHOLE, 0, [0; 2], [0; 2]),
            Body::Commit(generation) => {
                (COMMIT, generation.epoch, halves(generation.number), [0; 2])
            }
            Body::Chunks { after, from, count } => {
                (CHUNKS, after.epoch, halves(after.number), [from, count])
            }
            Body::Sums { chunk } => (SUMS, u64::from(chunk), [0; 2], [0; 2]),
        };
        let raw = Raw {
            kind,
            version: VERSION,
            zero: U16::ZERO,
            tick: self.tick.into(),
            epoch: self.epoch.into(),
            a: a.into(),
            b: b.map(U32::new),
            c: c.map(U32::new),
        };
        zerocopy::transmute!(raw)
    }

    /// What a header says; `None` if it is no message of this version.
    pub fn decode(header: &[u8; HEADER_BYTES]) -> Option<Message> {
        let raw: Raw = zerocopy::transmute!(*header);
        if raw.version != VERSION || raw.zero != U16::ZERO {
            return None;
        }
        let (a, [b0, b1], [c0, c1]) = (raw.a.get(), raw.b.map(U32::get), raw.c.map(U32::get));
        let at = Blocks { lba: b0, blocks: b1 };
        let progress = Progress { sequence: a, behind: c0 };
        let generation = Generation { epoch: a, number: whole([b0, b1]) };
        let body = match raw.kind {
            SEAL => Body::Seal { reign: a, process: whole([b0, b1]), node: c0 },
            WRITE => Body::Write(at, progress, c1),
            ZERO => Body::Clear(at, progress, c1, false),
            TRIM => Body::Clear(at, progress, c1, true),
            HEARTBEAT => Body::Heartbeat(progress),
            RELEASE => Body::Release,
            READ => Body::Read(at),
            SETTLE => Body::Settle { reign: a },
            WHOLE => Body::Whole,
            COMMIT => Body::Commit(generation),
            CHUNKS => Body::Chunks { after: generation, from: c0, count: c1 },
            SUMS => Body::Sums { chunk: u32::try_from(a).ok()? },
            _ => return None,
        };
        Some(Message { tick: raw.tick.get(), epoch: raw.epoch.get(), body })
    }
}

fn io(kind: u8, at: Blocks, progress: Progress, generation: u32) -> (u8, u64, [u32; 2], [u32; 2]) {
    (kind, progress.sequence, [at.lba, at.blocks], [progress.behind, generation])
}

#[allow(clippy::cast_possible_truncation, reason = "cut in two on purpose")]
fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

fn whole([low, high]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// How a message went. The number is the answer's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Carried out; changes are durable.
    Done = 0,
    /// The replica promised a higher epoch.
    Stale = 1,
    /// It has not promised this epoch.
    NotSealed = 2,
    /// Its lease belongs to another leader, for as many milliseconds as `extra` says.
    LeaseHeld = 3,
    /// The message was under way for too long (DESIGN 5 rule 10). Not carried out.
    TooOld = 4,
    /// Too many writes are not known to be committed. Not carried out.
    ListFull = 5,
    /// No space for blocks that were never written.
    Full = 6,
    /// These blocks cannot be read or written.
    Media = 7,
    /// The disk is stopped, or the replica was deleted.
    Stopped = 8,
    /// Outside the replica.
    OutOfRange = 9,
    /// No buffer for the answer. Not carried out.
    NoMemory = 10,
    /// Not a message of this version, or data of the wrong length.
    Malformed = 11,
}

impl Outcome {
    /// What an answer's status means; unknown ones are [`Outcome::Malformed`].
    pub fn of(status: u8) -> Outcome {
        use Outcome::{
            Done, Full, LeaseHeld, ListFull, Malformed, Media, NoMemory, NotSealed, OutOfRange,
            Stale, Stopped, TooOld,
        };
        let all = [
            Done, Stale, NotSealed, LeaseHeld, TooOld, ListFull, Full, Media, Stopped, OutOfRange,
            NoMemory,
        ];
        all.get(usize::from(status)).copied().unwrap_or(Malformed)
    }
}

/// A clock's milliseconds, as messages and answers carry them.
#[allow(clippy::cast_possible_truncation, reason = "ticks are compared by their difference")]
pub fn tick_of(now: u64) -> u32 {
    (now / 1_000_000) as u32
}

/// The eight bytes of an answer: the replica's tick, and what the outcome adds.
pub fn result_bytes(tick: u32, extra: u32) -> [u8; 8] {
    let [a, b] = [tick.to_le_bytes(), extra.to_le_bytes()];
    let mut bytes = [0; 8];
    let (first, second) = bytes.split_at_mut(4);
    first.copy_from_slice(&a);
    second.copy_from_slice(&b);
    bytes
}

/// Tick and extra of an answer.
pub fn result_of(bytes: [u8; 8]) -> (u32, u32) {
    let value = u64::from_le_bytes(bytes);
    let [tick, extra] = halves(value);
    (tick, extra)
}

/// Most chunks that one message asks about.
pub const CHUNKS_MAX: u32 = 65_536;
/// Blocks of a chunk at most.
pub const CHUNK_BLOCKS_MAX: usize = 64;

/// The head of a seal's answer; entries follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SealHead {
    version: U32,
    continuous: U32,
    committed_epoch: U64,
    committed_number: U64,
    first: U64,
    whole: U64,
    blocks: U64,
    chunk_blocks: U32,
    entries: U32,
}

const _: () = assert!(size_of::<SealHead>() == 56);

/// A write that is not known to be committed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Entry {
    reign: U64,
    sequence: U64,
    lba: U32,
    blocks: U32,
}

const _: () = assert!(size_of::<Entry>() == 24);

impl Entry {
    /// A write of a reign.
    pub fn new(reign: u64, sequence: u64, at: Blocks) -> Entry {
        Entry {
            reign: reign.into(),
            sequence: sequence.into(),
            lba: at.lba.into(),
            blocks: at.blocks.into(),
        }
    }

    /// In which reign it was written.
    pub fn reign(&self) -> u64 {
        self.reign.get()
    }

    /// Its number there.
    pub fn sequence(&self) -> u64 {
        self.sequence.get()
    }

    /// Where.
    pub fn at(&self) -> Blocks {
        Blocks { lba: self.lba.get(), blocks: self.blocks.get() }
    }
}

/// What a replica knows of itself when it promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealReport {
    /// Its list of uncommitted writes is whole: it was not restarted since it was last made equal.
    pub continuous: bool,
    /// Everything up to this generation was equal on all in-sync replicas.
    pub committed: Generation,
    /// The first epoch that it promised since its record was made.
    pub first: u64,
    /// The epoch in which a leader said that it is whole; 0 if none did.
    pub whole: u64,
    /// Its size.
    pub blocks: u64,
    /// Blocks of one chunk.
    pub chunk_blocks: u32,
    /// Writes that are not known to be committed.
    pub entries: Vec<Entry>,
}

/// Bytes of a seal's answer with `entries` entries.
pub fn seal_report_bytes(entries: usize) -> usize {
    size_of::<SealHead>() + entries * size_of::<Entry>()
}

impl SealReport {
    /// Writes it to `bytes`, which has [`seal_report_bytes`].
    pub fn encode(&self, bytes: &mut [u8]) -> Option<()> {
        let head = SealHead {
            version: u32::from(VERSION).into(),
            continuous: u32::from(self.continuous).into(),
            committed_epoch: self.committed.epoch.into(),
            committed_number: self.committed.number.into(),
            first: self.first.into(),
            whole: self.whole.into(),
            blocks: self.blocks.into(),
            chunk_blocks: self.chunk_blocks.into(),
            entries: u32::try_from(self.entries.len()).ok()?.into(),
        };
        head.write_to_prefix(bytes).ok()?;
        self.entries.as_slice().write_to_suffix(bytes).ok()
    }

    /// Reads it; `None` if it is not one. More bytes may follow.
    pub fn decode(bytes: &[u8]) -> Option<SealReport> {
        let (head, rest) = SealHead::read_from_prefix(bytes).ok()?;
        let entries = usize::try_from(head.entries.get()).ok()?;
        let chunk_blocks = head.chunk_blocks.get();
        let rest = rest.get(..entries.checked_mul(size_of::<Entry>())?)?;
        if head.version.get() != u32::from(VERSION) || !(1..=64).contains(&chunk_blocks) {
            return None;
        }
        Some(SealReport {
            continuous: head.continuous.get() != 0,
            committed: Generation {
                epoch: head.committed_epoch.get(),
                number: head.committed_number.get(),
            },
            first: head.first.get(),
            whole: head.whole.get(),
            blocks: head.blocks.get(),
            chunk_blocks,
            entries: <[Entry]>::ref_from_bytes(rest).ok()?.to_vec(),
        })
    }
}

/// Bytes of the answer to [`Body::Chunks`] about `count` chunks: a bit for each that is allocated, a bit for each that is
/// stamped after the generation.
pub fn chunk_report_bytes(count: u32) -> usize {
    2 * (count as usize).div_ceil(8)
}

/// The sum of one block.
pub type Sum = [u8; 16];

/// Bytes of the answer to [`Body::Sums`]: the mask of blocks that hold data, then 64 sums.
pub const SUMS_BYTES: usize = 8 + CHUNK_BLOCKS_MAX * size_of::<Sum>();

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were() {
        let at = Blocks { lba: 7, blocks: 0x0102_0304 };
        let progress = Progress { sequence: u64::MAX - 3, behind: 9 };
        let generation = Generation { epoch: 5, number: u64::MAX };
        for body in [
            Body::Seal { reign: 1, process: u64::MAX - 1, node: 3 },
            Body::Write(at, progress, 6),
            Body::Clear(at, progress, 7, true),
            Body::Clear(at, progress, 8, false),
            Body::Heartbeat(progress),
            Body::Release,
            Body::Read(at),
            Body::Settle { reign: 4 },
            Body::Whole,
            Body::Commit(generation),
            Body::Chunks { after: generation, from: 1, count: 2 },
            Body::Sums { chunk: 3 },
        ] {
            let message = Message { tick: 11, epoch: 12, body };
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let good = Message { tick: 0, epoch: 1, body: Body::Release }.encode();
        for (at, value) in [(0, 0), (0, 200), (1, 1), (1, 3), (2, 1)] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(Message::decode(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn seal_reports_come_back_and_bad_lengths_are_refused() {
        let report = SealReport {
            continuous: true,
            committed: Generation { epoch: 3, number: 4 },
            first: 5,
            whole: 6,
            blocks: 99,
            chunk_blocks: 64,
            entries: vec![Entry::new(1, 2, Blocks { lba: 3, blocks: 4 })],
        };
        let mut bytes = vec![0; seal_report_bytes(1)];
        report.encode(&mut bytes).unwrap();
        assert_eq!(SealReport::decode(&bytes).unwrap(), report);
        assert_eq!(SealReport::decode(&[&bytes[..], &[0; 9]].concat()).unwrap(), report);
        assert_eq!(SealReport::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(SealReport::decode(&[]), None);
    }

    #[test]
    fn outcomes_have_the_numbers_of_the_wire() {
        for status in 0..=11 {
            assert_eq!(Outcome::of(status) as u8, status);
        }
        assert_eq!(Outcome::of(77), Outcome::Malformed);
    }
}
