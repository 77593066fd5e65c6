//! The records of the journal: what each says, and its bytes.
//!
//! A record sets fields to values, it never changes them by an amount. So replaying a record onto a
//! table that already has it (or has later ones) and then replaying the later ones gives the same
//! table: checkpoints may be fuzzy.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::LabelEntry;
use crate::ids::{Generation, LayerId, ReplicaId};
use crate::label::Label;

const WRITE: u8 = 1;
const CLEAR: u8 = 2;
const STAMP: u8 = 3;
const OVERWRITE: u8 = 4;
const CREATE: u8 = 16;
const RESIZE: u8 = 17;
const DELETE: u8 = 18;
const LABEL: u8 = 19;

/// Flag of CLEAR: the blocks become zero, not absent.
const TO_ZERO: u8 = 1;
/// Flag of CLEAR: the chunk becomes free.
const FREE: u8 = 2;

/// First four bytes of each record.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    kind: u8,
    flags: u8,
    /// Bytes of the whole record, a multiple of 8.
    length: U16,
}

/// WRITE, CLEAR, STAMP, OVERWRITE; the first and the last are followed by one CRC32C per bit of
/// `mask`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ChunkRecord {
    head: Head,
    chunk: U32,
    layer: U64,
    index: U32,
    reserved: U32,
    epoch: U64,
    number: U64,
    mask: U64,
}

/// CREATE, RESIZE, DELETE.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReplicaRecord {
    head: Head,
    reserved: U32,
    replica: [u8; 16],
    layer: U64,
    parent: U64,
    blocks: U64,
}

/// LABEL.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LabelRecord {
    head: Head,
    reserved: U32,
    replica: [u8; 16],
    layer: U64,
    label: LabelEntry,
}

const CHUNK_RECORD: usize = size_of::<ChunkRecord>();
const _: () = {
    assert!(size_of::<Head>() == 4);
    assert!(CHUNK_RECORD == 48);
    assert!(offset_of!(ChunkRecord, mask) == 40);
    assert!(size_of::<ReplicaRecord>() == 48);
    assert!(offset_of!(ReplicaRecord, blocks) == 40);
    assert!(size_of::<LabelRecord>() == 96);
    assert!(offset_of!(LabelRecord, label) == 32);
};

/// Most bytes that a record takes.
pub(crate) const MAX_RECORD: usize = CHUNK_RECORD + 64 * 4;

/// The mapping that a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub chunk: u32,
    pub layer: LayerId,
    pub index: u32,
}

/// The CRC32Cs of the blocks of a mask, lowest block first.
pub(crate) type Checksums<'a> = &'a [U32];

/// One change of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// The blocks of `mask` hold data, whose checksums these are. Takes the chunk if it is free.
    Write { place: Place, generation: Generation, mask: u64, checksums: Checksums<'a> },
    /// The blocks of `mask` hold no data; with `free` the chunk is nobody's.
    Clear { place: Place, generation: Generation, mask: u64, to_zero: bool, free: bool },
    /// The chunk will be overwritten in this generation.
    Stamp { place: Place, generation: Generation },
    /// The blocks of `mask` have new data, which follows the block (for disks that cannot write
    /// 4096 bytes at once).
    Overwrite { place: Place, generation: Generation, mask: u64, checksums: Checksums<'a> },
    /// A replica and its bottom layer come to be.
    Create { replica: ReplicaId, layer: LayerId, parent: u64, blocks: u64 },
    /// The top layer has a new size. (What was beyond a smaller one was cleared by earlier
    /// records.)
    Resize { replica: ReplicaId, layer: LayerId, blocks: u64 },
    /// The replica is gone, and all chunks of its layer are free.
    Delete { replica: ReplicaId, layer: LayerId },
    /// The replica has a new label.
    Label { replica: ReplicaId, layer: LayerId, label: Label },
}

impl<'a> Record<'a> {
    /// Appends the record's bytes to `out` (at most [`MAX_RECORD`]); returns how many, 0 if there
    /// is no room.
    pub(crate) fn encode(&self, out: &mut [u8]) -> usize {
        match *self {
            Record::Write { place, generation, mask, checksums } => {
                chunk(out, WRITE, 0, place, generation, mask, checksums)
            }
            Record::Overwrite { place, generation, mask, checksums } => {
                chunk(out, OVERWRITE, 0, place, generation, mask, checksums)
            }
            Record::Clear { place, generation, mask, to_zero, free } => {
                let flags = if to_zero { TO_ZERO } else { 0 } | if free { FREE } else { 0 };
                chunk(out, CLEAR, flags, place, generation, mask, &[])
            }
            Record::Stamp { place, generation } => chunk(out, STAMP, 0, place, generation, 0, &[]),
            Record::Create { replica: id, layer, parent, blocks } => {
                replica(out, CREATE, id, layer, parent, blocks)
            }
            Record::Resize { replica: id, layer, blocks } => {
                replica(out, RESIZE, id, layer, 0, blocks)
            }
            Record::Delete { replica: id, layer } => replica(out, DELETE, id, layer, 0, 0),
            Record::Label { replica, layer, label: value } => label(out, replica, layer, value),
        }
    }

    /// Takes the first record off `bytes`. `None` if it is malformed.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, _) = Head::read_from_prefix(bytes).ok()?;
        let length = usize::from(head.length.get());
        if length < CHUNK_RECORD || !length.is_multiple_of(8) || length > MAX_RECORD {
            return None;
        }
        let (own, rest) = bytes.split_at_checked(length)?;
        let record = match head.kind {
            WRITE | CLEAR | STAMP | OVERWRITE => parse_chunk(own)?,
            CREATE | RESIZE | DELETE if length == size_of::<ReplicaRecord>() => parse_replica(own)?,
            LABEL => parse_label(own)?,
            _ => return None,
        };
        Some((record, rest))
    }
}

fn padded(checksums: usize) -> usize {
    CHUNK_RECORD + (checksums * 4).next_multiple_of(8)
}

#[allow(clippy::cast_possible_truncation, reason = "a record is at most MAX_RECORD bytes")]
fn chunk(
    out: &mut [u8],
    kind: u8,
    flags: u8,
    place: Place,
    generation: Generation,
    mask: u64,
    checksums: Checksums<'_>,
) -> usize {
    let length = padded(checksums.len());
    let Some(out) = out.get_mut(..length) else { return 0 };
    let record = ChunkRecord {
        head: Head { kind, flags, length: (length as u16).into() },
        chunk: place.chunk.into(),
        layer: place.layer.0.into(),
        index: place.index.into(),
        reserved: 0.into(),
        epoch: generation.epoch.into(),
        number: generation.number.into(),
        mask: mask.into(),
    };
    out.fill(0);
    let (front, back) = out.split_at_mut(CHUNK_RECORD);
    front.copy_from_slice(record.as_bytes());
    for (to, from) in back.chunks_exact_mut(4).zip(checksums) {
        to.copy_from_slice(from.as_bytes());
    }
    length
}

#[allow(clippy::cast_possible_truncation, reason = "the record is 48 bytes")]
fn replica(
    out: &mut [u8],
    kind: u8,
    replica: ReplicaId,
    layer: LayerId,
    parent: u64,
    blocks: u64,
) -> usize {
    let length = size_of::<ReplicaRecord>();
    let Some(out) = out.get_mut(..length) else { return 0 };
    let record = ReplicaRecord {
        head: Head { kind, flags: 0, length: (length as u16).into() },
        reserved: 0.into(),
        replica: replica.0,
        layer: layer.0.into(),
        parent: parent.into(),
        blocks: blocks.into(),
    };
    out.copy_from_slice(record.as_bytes());
    length
}

#[allow(clippy::cast_possible_truncation, reason = "the record is 96 bytes")]
fn label(out: &mut [u8], replica: ReplicaId, layer: LayerId, label: Label) -> usize {
    let length = size_of::<LabelRecord>();
    let Some(out) = out.get_mut(..length) else { return 0 };
    let record = LabelRecord {
        head: Head { kind: LABEL, flags: 0, length: (length as u16).into() },
        reserved: 0.into(),
        replica: replica.0,
        layer: layer.0.into(),
        label: label.into(),
    };
    out.copy_from_slice(record.as_bytes());
    length
}

fn parse_chunk(bytes: &[u8]) -> Option<Record<'_>> {
    let (record, rest) = ChunkRecord::ref_from_prefix(bytes).ok()?;
    let place = Place {
        chunk: record.chunk.get(),
        layer: LayerId(record.layer.get()),
        index: record.index.get(),
    };
    let generation = Generation { epoch: record.epoch.get(), number: record.number.get() };
    let mask = record.mask.get();
    let count = mask.count_ones() as usize;
    if place.layer.0 == 0 {
        return None;
    }
    match record.head.kind {
        kind @ (WRITE | OVERWRITE) => {
            if mask == 0 || bytes.len() != padded(count) {
                return None;
            }
            let (checksums, _) = <[U32]>::ref_from_prefix_with_elems(rest, count).ok()?;
            Some(if kind == WRITE {
                Record::Write { place, generation, mask, checksums }
            } else {
                Record::Overwrite { place, generation, mask, checksums }
            })
        }
        CLEAR if bytes.len() == CHUNK_RECORD => {
            let flags = record.head.flags;
            let (to_zero, free) = (flags & TO_ZERO != 0, flags & FREE != 0);
            Some(Record::Clear { place, generation, mask, to_zero, free })
        }
        STAMP if bytes.len() == CHUNK_RECORD => Some(Record::Stamp { place, generation }),
        _ => None,
    }
}

fn parse_replica(bytes: &[u8]) -> Option<Record<'_>> {
    let record = ReplicaRecord::ref_from_bytes(bytes).ok()?;
    let (replica, layer) = (ReplicaId(record.replica), LayerId(record.layer.get()));
    let blocks = record.blocks.get();
    if layer.0 == 0 || replica.0 == [0; 16] {
        return None;
    }
    match record.head.kind {
        CREATE => Some(Record::Create { replica, layer, parent: record.parent.get(), blocks }),
        RESIZE => Some(Record::Resize { replica, layer, blocks }),
        DELETE => Some(Record::Delete { replica, layer }),
        _ => None,
    }
}

fn parse_label(bytes: &[u8]) -> Option<Record<'_>> {
    let record = LabelRecord::ref_from_bytes(bytes).ok()?;
    let (replica, layer) = (ReplicaId(record.replica), LayerId(record.layer.get()));
    if layer.0 == 0 || replica.0 == [0; 16] {
        return None;
    }
    Some(Record::Label { replica, layer, label: record.label.into() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_survive_a_round_trip() {
        let place = Place { chunk: 5, layer: LayerId(9), index: 77 };
        let generation = Generation { epoch: 3, number: 4 };
        let checksums: Vec<U32> = (0..64_u32).map(U32::new).collect();
        let replica = ReplicaId([7; 16]);
        let label = Label { promised: 1, promised_to: 2, committed: generation, state: [3; 32] };
        let records = [
            Record::Write { place, generation, mask: 0b101, checksums: &checksums[..2] },
            Record::Write { place, generation, mask: u64::MAX, checksums: &checksums },
            Record::Clear { place, generation, mask: 2, to_zero: true, free: false },
            Record::Clear { place, generation, mask: 2, to_zero: false, free: true },
            Record::Stamp { place, generation },
            Record::Overwrite { place, generation, mask: 1 << 63, checksums: &checksums[..1] },
            Record::Create { replica, layer: LayerId(1), parent: 0, blocks: 12 },
            Record::Resize { replica, layer: LayerId(1), blocks: 13 },
            Record::Delete { replica, layer: LayerId(1) },
            Record::Label { replica, layer: LayerId(1), label },
        ];
        let mut bytes = vec![0; 4032];
        let mut used = 0;
        for record in &records {
            used += record.encode(&mut bytes[used..]);
        }
        let mut rest = &bytes[..used];
        for record in &records {
            let (parsed, after) = Record::parse(rest).unwrap();
            assert_eq!(parsed, *record);
            rest = after;
        }
        assert!(rest.is_empty());
        assert_eq!(records[1].encode(&mut [0; 300]), 0, "no room");
    }

    #[test]
    fn malformed_records_are_refused() {
        assert!(Record::parse(&[]).is_none());
        assert!(Record::parse(&[0; 48]).is_none());
        assert!(Record::parse(&[0xff; 4096]).is_none());
    }
}
