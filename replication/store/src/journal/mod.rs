//! The journal: a ring of 4096-byte blocks in which every change of metadata is durable before it
//! counts. [`staging`] collects records from all reactors, [`writer`] writes and syncs them,
//! [`scan`] reads them back.
//!
//! # Blocks
//! Each block has a sequence number, and lies at `sequence % journal_blocks`. It carries the
//! checksum of the block before it, records, and `durable`: **every block below that number was on
//! stable media, with all data that its records describe, before this block was written.** That one
//! number is three things at once:
//!
//! - the *barrier*: replay takes records below it as they are, and checks the data of records above
//!   it;
//! - the *proof of damage*: a block that fails its check, below the `durable` of any later good
//!   block, was once whole. It is damage, and the store is lost. A bad block above it is a torn
//!   tail, which is normal;
//! - what an acknowledgement waits for: a first write is done when `durable` is past its record.
//!
//! # Why each moment is safe to lose power
//! *First write.* Data and record are issued together, then one sync covers both, then `durable`
//! passes the record, then the write is acknowledged. Cut before the sync: the record is missing
//! (block unchanged), or it is there and the data is not or is half there: the checksum in the
//! record says so, and replay clears the block again (a journalled clear, so that a second replay,
//! which may see a later barrier, agrees). Cut after: both are there.
//!
//! *Overwrite.* Changes the bytes under an old record's checksum, so it must not start before a
//! block whose `durable` is past that record is itself durable. If none is, an empty block is
//! written first.
//!
//! *Clear (trim, zeroes).* Only a record. Nothing else touches the blocks while it is on its way:
//! writes in flight are waited for, new ones wait. Its memory state changes when it is durable.
//!
//! *Reuse of a freed chunk.* A chunk returns to the free list when the record that freed it is
//! durable and every read and write that had looked it up has ended. So the next owner's bytes
//! never land in a chunk that a cut could give back to the old one. The new owner's blocks count as
//! data only where it wrote them; the rest reads as zeroes, whatever is there.
//!
//! *Stamp.* The generation's record is durable before the first overwrite of that generation is
//! issued. First writes and clears carry the generation in the record that makes them count. So a
//! chunk whose contents are of a generation is never found with an earlier stamp; only freeing the
//! chunk takes a stamp back.
//!
//! *Label.* Only a record; the label in memory, and with it in checkpoints, is the durable one.
//!
//! *Recovery.* Cut during recovery: it only invalidates blocks of the torn tail and appends. Doing
//! it again gives the same state.
//!
//! *Checkpoint.* See [`crate::checkpoint`].
//!
//! Two records about one block are never in flight together, so of the records above the barrier at
//! most one concerns any block, and its checksum is about the bytes that are there.

pub(crate) mod block;
pub(crate) mod record;
pub(crate) mod scan;
pub(crate) mod staging;
pub(crate) mod writer;
