//! A disk, as the store sees it: whole blocks read and written in pool buffers. Implemented by the
//! ring disk of `afs_reactor`, by [`MemDisk`](crate::MemDisk) for unit tests, and by the simulator.

use afs_reactor::{Buffer, BufferMut, BufferPool, DiskError};

/// The unit of every offset and length, in bytes: one logical block.
pub const BLOCK_BYTES: u32 = 4096;

/// One disk on one reactor. Clones are handles to the same disk.
///
/// Offsets and lengths are multiples of [`BLOCK_BYTES`]; what is not, or reaches past
/// [`size`](Disk::size), fails with [`DiskError::OutOfRange`]. Operations under way at the same
/// time have no order among each other. Dropping a future neither cancels nor completes its
/// operation: a write may still reach the disk, in whole or in part.
pub trait Disk: Clone + 'static {
    /// Usable size in bytes, a multiple of [`BLOCK_BYTES`]; constant while the disk is open.
    fn size(&self) -> u64;

    /// The largest unit in bytes that a power cut leaves whole, either old or new: a power of two
    /// from 512. Less than [`BLOCK_BYTES`] means that a block can be torn.
    fn block_size(&self) -> u32;

    /// Where buffers for this disk come from.
    fn pool(&self) -> &BufferPool;

    /// Fills the whole buffer from `offset`. On an error its contents are unspecified.
    fn read(
        &self,
        offset: u64,
        buffer: BufferMut,
    ) -> impl Future<Output = (BufferMut, Result<(), DiskError>)>;

    /// Writes `data` at `offset`. Later reads see it; a power cut may still take it back until a
    /// [`sync`](Disk::sync) that began afterwards has succeeded.
    fn write(&self, offset: u64, data: Buffer) -> impl Future<Output = Result<(), DiskError>>;

    /// Writes `data` at `offset`; durable when it succeeds.
    fn write_durable(
        &self,
        offset: u64,
        data: Buffer,
    ) -> impl Future<Output = Result<(), DiskError>>;

    /// Makes every write durable that had completed when this was called. After one failure, all
    /// later calls fail: what the disk still holds is unknown.
    fn sync(&self) -> impl Future<Output = Result<(), DiskError>>;

    /// Tells the disk that these bytes are not needed; what they read as afterwards is unspecified.
    /// A disk that cannot make use of this succeeds without doing anything.
    fn discard(&self, offset: u64, len: u64) -> impl Future<Output = Result<(), DiskError>>;

    /// Makes these bytes read as zero; durable like [`write`](Disk::write).
    fn write_zeroes(&self, offset: u64, len: u64) -> impl Future<Output = Result<(), DiskError>>;
}
