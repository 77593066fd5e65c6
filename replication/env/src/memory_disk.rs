//! A disk in plain memory, for unit tests of what stands on top of [`Disk`]. It never fails by
//! itself, never waits, and everything written is durable at once; the simulator has the one with
//! faults.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use afs_reactor::{Buffer, BufferMut, BufferPool, DiskError};

use crate::disk::{BLOCK_BYTES, Disk};

struct Inner {
    bytes: RefCell<Vec<u8>>,
    syncs: Cell<u64>,
    failure: Cell<Option<DiskError>>,
    failing_reads: Cell<usize>,
}

/// The disk; clones share the memory.
#[derive(Clone)]
pub struct MemDisk {
    inner: Rc<Inner>,
    pool: BufferPool,
}

impl MemDisk {
    /// A disk of `bytes` (rounded down to whole blocks), all zero, with buffers out of `pool`.
    pub fn new(bytes: usize, pool: &BufferPool) -> MemDisk {
        let whole = bytes - bytes % BLOCK_BYTES as usize;
        MemDisk::from_image(vec![0; whole], pool)
    }

    /// A disk that holds `image`, cut to whole blocks.
    pub fn from_image(mut image: Vec<u8>, pool: &BufferPool) -> MemDisk {
        image.truncate(image.len() - image.len() % BLOCK_BYTES as usize);
        let inner = Inner {
            bytes: RefCell::new(image),
            syncs: Cell::new(0),
            failure: Cell::new(None),
            failing_reads: Cell::new(0),
        };
        MemDisk { inner: Rc::new(inner), pool: pool.clone() }
    }

    /// A copy of all bytes.
    pub fn image(&self) -> Vec<u8> {
        self.inner.bytes.borrow().clone()
    }

    /// How many syncs were asked for.
    pub fn syncs(&self) -> u64 {
        self.inner.syncs.get()
    }

    /// Makes every operation from now on fail with `error`, or none (`None`).
    pub fn fail_with(&self, error: Option<DiskError>) {
        self.inner.failure.set(error);
    }

    /// Makes the next `count` reads fail.
    pub fn fail_reads(&self, count: usize) {
        self.inner.failing_reads.set(count);
    }

    fn access<T>(
        &self,
        offset: u64,
        len: u64,
        action: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T, DiskError> {
        if let Some(error) = self.inner.failure.get() {
            return Err(error);
        }
        let block = u64::from(BLOCK_BYTES);
        if !offset.is_multiple_of(block) || !len.is_multiple_of(block) {
            return Err(DiskError::OutOfRange);
        }
        let end = offset.checked_add(len).ok_or(DiskError::OutOfRange)?;
        let start = usize::try_from(offset).map_err(|_| DiskError::OutOfRange)?;
        let end = usize::try_from(end).map_err(|_| DiskError::OutOfRange)?;
        let mut bytes = self.inner.bytes.borrow_mut();
        bytes.get_mut(start..end).map(action).ok_or(DiskError::OutOfRange)
    }
}

impl Disk for MemDisk {
    fn size(&self) -> u64 {
        self.inner.bytes.borrow().len() as u64
    }

    fn block_size(&self) -> u32 {
        BLOCK_BYTES
    }

    fn pool(&self) -> &BufferPool {
        &self.pool
    }

    async fn read(&self, offset: u64, mut buffer: BufferMut) -> (BufferMut, Result<(), DiskError>) {
        if let Some(left) = self.inner.failing_reads.get().checked_sub(1) {
            self.inner.failing_reads.set(left);
            return (buffer, Err(DiskError::Io { errno: 5 }));
        }
        let len = buffer.len() as u64;
        let result = self.access(offset, len, |bytes| buffer.copy_from_slice(bytes));
        (buffer, result)
    }

    async fn write(&self, offset: u64, data: Buffer) -> Result<(), DiskError> {
        self.access(offset, data.len() as u64, |bytes| bytes.copy_from_slice(&data))
    }

    async fn write_durable(&self, offset: u64, data: Buffer) -> Result<(), DiskError> {
        self.write(offset, data).await
    }

    async fn sync(&self) -> Result<(), DiskError> {
        self.inner.syncs.set(self.inner.syncs.get() + 1);
        self.access(0, 0, |_| ())
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.access(offset, len, |_| ())
    }

    async fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.access(offset, len, |bytes| bytes.fill(0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn what_was_written_is_read_back() {
        let pool = BufferPool::new(1).unwrap();
        let disk = MemDisk::new(64 << 10, &pool);
        let mut data = pool.try_alloc(8192).unwrap();
        data.fill(9);
        run(disk.write_durable(4096, data.freeze())).unwrap();
        run(disk.write_zeroes(8192, 4096)).unwrap();
        let (buffer, result) = run(disk.read(4096, pool.try_alloc(8192).unwrap()));
        result.unwrap();
        assert!(buffer[..4096].iter().all(|&b| b == 9) && buffer[4096..].iter().all(|&b| b == 0));
    }

    #[test]
    fn ranges_past_the_end_or_off_the_grid_are_refused() {
        let pool = BufferPool::new(1).unwrap();
        let disk = MemDisk::new(8192 + 100, &pool);
        assert_eq!(disk.size(), 8192);
        for (offset, len) in [(4096, 8192), (1, 4096), (0, 100), (u64::MAX - 4095, 4096)] {
            assert_eq!(run(disk.discard(offset, len)), Err(DiskError::OutOfRange));
        }
    }

    #[test]
    fn a_planted_failure_meets_every_operation() {
        let pool = BufferPool::new(1).unwrap();
        let disk = MemDisk::new(8192, &pool);
        disk.fail_with(Some(DiskError::Gone));
        assert_eq!(run(disk.sync()), Err(DiskError::Gone));
        disk.fail_with(None);
        assert_eq!(run(disk.sync()), Ok(()));
    }
}
