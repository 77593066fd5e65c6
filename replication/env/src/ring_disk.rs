//! The real disk: `afs_reactor`'s ring disk seen through the [`Disk`] trait.

use afs_reactor::{Buffer, BufferMut, BufferPool, DiskError, RingDisk};

use crate::disk::Disk;

impl Disk for RingDisk {
    fn size(&self) -> u64 {
        RingDisk::size(self)
    }

    fn block_size(&self) -> u32 {
        RingDisk::block_size(self)
    }

    fn pool(&self) -> &BufferPool {
        RingDisk::pool(self)
    }

    async fn read(&self, offset: u64, buffer: BufferMut) -> (BufferMut, Result<(), DiskError>) {
        RingDisk::read(self, offset, buffer).await
    }

    async fn write(&self, offset: u64, data: Buffer) -> Result<(), DiskError> {
        RingDisk::write(self, offset, data).await
    }

    async fn write_durable(&self, offset: u64, data: Buffer) -> Result<(), DiskError> {
        RingDisk::write_durable(self, offset, data).await
    }

    async fn sync(&self) -> Result<(), DiskError> {
        RingDisk::sync(self).await
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        RingDisk::discard(self, offset, len).await
    }

    async fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        RingDisk::write_zeroes(self, offset, len).await
    }
}
