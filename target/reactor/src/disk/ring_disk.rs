//! A disk on one reactor: whole blocks read and written through the reactor's ring. `afs_env`
//! makes its `Disk` of this.

use std::io;
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::sync::Turn;
use super::{AttachedFile, BLOCK_BYTES, DiskError, DiskFile, Durability};
use crate::buffer::{Buffer, BufferMut, BufferPool};
use crate::memory::{ZEROS_BYTES, zeros};
use crate::reactor::Local;
use crate::ring::{Payload, Ring};

/// Durable writes of one reactor that share syncs; further ones bring their own flush. A few writes are quicker with a
/// shared sync, as the kernel then waits for one flush instead of working off one after the other. With many the kernel
/// merges the flushes of the writes by itself, and the wait for the next shared sync is saved: twice as many writes at
/// depth 32 on the disk that this was measured on.
const SHARING_WRITES: u32 = 8;

/// A disk on one reactor. Clones are handles to the same one.
///
/// Offsets and lengths are multiples of 4096. Dropping a future neither cancels nor completes
/// its operation. Transfers that the kernel does in part are continued.
#[derive(Clone)]
pub struct RingDisk {
    file: Rc<AttachedFile>,
    pool: BufferPool,
}

/// Bytes on their way, as the kernel is told.
struct Transfer {
    address: *const u8,
    length: u32,
    offset: u64,
    registered: Option<u16>,
    flags: i32,
}

impl RingDisk {
    /// Makes `file` usable on the reactor of `local`.
    ///
    /// # Errors
    /// `Unsupported` when the reactor was configured without a ring.
    pub fn new(local: &Local, file: &DiskFile) -> io::Result<RingDisk> {
        let ring = local.ring().ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "this reactor has no disk ring")
        })?;
        let file = Rc::new(AttachedFile::new(ring, file));
        Ok(RingDisk { file, pool: local.pool().clone() })
    }

    /// The open disk.
    pub fn file(&self) -> &DiskFile {
        self.file.file()
    }

    /// Usable size in bytes.
    pub fn size(&self) -> u64 {
        self.file().size()
    }

    /// What a power cut leaves whole, in bytes; see [`DiskFile::atomic_unit`].
    pub fn block_size(&self) -> u32 {
        self.file().atomic_unit()
    }

    /// The reactor's buffers.
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// Fills the whole buffer from `offset`. On an error its contents are unspecified.
    pub async fn read(
        &self,
        offset: u64,
        mut buffer: BufferMut,
    ) -> (BufferMut, Result<(), DiskError>) {
        if let Err(error) = self.check(offset, buffer.len() as u64) {
            return (buffer, Err(error));
        }
        let mut done = 0;
        while done < buffer.len() {
            let transfer = {
                let tail = &mut buffer[done..];
                let (address, length) = (tail.as_mut_ptr().cast_const(), tail.len());
                self.transfer(buffer.pool(), (address, length), offset + done as u64, 0)
            };
            let entry = self.read_entry(&transfer);
            let slot = self.ring().slot().await;
            // SAFETY: the entry names the tail of `buffer`, which the payload owns, and our file.
            let operation = unsafe { slot.begin(entry, Payload::Read(buffer), self.file.clone()) };
            let (result, payload) = operation.await;
            let Payload::Read(back) = payload else {
                unreachable!("an operation gives back what it was given")
            };
            buffer = back;
            match moved(result) {
                Ok(bytes) => done += bytes,
                Err(error) => return (buffer, Err(error)),
            }
        }
        (buffer, Ok(()))
    }

    /// Writes `data` at `offset`; not durable until a later [`sync`](RingDisk::sync).
    pub async fn write(&self, offset: u64, data: Buffer) -> Result<(), DiskError> {
        self.write_flagged(offset, data, 0).await
    }

    /// Writes `data` at `offset`; durable when it succeeds.
    pub async fn write_durable(&self, offset: u64, data: Buffer) -> Result<(), DiskError> {
        match self.file().durability() {
            Durability::WriteThrough => self.write_flagged(offset, data, 0).await,
            Durability::EachWrite => self.write_flagged(offset, data, libc::RWF_DSYNC).await,
            Durability::SharedSync => {
                let (count, _guard) = self.file.begin_durable_write();
                if count > SHARING_WRITES {
                    return self.write_flagged(offset, data, libc::RWF_DSYNC).await;
                }
                self.write_flagged(offset, data, 0).await?;
                self.sync().await
            }
        }
    }

    /// Makes every write durable that had completed when this was called, on whatever reactor.
    /// Those who ask at the same time share one sync. After a failure, all later ones fail.
    pub async fn sync(&self) -> Result<(), DiskError> {
        if !self.file().needs_flush() {
            return Ok(());
        }
        let group = self.file().syncs();
        let goal = group.goal();
        loop {
            if let Turn::Finished(result) = group.wait(goal).await {
                return result;
            }
            let slot = self.ring().slot().await;
            if let Some(running) = group.claim(goal) {
                let (fd, flags) = self.file.target();
                let fsync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC);
                let entry = fsync.build().flags(flags);
                // SAFETY: the entry names no memory, and our file.
                unsafe { slot.begin_detached(entry, running, self.file.clone()) };
            }
        }
    }

    /// Tells a device that these bytes are not needed. A file keeps its reserved space, so there
    /// it does nothing, and neither does a device that cannot make use of it.
    pub async fn discard(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.check(offset, len)?;
        self.check_writable()?;
        if len == 0 || !self.file().is_device() {
            return Ok(());
        }
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        match self.allocate(offset, len, mode).await {
            Err(DiskError::Io { errno: libc::EOPNOTSUPP }) => Ok(()),
            result => result,
        }
    }

    /// Makes these bytes read as zero; durable like [`write`](RingDisk::write). A file's space stays
    /// reserved and written.
    pub async fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.check(offset, len)?;
        self.check_writable()?;
        if len > 0 && self.file().is_device() {
            let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
            match self.allocate(offset, len, mode).await {
                Err(DiskError::Io { errno: libc::EOPNOTSUPP }) => {}
                result => return result,
            }
        }
        let zeros = zeros().map_err(|_| DiskError::Io { errno: libc::ENOMEM })?;
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let step = usize::try_from(end - at).unwrap_or(ZEROS_BYTES).min(ZEROS_BYTES);
            let transfer = Transfer {
                address: zeros.as_ptr(),
                length: transfer_length(step),
                offset: at,
                registered: None,
                flags: 0,
            };
            let entry = self.write_entry(&transfer);
            let slot = self.ring().slot().await;
            // SAFETY: the entry names memory that is never freed and never written, and our file.
            let operation = unsafe { slot.begin(entry, Payload::Nothing, self.file.clone()) };
            at += moved(operation.await.0)? as u64;
        }
        Ok(())
    }

    async fn write_flagged(
        &self,
        offset: u64,
        mut data: Buffer,
        flags: i32,
    ) -> Result<(), DiskError> {
        self.check(offset, data.len() as u64)?;
        self.check_writable()?;
        let mut done = 0;
        while done < data.len() {
            let transfer = {
                let tail = (data[done..].as_ptr(), data.len() - done);
                self.transfer(data.pool(), tail, offset + done as u64, flags)
            };
            let entry = self.write_entry(&transfer);
            let slot = self.ring().slot().await;
            // SAFETY: the entry names the tail of `data`, which the payload holds, and our file.
            let operation = unsafe { slot.begin(entry, Payload::Write(data), self.file.clone()) };
            let (result, payload) = operation.await;
            let Payload::Write(back) = payload else {
                unreachable!("an operation gives back what it was given")
            };
            data = back;
            done += moved(result)?;
        }
        Ok(())
    }

    async fn allocate(&self, offset: u64, len: u64, mode: i32) -> Result<(), DiskError> {
        let (fd, flags) = self.file.target();
        let entry = opcode::Fallocate::new(fd, len).offset(offset).mode(mode).build().flags(flags);
        let slot = self.ring().slot().await;
        // SAFETY: the entry names no memory, and our file.
        let operation = unsafe { slot.begin(entry, Payload::Nothing, self.file.clone()) };
        match operation.await.0 {
            0.. => Ok(()),
            errno => Err(DiskError::from_errno(-errno)),
        }
    }

    fn ring(&self) -> &Ring {
        self.file.ring()
    }

    fn check(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        let aligned = offset.is_multiple_of(BLOCK_BYTES) && len.is_multiple_of(BLOCK_BYTES);
        match offset.checked_add(len) {
            Some(end) if aligned && end <= self.size() => Ok(()),
            _ => Err(DiskError::OutOfRange),
        }
    }

    fn check_writable(&self) -> Result<(), DiskError> {
        match self.file().is_read_only() {
            true => Err(DiskError::Io { errno: libc::EROFS }),
            false => Ok(()),
        }
    }

    fn transfer(
        &self,
        pool: &BufferPool,
        (address, length): (*const u8, usize),
        offset: u64,
        flags: i32,
    ) -> Transfer {
        Transfer {
            address,
            length: transfer_length(length),
            offset,
            registered: self.ring().registered_buffer(pool, address),
            flags,
        }
    }

    fn read_entry(&self, transfer: &Transfer) -> squeue::Entry {
        let &Transfer { address, length, offset, registered, .. } = transfer;
        let (fd, flags) = self.file.target();
        let address = address.cast_mut();
        let entry = match registered {
            Some(buffer) => {
                opcode::ReadFixed::new(fd, address, length, buffer).offset(offset).build()
            }
            None => opcode::Read::new(fd, address, length).offset(offset).build(),
        };
        entry.flags(flags)
    }

    fn write_entry(&self, transfer: &Transfer) -> squeue::Entry {
        let &Transfer { address, length, offset, registered, flags: rw_flags } = transfer;
        let (fd, flags) = self.file.target();
        let entry = match registered {
            Some(buffer) => opcode::WriteFixed::new(fd, address, length, buffer)
                .offset(offset)
                .rw_flags(rw_flags)
                .build(),
            None => {
                opcode::Write::new(fd, address, length).offset(offset).rw_flags(rw_flags).build()
            }
        };
        entry.flags(flags)
    }
}

/// How far a transfer got, from the kernel's result.
fn moved(result: i32) -> Result<usize, DiskError> {
    match result {
        // Nothing more to read or no place to write: the file was cut short.
        0 => Err(DiskError::Io { errno: libc::ENODATA }),
        1.. => Ok(usize::try_from(result).unwrap_or(0)),
        // Not begun: begin again.
        errno if errno == -libc::EINTR => Ok(0),
        errno => Err(DiskError::from_errno(-errno)),
    }
}

/// One transfer is at most one buffer, 1 MiB.
fn transfer_length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
